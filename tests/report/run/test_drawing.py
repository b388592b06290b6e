import numpy as np
import pytest

from tests.report.run.drawn import pixels
from visionsweep.report.run import drawing


def test_a_long_name_keeps_both_ends_and_its_length():
    name = drawing.shortened("a_class_with_a_long_name_and_number_17")
    assert len(name) == drawing.MAX_NAME_LENGTH
    assert name.startswith("a_class")
    assert name.endswith("17")
    assert "..." in name
    assert drawing.shortened("x" * drawing.MAX_NAME_LENGTH) == "x" * drawing.MAX_NAME_LENGTH


def test_what_cannot_be_drawn_is_a_question_mark():
    assert drawing.shortened("a\nb\udcff\x00c") == "a?b??c"


def test_widths_are_those_of_the_drawn_text(tmp_path):
    text, size = "Wäschekorb 17", 12
    figure = drawing.new_figure(4, 1)
    figure.text(0.1, 0.5, text, **drawing.name_style([text], size))
    drawing.save_png(figure, tmp_path / "text.png")
    columns = np.flatnonzero((pixels(tmp_path / "text.png") < 128).any(axis=(0, 2)))
    inked = (columns[-1] - columns[0] + 1) / drawing.DPI
    assert inked <= drawing.text_width([text], size) <= 1.07 * inked
    assert drawing.text_width([text, "a"], size) == drawing.text_width([text], size)
    assert drawing.text_width([], size) == 0


def test_a_fitted_text_fits():
    text = "a_directory_with_a_long_name/and_a_file_0123.png"
    assert drawing.text_width([text], 9) > 1.5
    cut = drawing.fitted(text, 9, 1.5)
    assert 1.3 < drawing.text_width([cut], 9) <= 1.5
    assert cut.endswith(".png")
    assert drawing.fitted("short", 9, 1.5) == "short"


@pytest.mark.parametrize(
    "name", ["$x$", "$\\frac{1$", "猫", "\udcff", "", "_hidden", "Größe ≤ 3 µm", "حصان"]
)
def test_any_name_can_be_drawn(name, tmp_path):
    figure = drawing.new_figure(2, 1)
    figure.text(0.1, 0.5, drawing.shortened(name), **drawing.name_style([name], 9))
    drawing.text_width([drawing.shortened(name)], 9)
    drawing.save_png(figure, tmp_path / "name.png")
    assert pixels(tmp_path / "name.png").shape == (drawing.DPI, 2 * drawing.DPI, 3)

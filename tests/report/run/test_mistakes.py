import numpy as np
import pytest

from visionsweep.report.run.mistakes import draw_mistakes


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 7])
def test_each_image_has_its_caption(count, channels, figures, tmp_path):
    shape = (count, channels, 8, 8)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    names, long_names = ["cat"] * count, ["a class with a long name"] * count
    ids = [f"folder/{i}.png" for i in range(count)]
    confidences = np.linspace(0.98, 0.5, count)
    draw_mistakes(images, names, ["dog"] * count, confidences, ids, tmp_path / "m.png")
    draw_mistakes(images, names, long_names, confidences, ids, tmp_path / "m.png")
    axes = [axes for axes in figures[0].axes if axes.images]
    assert len(axes) == count
    for image, shown in zip(images, axes, strict=True):
        rgb = np.broadcast_to(image, (3, 8, 8)).transpose(1, 2, 0)
        assert np.array_equal(shown.images[0].get_array(), rgb)
    assert axes[0].get_title() == "cat \u2192 dog"
    assert axes[0].get_xlabel() == "0.98  0.png"
    assert figures[1].axes[0].get_title().startswith("cat\n\u2192 a class")


def test_no_mistakes_are_a_small_picture_that_says_so(figures, tmp_path):
    draw_mistakes(np.zeros((0, 3, 8, 8), np.uint8), [], [], [], [], tmp_path / "m.png")
    assert [text.get_text() for text in figures[0].texts] == ["no mistakes"]

import numpy as np
import pytest

from tests.report.run.drawn import Drawn, pixels
from visionsweep.report.run import mistakes
from visionsweep.report.run.mistakes import mistakes_png, worst_mistakes


def test_worst_is_the_most_confident_wrong_one_and_of_equals_the_first():
    probabilities = np.array(
        [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.8, 0.2], [0.01, 0.99], [0.8, 0.2]], np.float32
    )
    targets = np.array([0, 0, 0, 1, 1, 1])
    assert worst_mistakes(probabilities, targets).tolist() == [1, 3, 5, 2]
    assert worst_mistakes(probabilities, targets, count=2).tolist() == [1, 3]
    assert worst_mistakes(probabilities, 1 - probabilities.argmax(axis=1), count=1).tolist() == [4]


def test_no_mistake_is_an_empty_array_of_indices():
    found = worst_mistakes(np.eye(3, dtype=np.float32), np.arange(3))
    assert (found.shape, found.dtype) == ((0,), np.int64)


def test_worst_agrees_with_sorting_all():
    generator = np.random.default_rng(0)
    probabilities = (
        generator.dirichlet(np.ones(5), 300).round(1).astype(np.float32)
    )  # many equal ones
    targets = generator.integers(0, 5, 300)
    rows = [
        (-max(row), i)
        for i, row in enumerate(probabilities.tolist())
        if row.index(max(row)) != targets[i]
    ]
    assert worst_mistakes(probabilities, targets, count=50).tolist() == [
        i for _, i in sorted(rows)[:50]
    ]


def sheet(images, path, true="cat", predicted="dog", label="cat/0017.png"):
    count = len(images)
    confidences = np.linspace(0.99, 0.5, count)
    mistakes_png(images, [true] * count, [predicted] * count, confidences, [label] * count, path)
    return pixels(path)


def find(picture, pattern):
    """The number of places where `pattern` stands in a picture, pixel by pixel."""
    windows = np.lib.stride_tricks.sliding_window_view(picture, pattern.shape[:2], axis=(0, 1))
    starts = np.argwhere((windows[..., 0, 0] == pattern[0, 0]).all(axis=-1))
    return sum(np.array_equal(windows[y, x].transpose(1, 2, 0), pattern) for y, x in starts)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "factor"), [(8, 19), (28, 5), (64, 2)])
def test_small_images_are_enlarged_without_blur(channels, size, factor, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, channels, size, size), dtype=np.uint8)
    picture = sheet(images, tmp_path / "m.png")
    for image in images:
        rgb = np.broadcast_to(image, (3, size, size)).transpose(1, 2, 0)
        assert find(picture, np.kron(rgb, np.ones((factor, factor, 1), np.uint8))) == 1


@pytest.mark.parametrize("shape", [(224, 224), (300, 100), (65, 500), (3, 2000)])
def test_large_images_are_reduced_in_proportion(shape, tmp_path):
    color = np.array([10, 200, 90], np.uint8)
    images = np.broadcast_to(color[:, None, None], (2, 3, *shape))
    picture = sheet(images, tmp_path / "m.png")
    rows, _ = np.nonzero((picture == color).all(axis=-1))
    scale = 158 / max(shape)
    area = 2 * max(1, shape[0] * scale) * max(1, shape[1] * scale)
    assert len(rows) == pytest.approx(area, rel=0.03)


def test_captions_of_short_names_stand_in_one_line(monkeypatch, tmp_path):
    drawn = Drawn(monkeypatch, mistakes)
    images = np.zeros((2, 1, 8, 8), np.uint8)
    mistakes_png(
        images,
        ["cat", "8"],
        ["dog", "3"],
        [0.984, 0.5],
        ["cat/0017.png", "digits 12"],
        tmp_path / "m.png",
    )
    title, *captions = drawn.texts
    assert title == "2 most confident mistakes: target \u2192 prediction, confidence"
    assert captions == ["cat \u2192 dog  0.98", "0017.png", "8 \u2192 3  0.50", "digits 12"]


def test_long_names_have_lines_of_their_own_that_fit(monkeypatch, tmp_path):
    drawn = Drawn(monkeypatch, mistakes)
    names = ["Golden Retriever", "Wäschetrockner mit sehr langem Namen", "W" * 40]
    images = np.zeros((3, 1, 8, 8), np.uint8)
    mistakes_png(
        images, names, names[::-1], [0.9, 0.8, 0.7], ["x" * 60 + ".jpg"] * 3, tmp_path / "m.png"
    )
    figure = drawn.figures[0]
    captions = figure.texts[1:]
    assert len(captions) == 9
    assert captions[0].get_text() == "Golden Retriever"
    assert captions[2].get_text().startswith("0.90  xxx")
    assert captions[2].get_text().endswith(".jpg")
    renderer = figure.canvas.get_renderer()
    assert (
        max(text.get_window_extent(renderer).width for text in captions)
        <= mistakes.TILE + mistakes.GAP
    )


@pytest.mark.parametrize("count", [1, 6, 7, 24])
def test_all_mistakes_are_on_the_sheet(count, tmp_path):
    gray = np.arange(1, count + 1, dtype=np.uint8)
    images = np.broadcast_to(gray[:, None, None, None] * 7, (count, 1, 8, 8))
    picture = sheet(images, tmp_path / "m.png")
    for value in gray * 7:
        assert ((picture == value).all(axis=-1)).sum() >= (8 * 19) ** 2


def test_none_is_a_small_picture_that_says_so(monkeypatch, tmp_path):
    drawn = Drawn(monkeypatch, mistakes)
    mistakes_png(np.zeros((0, 3, 8, 8), np.uint8), [], [], [], [], tmp_path / "m.png")
    assert drawn.texts == ["no mistakes"]
    height, width, _ = pixels(tmp_path / "m.png").shape
    assert (height < 120, width < 500) == (True, True)


def test_odd_names_are_drawn(tmp_path):
    picture = sheet(
        np.zeros((1, 1, 8, 8), np.uint8),
        tmp_path / "m.png",
        true="$a$",
        predicted="猫",
        label="\udcff.png",
    )
    assert picture.size > 0


def test_wrong_input_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"images of shape \(1, 4, 8, 8\), expected \(M, 1 or 3, H, W\)"
    ):
        sheet(np.zeros((1, 4, 8, 8), np.uint8), tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"different lengths: \[1, 2\]"):
        mistakes_png(
            np.zeros((2, 1, 8, 8), np.uint8), ["a"], ["b"], [0.5], ["f"], tmp_path / "m.png"
        )

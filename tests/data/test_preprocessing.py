"""The settings of `data.*` that say how a file becomes pixels, and their form in a checkpoint."""

import pytest

from visionsweep.data.dataset import MAX_PIXELS, Preprocessing
from visionsweep.data.preprocessing import from_plain, make_preprocessing, to_plain
from visionsweep.errors import ConfigError


def test_settings_become_preprocessing() -> None:
    assert make_preprocessing(64, 3, "crop") == Preprocessing((64, 64), 3, "crop")
    assert make_preprocessing([96, 128], 1, "pad") == Preprocessing((96, 128), 1, "pad")
    made = make_preprocessing(8, 1, "pad", [0, 4095], "#ff0010", None)
    assert made.levels == (0, 4095)
    assert made.background == (255, 0, 16)
    assert made.max_pixels is None
    assert make_preprocessing(8, 1, "pad", background=[1, 2, 3]).background == (1, 2, 3)
    assert make_preprocessing(8, 1, "pad", background="ignore").background is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(
            ({"image_size": size}, r"image_size: expected pixels")
            for size in (0, [1, 2, 3], [8, -1], [])
        ),
        ({"channels": 4}, r"channels: .* got 4"),
        ({"fit": "fill"}, r"fit: .*crop, pad, stretch, got 'fill'"),
        *(
            ({"levels": levels}, r"levels: expected auto, or \[low,high\]")
            for levels in ("full", [5], [5, 5], [1, "x"])
        ),
        *(
            ({"background": color}, r"background: expected a color such as white, .* or ignore")
            for color in ("whitish", [1, 2], [0, 0, 256], [0.5, 0, 0])
        ),
        ({"max_pixels": 0}, r"max_pixels: expected at least 1, or null, got 0"),
    ],
)
def test_values_that_no_image_can_have_are_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"data\.{message}"):
        make_preprocessing(**({"image_size": 8, "channels": 3, "fit": "crop"} | settings))


@pytest.mark.parametrize("levels", [None, (0.0, 4095.0)])
@pytest.mark.parametrize("background", [None, (1, 2, 3)])
def test_a_checkpoint_gives_back_what_it_was_given(
    levels: tuple[float, float] | None, background: tuple[int, int, int] | None
) -> None:
    made = Preprocessing((8, 10), 1, "pad", levels, background, 1000)
    assert from_plain(to_plain(made)) == made


def test_an_older_checkpoint_decodes_as_it_did() -> None:
    old = from_plain({"image_size": [8, 10], "channels": 3, "fit": "crop"})
    assert old == Preprocessing((8, 10), 3, "crop", None, (255, 255, 255), MAX_PIXELS)

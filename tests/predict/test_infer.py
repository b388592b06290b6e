"""Files to probabilities: order, flips, several runs, several sizes, unreadable files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.predict.untrained_run import expected_probabilities, make_run
from visionsweep.data.dataset import Preprocessing
from visionsweep.errors import ConfigError, DataError
from visionsweep.predict.arguments import OnBadImage
from visionsweep.predict.infer import CHUNK, check_runs, decoded_batches, predict
from visionsweep.predict.networks import load_networks

NAMES = ("e.png", "a.png", "d.png", "b.png", "c.png")


def probabilities_of(
    folder: Path, run_dirs: list[Path], batch_size: int = 2, *tta: str
) -> np.ndarray:
    paths = [folder / name for name in NAMES]
    members, _ = load_networks(run_dirs, "cpu")
    views = tta or ("none",)
    batches = predict(paths, members, batch_size=batch_size, tta=views, device="cpu")
    return np.concatenate([batch.probabilities.numpy() for batch in batches])


def test_rows_are_in_the_order_of_the_paths(
    tmp_path: Path, pixels: np.ndarray, write_images: Callable[..., Path]
) -> None:
    expected = expected_probabilities(make_run(tmp_path / "run"), pixels)
    folder = write_images(tmp_path / "images", *NAMES)
    assert len({tuple(row) for row in expected.round(3)}) == len(expected)
    for batch_size in (1, 2, 5, 100):
        probabilities = probabilities_of(folder, [tmp_path / "run"], batch_size)
        np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_flip_is_the_mean_of_image_and_mirror_image(
    tmp_path: Path, pixels: np.ndarray, write_images: Callable[..., Path]
) -> None:
    model = make_run(tmp_path / "run")
    folder = write_images(tmp_path / "images", *NAMES)
    plain, mirrored = (expected_probabilities(model, x) for x in (pixels, pixels[..., ::-1]))
    assert np.abs(plain - mirrored).max() > 0.01
    probabilities = probabilities_of(folder, [tmp_path / "run"], 2, "none", "flip")
    np.testing.assert_allclose(probabilities, (plain + mirrored) / 2, atol=1e-6)


def test_mean_of_runs_with_images_of_different_sizes(
    tmp_path: Path, pixels: np.ndarray, write_images: Callable[..., Path]
) -> None:
    sizes = [(8, 10), (16, 20), (8, 10)]
    models = [make_run(tmp_path / str(i), seed=i, image_size=size) for i, size in enumerate(sizes)]
    folder = write_images(tmp_path / "images", *NAMES)
    probabilities = probabilities_of(folder, [tmp_path / str(i) for i in range(3)])
    enlarged = [
        Image.fromarray(image.transpose(1, 2, 0)).resize((20, 16), Image.Resampling.BILINEAR)
        for image in pixels
    ]
    inputs = [
        pixels,
        np.stack([np.asarray(image).transpose(2, 0, 1) for image in enlarged]),
        pixels,
    ]
    expected = sum(expected_probabilities(m, x) for m, x in zip(models, inputs, strict=True)) / 3
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_unreadable_images_are_counted(
    tmp_path: Path, pixels: np.ndarray, write_images: Callable[..., Path]
) -> None:
    sizes = [(8, 10), (16, 20)]
    models = [
        make_run(tmp_path / str(i), image_size=size, class_counts=counts)
        for i, (size, counts) in enumerate(zip(sizes, ([1, 1, 2], [9, 0, 1]), strict=True))
    ]
    folder = write_images(tmp_path / "images", *NAMES)
    paths = [folder / name for name in NAMES]
    members, _ = load_networks([tmp_path / "0", tmp_path / "1"], "cpu")
    readable = [0, 2, 3]
    expected = probabilities_of(folder, [tmp_path / "0", tmp_path / "1"])
    assert len(models) == 2
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:60])
    (folder / "c.png").write_text("no image")

    def rows(on_bad_image: OnBadImage, batch_size: int) -> tuple[np.ndarray, list[int]]:
        batches = list(
            predict(
                *(paths, members),
                batch_size=batch_size,
                device="cpu",
                on_bad_image=on_bad_image,
            )
        )
        bad = [start * CHUNK + row for start, b in enumerate(batches) for row in b.bad]
        return np.concatenate([batch.probabilities.numpy() for batch in batches]), bad

    with pytest.raises(DataError, match=r"^cannot read .*/a\.png \(.*\); 2 of 5 images") as caught:
        rows("error", 1)
    assert "\n" not in str(caught.value)
    for batch_size in (1, 2, 5):
        probabilities, bad = rows("fill", batch_size)
        assert bad == [1, 4]
        np.testing.assert_allclose(probabilities[readable], expected[readable], atol=1e-6)
        prior = (np.array([1, 1, 2]) / 4 + np.array([9, 0, 1]) / 10) / 2
        np.testing.assert_allclose(probabilities[[1, 4]], [prior, prior])
        assert rows("skip", batch_size)[1] == bad
    for path in paths:
        path.write_text("no image")
    for on_bad_image in ("skip", "fill"):
        with pytest.raises(DataError, match=r"5 of 5 images: no image is left"):
            rows(on_bad_image, 2)


def test_decoded_batches_keep_their_places(
    tmp_path: Path, pixels: np.ndarray, write_images: Callable[..., Path]
) -> None:
    folder = write_images(tmp_path, *NAMES)
    (folder / "a.png").unlink()
    batches = list(
        decoded_batches([folder / name for name in NAMES], Preprocessing((8, 10), 3), batch_size=3)
    )
    assert [(batch.size, list(batch.bad)) for batch in batches] == [(3, [1]), (2, [])]
    np.testing.assert_array_equal(batches[0].images.numpy()[[0, 2]], pixels[[0, 2]])
    assert not batches[0].images[1].any()
    np.testing.assert_array_equal(batches[1].images.numpy(), pixels[[3, 4]])


def test_runs_of_different_classes_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", class_names=("cat", "owl", "dog"))
    run_dirs = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(
        ConfigError, match=r"/a has 3 \(cat, dog, owl\), .*/b has 3 \(cat, owl, dog\)"
    ):
        check_runs(load_networks(run_dirs, "cpu")[0])


def test_flip_must_be_allowed_by_every_run(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", flips=False)
    run_dirs = [tmp_path / "a", tmp_path / "b"]
    members, _ = load_networks(run_dirs, "cpu")
    check_runs(members)
    with pytest.raises(ConfigError, match=r"tta: flip is not allowed for .*/b: "):
        check_runs(members, ["none", "flip"])
    with pytest.raises(ConfigError, match=r"on_bad_image: fill needs the class frequencies of "):
        check_runs(members, ["none"], "fill")


def test_views_are_averaged(
    tmp_path: Path, pixels: np.ndarray, write_images: Callable[..., Path]
) -> None:
    """Crops by Pillow: 7 of 8 rows and 9 of 10 columns, enlarged."""
    model = make_run(tmp_path / "run")
    folder = write_images(tmp_path / "images", *NAMES)

    def window(top: int, left: int) -> np.ndarray:
        images = (
            Image.fromarray(image.transpose(1, 2, 0)).crop((left, top, left + 9, top + 7))
            for image in pixels
        )
        enlarged = [image.resize((10, 8), Image.Resampling.BILINEAR) for image in images]
        return expected_probabilities(
            model, np.stack([np.asarray(e) for e in enlarged]).transpose(0, 3, 1, 2)
        )

    plain = expected_probabilities(model, pixels)
    middle = window(0, 0)  # half of the one row and column that are left out, rounded down
    corners = sum(window(top, left) for top in (0, 1) for left in (0, 1)) / 4
    found = probabilities_of(folder, [tmp_path / "run"], 2, "none", "crop", "corners")
    assert np.abs(corners - plain).max() > 0.01
    np.testing.assert_allclose(found, (plain + middle + corners) / 3, atol=2e-3)

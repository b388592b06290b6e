"""Augmentation against per-image loops, colorsys and counted pixels."""

import colorsys
import logging
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor

from visionsweep.data.augment.boxes import box_mask
from visionsweep.data.augment.color import ColorJitter, adjust_color
from visionsweep.data.augment.crop import RandomResizedCrop
from visionsweep.data.augment.erasing import RandomErasing
from visionsweep.data.augment.geometry import Flip, ShiftedCrop, crop_windows
from visionsweep.data.augment.mixing import CutMix, Mixup, draw_boxes
from visionsweep.data.augment.pipeline import Pipeline, Step
from visionsweep.data.augment.policies import RandAugment, Rotation, TrivialAugment
from visionsweep.errors import ConfigError

NUM_CLASSES = 5


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def batch(
    channels: int = 3, size: int = 16, height: int = 12, width: int = 10
) -> tuple[Tensor, Tensor]:
    generator = seeded(42)
    images = torch.randint(
        0, 256, (size, channels, height, width), dtype=torch.uint8, generator=generator
    )
    return images, torch.randint(0, NUM_CLASSES, (size,), generator=generator)


STEPS: dict[str, Callable[[], Step]] = {
    "flip": lambda: Flip(0.5, flips=True),
    "crop": lambda: ShiftedCrop(0.125),
    "color": lambda: ColorJitter(0.4, 0.4, 0.4, 0.1),
    "erasing": lambda: RandomErasing(1.0, 0.1, 0.3),
    "resized_crop": lambda: RandomResizedCrop(0.3, 1.3333, 1.5, (12, 10)),
    "rotation": lambda: Rotation(30),
    "randaugment": lambda: RandAugment(2, 9),
    "trivial": TrivialAugment,
    "mixup": lambda: Mixup(1.0, NUM_CLASSES),
    "cutmix": lambda: CutMix(1.0, NUM_CLASSES),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_every_step_keeps_the_contract(name: str, channels: int, dtype: torch.dtype) -> None:
    images, targets = batch(channels)
    images = images.to(dtype)
    kept_images, kept_targets, global_state = images.clone(), targets.clone(), torch.get_rng_state()
    out, out_targets = STEPS[name]()(images, targets, seeded())
    assert out.shape == images.shape
    assert out.dtype in (torch.uint8, torch.float32)
    assert out.min() >= 0
    assert out.max() <= 255
    assert not torch.equal(out, images.to(out.dtype))
    assert torch.equal(images, kept_images)
    assert torch.equal(targets, kept_targets)
    assert torch.equal(torch.get_rng_state(), global_state)
    again, again_targets = STEPS[name]()(images, targets, seeded())
    assert torch.equal(out, again)
    assert torch.equal(out_targets, again_targets)
    assert not torch.equal(out, STEPS[name]()(images, targets, seeded(1))[0])
    if name in ("mixup", "cutmix"):
        assert out_targets.shape == (len(images), NUM_CLASSES)
        assert out_targets.dtype == torch.float32
        torch.testing.assert_close(out_targets.sum(dim=1), torch.ones(len(images)))
    else:
        assert torch.equal(out_targets, targets)


@pytest.mark.parametrize(
    "name", ["crop", "color", "erasing", "resized_crop", "rotation", "randaugment", "trivial"]
)
def test_parameters_differ_inside_a_batch(name: str) -> None:
    image = batch(size=1)[0]
    out, _ = STEPS[name]()(
        image.expand(32, -1, -1, -1), torch.zeros(32, dtype=torch.int64), seeded()
    )
    # two draws of an offset may agree, most may not
    assert len({row.numpy().tobytes() for row in out}) > 5


def test_mixing_parameters_differ_inside_a_batch() -> None:
    images, targets = batch(size=32)
    for name in ("mixup", "cutmix"):
        _, soft = STEPS[name]()(images, targets, seeded())
        assert len(set(soft.max(dim=1).values.tolist())) > 10


def test_flip_mirrors_exactly_half_of_the_time() -> None:
    images, targets = batch(size=400, height=4, width=5)
    out, _ = Flip(0.5, flips=True)(images, targets, seeded())
    reversed_images = torch.from_numpy(images.numpy()[..., ::-1].copy())
    mirrored = (out == reversed_images).flatten(1).all(dim=1)
    same = (out == images).flatten(1).all(dim=1)
    assert (mirrored ^ same).all()
    assert abs(mirrored.float().mean() - 0.5) < 0.1
    assert torch.equal(Flip(1.0, flips=True)(images, targets, seeded())[0], images.flip(-1))
    assert torch.equal(Flip(0.0, flips=True)(images, targets, seeded())[0], images)


def test_flip_is_off_if_labels_forbid_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    images, targets = batch()
    out, _ = Flip(1.0, flips=False)(images, targets, seeded())
    assert torch.equal(out, images)
    assert "augment: no flip, since mirrored images" in caplog.text
    caplog.clear()
    Flip(0.5, flips=True)
    assert not caplog.records


def test_windows_equal_a_loop_over_images() -> None:
    images, _ = batch(height=14, width=11)
    tops = torch.randint(0, 5, (len(images),), generator=seeded(1))
    lefts = torch.randint(0, 4, (len(images),), generator=seeded(2))
    out = crop_windows(images, tops, lefts, 10, 8)
    expected = [x[:, t : t + 10, s : s + 8] for x, t, s in zip(images, tops, lefts, strict=True)]
    assert torch.equal(out, torch.stack(expected))


def test_shifted_crop_is_a_window_of_the_padded_image() -> None:
    images, targets = batch(size=64, height=16, width=8)
    out, _ = ShiftedCrop(0.125)(images, targets, seeded())  # 2 rows, 1 column
    seen = set()
    for image, cropped in zip(images.numpy(), out.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (2, 2), (1, 1)))
        matches = [
            (top, left)
            for top in range(5)
            for left in range(3)
            if np.array_equal(padded[:, top : top + 16, left : left + 8], cropped)
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert {top for top, _ in seen} == set(range(5))
    assert {left for _, left in seen} == set(range(3))


def test_shifted_crop_moves_small_images_by_a_pixel_and_can_be_off() -> None:
    images, targets = batch(height=8, width=3)
    assert not torch.equal(ShiftedCrop(0.01)(images, targets, seeded())[0], images)
    assert ShiftedCrop(0.0)(images, targets, seeded())[0] is images


def naive_color(image: np.ndarray, b: float, c: float, s: float, angle: float) -> np.ndarray:
    """Change one image (3, H, W) in float64: brightness, contrast, then chroma through colorsys."""
    bright = image.astype(np.float64) * b
    luma = 0.30 * bright[0] + 0.59 * bright[1] + 0.11 * bright[2]
    contrasted = (bright - luma.mean()) * c + luma.mean()
    result = np.empty_like(contrasted)
    matrix = np.array([colorsys.rgb_to_yiq(*unit) for unit in np.eye(3)]).T
    for y, x in np.ndindex(image.shape[1:]):
        luma_y, i, q = colorsys.rgb_to_yiq(*contrasted[:, y, x])
        turned = (complex(i, q) * s) * complex(math.cos(angle), math.sin(angle))
        # colorsys.yiq_to_rgb clamps, so the way back is a solve
        result[:, y, x] = np.linalg.solve(matrix, [luma_y, turned.real, turned.imag])
    return result.clip(0, 255)


def test_color_equals_a_loop_through_colorsys() -> None:
    images, _ = batch(size=4, height=5, width=4)
    factors = torch.rand(4, 4, generator=seeded(3), dtype=torch.float64).float()
    b, c, s, angle = factors[0] + 0.5, factors[1] + 0.5, factors[2] * 2, factors[3] * 2 - 1
    out = adjust_color(images, b, c, s, angle)
    for index in range(4):
        values = (factor[index].item() for factor in (b, c, s, angle))
        expected = naive_color(images[index].numpy(), *values)
        np.testing.assert_allclose(out[index].numpy(), expected, atol=2e-3)


def test_color_identity_grey_and_zero_saturation() -> None:
    images, targets = batch()
    out, _ = ColorJitter(0.0, 0.0, 0.0, 0.0)(images, targets, seeded())
    torch.testing.assert_close(out, images.float(), atol=1e-3, rtol=0)
    one, zero = torch.ones(16), torch.zeros(16)
    grey = adjust_color(images, one, one, zero, zero)
    torch.testing.assert_close(grey[:, 0], grey[:, 2], atol=1e-3, rtol=0)
    neutral = images[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(
        adjust_color(neutral, one, one, one * 3, one), neutral.float(), atol=1e-3, rtol=0
    )


def test_grey_images_get_brightness_and_contrast() -> None:
    images, _ = batch(channels=1)
    b, c = torch.full((16,), 0.5), torch.full((16,), 0.8)
    out = adjust_color(images, b, c, torch.ones(16), torch.zeros(16))
    x = images.numpy().astype(np.float64) * 0.5
    mean = x.mean(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(out.numpy(), (x - mean) * 0.8 + mean, atol=1e-3)


def test_box_mask_equals_slices() -> None:
    mask = box_mask(
        torch.tensor([0, 2]), torch.tensor([1, 3]), torch.tensor([2, 2]), torch.tensor([4, 5]), 5, 6
    )
    expected = np.zeros((2, 1, 5, 6), dtype=bool)
    expected[0, 0, 0:2, 1:4] = True
    np.testing.assert_array_equal(mask.numpy(), expected)  # the second box is empty


def test_erasing_paints_one_box_of_the_wanted_size() -> None:
    images = torch.full((200, 3, 40, 30), 7, dtype=torch.uint8)
    out, _ = RandomErasing(0.5, 0.05, 0.2)(images, torch.zeros(200, dtype=torch.int64), seeded())
    changed = (out != 7).any(dim=1).numpy()
    erased = [mask for mask in changed if mask.any()]
    assert 70 < len(erased) < 130
    for mask in erased:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 0.04 < mask.mean() < 0.22
    assert torch.equal(RandomErasing(0.0, 0.1, 0.2)(images, images, seeded())[0], images)


def test_mixup_stays_in_the_convex_hull_and_targets_follow() -> None:
    # each image is constant: its value and its class say what it was mixed from
    targets = torch.arange(NUM_CLASSES)
    images = (targets * 50).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    out, soft = Mixup(1.0, NUM_CLASSES)(images, targets, seeded())
    assert (soft > 0).sum(dim=1).max() == 2
    expected = soft @ (torch.arange(NUM_CLASSES) * 50.0)
    torch.testing.assert_close(out, expected.view(-1, 1, 1, 1).expand_as(out), atol=1e-3, rtol=1e-5)


def test_mixup_ratio_follows_beta() -> None:
    count = 4000
    targets = torch.arange(count) % 2
    _, soft = Mixup(0.2, 2)(torch.zeros(count, 1, 1, 1), targets, seeded())
    own = soft[torch.arange(count), targets]
    mixed = own[own < 1 - 1e-6]  # half of the partners have the same class, which hides lam
    assert abs(mixed.mean() - 0.5) < 0.03
    # variance of Beta(a, a): 1 / (4 (2a + 1)), on the visible ones (float32 hides some)
    assert abs(own[own != 1].var() - 1 / (4 * 1.4)) < 0.02


def test_cutmix_targets_are_the_share_of_pixels() -> None:
    targets = torch.arange(64)
    images = targets.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 12, 9)
    out, soft = CutMix(1.0, 64)(images, targets, seeded())
    for image, row in zip(out, soft, strict=True):
        shares = torch.bincount(image[0].flatten().long(), minlength=64) / (12 * 9)
        torch.testing.assert_close(row, shares, atol=1e-6, rtol=0)
    assert torch.equal(out[:, 0], out[:, 2])


def test_cutmix_boxes_cover_one_minus_lam_unless_cut() -> None:
    lam = torch.full((500,), 0.75, dtype=torch.float64)
    box = draw_boxes(lam, 40, 20, seeded())
    heights, widths = box.bottoms - box.tops, box.rights - box.lefts
    assert heights.max() == 20
    assert widths.max() == 10
    assert box.tops.min() == 0
    assert box.bottoms.max() == 40
    whole = (box.tops > 0) & (box.bottoms < 40) & (box.lefts > 0) & (box.rights < 20)
    assert (heights[whole] * widths[whole] == 200).all()
    assert heights.min() < 20


def test_soft_targets_can_be_mixed_again() -> None:
    pipeline = Pipeline({"mixup": Mixup(1.0, NUM_CLASSES), "cutmix": CutMix(1.0, NUM_CLASSES)})
    assert pipeline.num_sources == 4
    images, targets = batch(size=32)
    _, soft = pipeline(images, targets, seeded())
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(8))
    assert (soft > 0).sum(dim=1).max() > 2


def gradient(height: int, width: int) -> Tensor:
    """Return one image (1, 2, height, width) whose channels are its row and column numbers."""
    rows = torch.arange(height, dtype=torch.uint8).view(1, 1, -1, 1).expand(1, 1, height, width)
    columns = torch.arange(width, dtype=torch.uint8).view(1, 1, 1, -1).expand(1, 1, height, width)
    return torch.cat([rows, columns], dim=1)


def test_resized_crops_are_pillows() -> None:
    images = gradient(60, 90).repeat(200, 1, 1, 1)
    step = RandomResizedCrop(0.2, 1.5, 1.0, (20, 30))
    draws = torch.rand(4, 200, generator=seeded(), dtype=torch.float64).tolist()
    out, _ = step(images, torch.zeros(200), seeded())
    shares, ratios = [], []
    for row, each in enumerate(zip(*draws, strict=True)):
        top, left, height, width = step._box(60, 90, *each)
        assert 0 <= top <= 60 - height
        assert 0 <= left <= 90 - width
        shares.append(height * width / (60 * 90))
        ratios.append(height / width * 90 / 60)
        if row % 10:
            continue
        for channel in range(2):
            image = Image.fromarray(images[row, channel].numpy())
            cropped = image.crop((left, top, left + width, top + height))
            expected = np.asarray(cropped.resize((30, 20), Image.Resampling.BILINEAR))
            assert np.abs(out[row, channel].numpy().astype(int) - expected).max() <= 1
    assert min(shares) < 0.25
    assert max(shares) > 0.95
    assert abs(np.mean(shares) - 0.6) < 0.05  # uniform in 0.2..1
    assert 1 / 1.6 < min(ratios) < 0.75
    assert 1.33 < max(ratios) < 1.6


def test_rotation_is_pillows() -> None:
    image = gradient(31, 31).to(torch.float32)[:, :1] * 4
    out, _ = Rotation(40)(image.repeat(50, 1, 1, 1), torch.zeros(50), seeded())
    angles = (torch.rand(50, generator=seeded(), dtype=torch.float64) * 2 - 1) * 40
    assert angles.min() < -30
    assert angles.max() > 30
    for angle, turned in zip(angles.tolist(), out, strict=True):
        expected = Image.fromarray(image[0, 0].numpy()).rotate(angle, Image.Resampling.BILINEAR)
        inside = (slice(8, 23), slice(8, 23))  # the edge of the black corners differs by a pixel
        difference = turned[0].numpy()[inside] - np.asarray(expected)[inside]
        assert np.abs(difference).max() < 0.5


@pytest.mark.parametrize("name", ["randaugment", "trivial"])
def test_policies_use_all_operations_and_keep_some_images(name: str) -> None:
    image = batch(size=1, height=24, width=24)[0]
    out, _ = STEPS[name]()(image.expand(300, -1, -1, -1), torch.zeros(300), seeded())
    assert len({row.numpy().tobytes() for row in out}) > 50
    same = float((out == image).flatten(1).all(dim=1).float().mean())
    # one of 14 operations is the identity; both of RandAugment's two must be
    assert (0.03 < same < 0.25) if name == "trivial" else (0 < same < 0.1)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Flip(1.5, flips=True), r"Flip\.probability: .* 0\.\.1, got 1\.5"),
        (lambda: ShiftedCrop(0.6), r"ShiftedCrop\.padding: .* 0\.\.0\.5, got 0\.6"),
        (lambda: ColorJitter(-0.1, 0, 0, 0), r"ColorJitter\.brightness"),
        (lambda: ColorJitter(0, 0, 0, 0.7), r"ColorJitter\.hue: .* 0\.\.0\.5"),
        (lambda: RandomErasing(0.5, 0.3, 0.2), r"min_area: .* max_area=0\.2, got 0\.3"),
        (lambda: RandomErasing(0.5, 0.1, float("nan")), r"RandomErasing\.max_area"),
        (lambda: RandomResizedCrop(0.0, 1.3, 1.5, (8, 8)), r"RandomResizedCrop\.min_scale"),
        (lambda: RandomResizedCrop(0.5, 0.9, 1.5, (8, 8)), r"max_ratio: .* 1\.\.10, got 0\.9"),
        (lambda: RandomResizedCrop(0.5, 1.3, 0.5, (8, 8)), r"stored: .* 1\.\.4, got 0\.5"),
        (lambda: Rotation(181), r"Rotation\.degrees"),
        (lambda: RandAugment(0, 9), r"RandAugment\.num_ops: expected at least 1, got 0"),
        (lambda: RandAugment(2, 31), r"RandAugment\.magnitude: .* 0\.\.30, got 31"),
        (lambda: Mixup(0.0, 5), r"Mixup\.alpha: expected a number above 0, got 0\.0"),
        (lambda: CutMix(-1.0, 5), r"CutMix\.alpha"),
    ],
)
def test_wrong_settings_are_refused(make: Callable[[], object], expected: str) -> None:
    with pytest.raises(ConfigError, match=rf"^augment: .*{expected}"):
        make()

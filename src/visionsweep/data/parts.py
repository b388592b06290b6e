"""The image files of each part of the data -> decoded image sets, checked for copies."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from visionsweep.data.cache import DecodedImages, Streaming, decode_all
from visionsweep.data.dataset import ALWAYS_TRAIN, ImageSet, Preprocessing
from visionsweep.data.findings import OnBadImage
from visionsweep.data.identity import check_test, group_copies
from visionsweep.data.streamed import Images
from visionsweep.errors import ConfigError


@dataclass(frozen=True)
class ImageFiles:
    """Files with their labels: every list has one entry per image."""

    paths: list[Path]
    ids: list[str]
    targets: list[int]
    groups: list[str] | None = None
    folds: list[int] | None = None  # as in `ImageSet`


@dataclass(frozen=True)
class LoadSettings:
    """How files are loaded, as ``data.*`` says. Raises ConfigError for a wrong value."""

    preprocessing: Preprocessing
    on_bad_image: OnBadImage
    cache_dir: str | None
    near_duplicates: int | None = None
    streaming: Streaming = field(default_factory=Streaming)

    def __post_init__(self) -> None:
        if self.near_duplicates is not None and not 0 <= self.near_duplicates < 64:
            raise ConfigError(
                "data.near_duplicates: expected 0 to 63 differing bits of 64, or null, got "
                f"{self.near_duplicates}"
            )


@dataclass(frozen=True)
class LoadedParts:
    """The decoded images of training (with validation) and test."""

    train: ImageSet
    test: ImageSet | None
    preprocessing: Preprocessing  # with one range of grey levels for all
    bad: list[str]  # paths of the files left out


def load_parts(
    train: ImageFiles,
    test: ImageFiles | None,
    settings: LoadSettings,
    *,
    key: str,
    class_names: Sequence[str],
) -> LoadedParts:
    """Decode the files, and group copies of the training images.

    ``key``: the setting that named the files, for messages. Raises DataError for unreadable files,
    and if a file is in training and test.
    """
    num_images = len(train.paths) + (0 if test is None else len(test.paths))
    settings = replace(settings, streaming=replace(settings.streaming, num_images=num_images))
    decoded = _decode(train, settings.preprocessing, settings)
    train_set = _image_set(train, decoded, settings)
    near = settings.near_duplicates
    if test is None:
        train_set = group_copies(train_set, decoded.digests, class_names, near)
        return LoadedParts(train_set, None, decoded.preprocessing, decoded.bad)
    test_decoded = _decode(test, decoded.preprocessing, settings)
    like_train = check_test(decoded, test_decoded, key, near)
    test_set = replace(_image_set(test, test_decoded, settings), like_train=like_train)
    train_set = group_copies(train_set, decoded.digests, class_names, near)
    bad = decoded.bad + test_decoded.bad
    return LoadedParts(train_set, test_set, decoded.preprocessing, bad)


def _decode(
    files: ImageFiles, preprocessing: Preprocessing, settings: LoadSettings
) -> DecodedImages:
    return decode_all(
        *(files.paths, preprocessing, settings.on_bad_image, settings.cache_dir),
        streaming=settings.streaming,
    )


def _image_set(files: ImageFiles, decoded: DecodedImages, settings: LoadSettings) -> ImageSet:
    kept = decoded.kept
    return ImageSet(
        images=decoded.images,
        targets=torch.tensor([files.targets[index] for index in kept], dtype=torch.int64),
        ids=[files.ids[index] for index in kept],
        groups=None if files.groups is None else [files.groups[index] for index in kept],
        folds=None if files.folds is None else [files.folds[index] for index in kept],
        enlarged=_enlarged(decoded, settings),
    )


def _enlarged(decoded: DecodedImages, settings: LoadSettings) -> Callable[[float], Images]:
    """Return a function that decodes the files at a larger size, once per factor."""
    repairs = settings.on_bad_image == "repair"

    @functools.cache
    def decode(factor: float) -> Images:
        height, width = (round(side * factor) for side in decoded.preprocessing.image_size)
        larger = replace(decoded.preprocessing, image_size=(height, width))
        return decode_all(
            decoded.paths,
            larger,
            "repair" if repairs else "error",  # the others were left out
            settings.cache_dir,
            is_again=True,
            streaming=settings.streaming,
        ).images

    return decode


def with_validation(train: ImageFiles, validation: ImageFiles) -> ImageFiles:
    """Return the files of both parts; fold 0 holds the validation images."""
    groups = None
    if train.groups is not None and validation.groups is not None:
        groups = train.groups + validation.groups
    return ImageFiles(
        train.paths + validation.paths,
        train.ids + validation.ids,
        train.targets + validation.targets,
        groups,
        [ALWAYS_TRAIN] * len(train.paths) + [0] * len(validation.paths),
    )

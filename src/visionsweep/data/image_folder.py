"""Images in one folder per class: root/CLASS/**/IMAGE, or root/{train,test}/CLASS/**/IMAGE."""

import logging
from collections.abc import Sequence
from pathlib import Path

from visionsweep.data.cache import OnBadImage
from visionsweep.data.dataset import ImageDataset
from visionsweep.data.decode import IMAGE_SUFFIXES, Fit, make_preprocessing
from visionsweep.data.image_files import (
    ImageFiles,
    check_disjoint,
    find_images_below,
    load_files,
    refuse_unreadable,
)
from visionsweep.data.labels import warn_empty_classes
from visionsweep.data.paths import require_folder
from visionsweep.errors import DataError
from visionsweep.text import did_you_mean

logger = logging.getLogger(__name__)

PART_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


def load_image_folder(
    root: str | None,
    image_size: int | Sequence[int],
    channels: int = 3,
    fit: Fit = "crop",
    on_bad_image: OnBadImage = "error",
    cache_dir: str | None = None,
    flips: bool = True,
) -> ImageDataset:
    """Return the images below `root`, classes in the order of their folders' names.

    If root/train and root/test hold class folders, test is the official test split. A class folder
    without an image keeps its number and causes a warning. Raises DataError if there is no image,
    or if a file is in both parts.
    """
    preprocessing = make_preprocessing(image_size, channels, fit)
    folder = require_folder("data.root", root, "the folder with one subfolder per class")
    train_folder, test_folder = _find_parts(folder)
    class_names = [path.name for path in _sub_folders(train_folder)]
    if len(class_names) < 2:
        raise DataError(_explain_no_classes(train_folder, class_names))
    train_files = _list_files(folder, train_folder, class_names)
    if test_folder is not None:
        test_files = _list_files(folder, test_folder, class_names)
        check_disjoint(train_files, test_files, "data.root")
    train, bad = load_files(train_files, preprocessing, on_bad_image, cache_dir)
    warn_empty_classes(class_names, train.targets, str(train_folder))
    test = None
    if test_folder is not None:
        test, test_bad = load_files(test_files, preprocessing, on_bad_image, cache_dir)
        warn_empty_classes(class_names, test.targets, str(test_folder))
        bad = bad + test_bad
    return ImageDataset(
        name=folder.name,
        class_names=class_names,
        train=train,
        preprocessing=preprocessing,
        test=test,
        flips=flips,
        bad_images=bad,
    )


def _sub_folders(folder: Path) -> list[Path]:
    try:
        return sorted(
            path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
        )
    except OSError as error:
        refuse_unreadable("data.root", error)


def _find_parts(folder: Path) -> tuple[Path, Path | None]:
    """Return the folder with the classes for training, and that of the test split if any."""
    names = {path.name for path in _sub_folders(folder)}
    if (
        not names
        or not names <= PART_NAMES
        or not all(_sub_folders(folder / name) for name in names)
    ):
        return folder, None
    if not {"train", "test"} <= names:
        raise DataError(
            f"data.root: expected class folders, or train and test, in {folder}, "
            f"got {', '.join(sorted(names))}. Set data.root={folder / min(names)} to use that part"
        )
    unused = sorted(names - {"train", "test"})
    if unused:
        logger.warning(
            "%s is not used: validation is split off train (split.val_fraction)", folder / unused[0]
        )
    return folder / "train", folder / "test"


def _explain_no_classes(folder: Path, class_names: Sequence[str]) -> str:
    if class_names:
        found = f"only the class folder {class_names[0]}"
    else:
        num_images = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())
        found = f"{num_images:,} images but no class folder" if num_images else "no class folder"
    return (
        f"data.root: {folder} holds {found}; expected at least 2: {folder}/CLASS/IMAGE. "
        "Sort the images into folders, or list them with data=csv"
    )


def _list_files(root: Path, folder: Path, class_names: Sequence[str]) -> ImageFiles:
    """Return the images of a part, by class and then by path; ids are relative to `root`."""
    unknown = sorted({path.name for path in _sub_folders(folder)} - set(class_names))
    if unknown:
        raise DataError(
            f"data.root: class {unknown[0]} of {folder} is not among the {len(class_names)} classes"
            f" of train; rename or remove the folder{did_you_mean(unknown[0], class_names)}"
        )
    paths: list[Path] = []
    targets: list[int] = []
    num_others = 0
    for target, name in enumerate(class_names):
        # Archives drop empty folders; a class without test images only causes a warning.
        found, others = (
            find_images_below("data.root", folder / name) if (folder / name).exists() else ([], 0)
        )
        paths += found
        targets += [target] * len(found)
        num_others += others
    if not paths:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(
            f"data.root: no image in the class folders of {folder}; expected files named {suffixes}"
        )
    if num_others:
        logger.info("%s: ignored %s files without an image suffix", folder, f"{num_others:,}")
    return ImageFiles(paths, [path.relative_to(root).as_posix() for path in paths], targets)

"""Images in one folder per class: root/CLASS/**/IMAGE, or root/{train,validation,test}/CLASS/..."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from visionsweep.data.cache import Streaming
from visionsweep.data.dataset import MAX_PIXELS, ImageDataset
from visionsweep.data.decode import image_suffixes
from visionsweep.data.findings import OnBadImage
from visionsweep.data.folders import Layout, class_folders, explain_left_out, find_layout
from visionsweep.data.image_files import explain_others, require_unicode, scan_folders
from visionsweep.data.labels import explain_classes, warn_empty_classes
from visionsweep.data.parts import ImageFiles, LoadSettings, load_parts, with_validation
from visionsweep.data.paths import require_folder
from visionsweep.data.preprocessing import Fit, make_preprocessing
from visionsweep.errors import DataError
from visionsweep.text import did_you_mean

logger = logging.getLogger(__name__)


def load_image_folder(
    root: str | None,
    image_size: int | Sequence[int],
    channels: int = 3,
    fit: Fit = "crop",
    levels: Literal["auto"] | Sequence[float] = "auto",
    background: str | Sequence[int] = "white",
    max_pixels: int | None = MAX_PIXELS,
    near_duplicates: int | None = None,
    on_bad_image: OnBadImage = "error",
    cache_dir: str | None = None,
    cache_limit_gb: float | None = None,
    workers: int | None = None,
    flips: bool = True,
) -> ImageDataset:
    """Return the images below `root`, classes in the natural order of their folders' names.

    A validation and a test folder beside the training folder are those parts of the data. Raises
    DataError if there is no image, or if a file is in training and test.
    """
    settings = LoadSettings(
        make_preprocessing(image_size, channels, fit, levels, background, max_pixels),
        on_bad_image,
        cache_dir,
        near_duplicates,
        Streaming(cache_limit_gb, workers),
    )
    folder = require_folder("data.root", root, "the folder with one subfolder per class")
    layout = find_layout(folder)
    class_names, files = _find_files(folder, layout)
    train_files = files["train"]
    if "validation" in files:
        train_files = with_validation(train_files, files["validation"])
    parts = load_parts(
        train_files, files.get("test"), settings, key="data.root", class_names=class_names
    )
    warn_empty_classes(class_names, parts.train.targets, str(folder))
    if parts.test is not None:
        warn_empty_classes(class_names, parts.test.targets, f"{folder} (test)")
    return ImageDataset(
        name=folder.name,
        class_names=class_names,
        train=parts.train,
        preprocessing=parts.preprocessing,
        test=parts.test,
        flips=flips,
        bad_images=parts.bad,
    )


def _find_files(root: Path, layout: Layout) -> tuple[list[str], dict[str, ImageFiles]]:
    """Return the names of the classes, and the files of each part; log what was found."""
    parts = {"train": layout.train, "validation": layout.validation, "test": layout.test}
    folders = {
        part: class_folders(folder, without=layout.others)
        for part, folder in parts.items()
        if folder is not None
    }
    _check_classes(root, folders)
    # All at once: an image that is reached through a link belongs to the part in which it lies.
    places = [(part, name) for part, classes in folders.items() for name in classes]
    found = scan_folders("data.root", [folders[part][name] for part, name in places])
    images = dict(zip(places, found.of_folder, strict=True))
    class_names = [
        name for name in folders["train"] if any(images.get((part, name)) for part in folders)
    ]
    if len(class_names) < 2:
        raise DataError(_explain_no_classes(layout.train, class_names, found.others))
    files = {part: _files_of(part, class_names, images, root) for part in folders}
    for part, part_files in files.items():
        if not part_files.paths:
            raise DataError(
                f"data.root: no image in the class folders of {parts[part]}; "
                "add some, or rename or remove the folder"
            )
    without_images = set(folders["train"]) - set(class_names)
    left_out = [f"{name}/ (no images)" for name in sorted(without_images)]
    left_out += explain_left_out(layout, root)
    _log_found(root, layout, files, class_names, [*left_out, explain_others(found.others)])
    return class_names, files


def _check_classes(root: Path, folders: Mapping[str, Mapping[str, Path]]) -> None:
    for part, classes in folders.items():
        unknown = sorted(classes.keys() - folders["train"].keys())
        if unknown:
            raise DataError(
                f"data.root: class {unknown[0]} of the {part} images in {root} is not among the "
                f"{len(folders['train'])} classes of the training images; rename or remove the "
                f"folder{did_you_mean(unknown[0], folders['train'])}"
            )


def _files_of(
    part: str,
    class_names: Sequence[str],
    images: Mapping[tuple[str, str], Sequence[Path]],
    root: Path,
) -> ImageFiles:
    """Return the images of a part, by class and then by path; ids are relative to `root`."""
    paths: list[Path] = []
    targets: list[int] = []
    for target, name in enumerate(class_names):
        # Archives drop empty folders; a class without test images only causes a warning.
        of_class = images.get((part, name), ())
        paths += of_class
        targets += [target] * len(of_class)
    for path in paths:
        require_unicode("data.root", path)
    return ImageFiles(paths, [path.relative_to(root).as_posix() for path in paths], targets)


def _log_found(
    root: Path,
    layout: Layout,
    files: Mapping[str, ImageFiles],
    class_names: Sequence[str],
    left_out: Sequence[str],
) -> None:
    """Log one line: the classes with their images, the other parts, what is left out."""
    pieces = [explain_classes(class_names, Counter(files["train"].targets))]
    for part, folder in (("validation", layout.validation), ("test", layout.test)):
        if folder is not None:
            where = folder.relative_to(root).as_posix()
            pieces.append(f"{part}: {len(files[part].paths):,} images from {where}/")
    if left_out := [reason for reason in left_out if reason]:
        pieces.append(f"left out: {', '.join(left_out)}")
    logger.info("%s", "; ".join(pieces))


def _explain_no_classes(folder: Path, class_names: Sequence[str], others: Counter[str]) -> str:
    if class_names:
        found = f"only images of the class {class_names[0]}"
    else:
        suffixes = image_suffixes()
        num_images = sum(path.suffix.lower() in suffixes for path in folder.iterdir())
        found = f"{num_images:,} images but no class folder" if num_images else "no class folder"
        if others:
            found = f"no image, but {explain_others(others)}"
    return (
        f"data.root: {folder} holds {found}; expected at least 2 classes: {folder}/CLASS/IMAGE. "
        "Sort the images into folders, or list them with data=csv"
    )

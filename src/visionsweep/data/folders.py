"""What the folders below `data.root` are: parts of the data, classes, or neither."""

import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from visionsweep.data.image_files import (
    SYSTEM_FOLDERS,
    has_image,
    refuse_unreadable,
    require_unicode,
)
from visionsweep.data.labels import natural_key
from visionsweep.errors import DataError
from visionsweep.rundir.layout import JOURNAL, SWEEP

PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
MLFLOW_FOLDERS = frozenset({"mlartifacts", "mlruns"})
MAX_WRAPPERS = 3
RUNS = "runs of visionsweep"


@dataclass(frozen=True)
class Layout:
    """Where the class folders of each part lie, and what is left out, with the reason."""

    train: Path
    validation: Path | None = None
    test: Path | None = None
    others: list[Path] = field(default_factory=list)  # beside the parts, or beside the classes


def find_layout(root: Path) -> Layout:
    """Return the parts below `root`.

    Folders named as a part (train, validation, test and the like, in any case) that hold class
    folders are parts, whatever lies beside them. Without a training part, `root` itself holds the
    classes. A folder that holds nothing but another one is entered. Raises DataError if the names
    of the parts leave no training images.
    """
    root = _unwrap(root, except_for=PART_NAMES)
    folders = sub_folders(root)
    parts: dict[str, Path] = {}
    flat: list[Path] = []
    for folder in folders:
        part = _part_of(folder, folders)
        if part is None:
            continue
        inner = _unwrap(folder)
        if not sub_folders(inner) or _is_unlabelled(inner):
            flat.append(folder)
        elif part in parts:
            raise DataError(
                f"data.root: {root} has two folders for the {part} images, {parts[part].name} "
                f"and {folder.name}. Rename or move one of them"
            )
        else:
            parts[part] = inner
    if "train" not in parts:
        if parts or (flat and len(flat) == len(folders)):
            names = ", ".join(sorted(folder.name for folder in (*parts.values(), *flat)))
            raise DataError(
                f"data.root: expected class folders, or train and test with class folders, in "
                f"{root}, got {names}. Set data.root to the folder that holds the class folders"
            )
        return Layout(root, others=[folder for folder in flat if _is_test(folder)])
    others = [folder for folder in folders if _unwrap(folder) not in parts.values()]
    return Layout(parts["train"], parts.get("validation"), parts.get("test"), others)


def class_folders(folder: Path, without: Collection[Path] = ()) -> dict[str, Path]:
    """Return the folders of the classes by name, in class order.

    Names are in Unicode's form NFC, so that a name typed on another system is the same. Raises
    DataError for a name that is not UTF-8, or one that two folders share.
    """
    folders: dict[str, Path] = {}
    for path in sub_folders(folder):
        if path in without:
            continue
        require_unicode("data.root", path)
        name = unicodedata.normalize("NFC", path.name)
        if name in folders:
            raise DataError(
                f"data.root: {folder} has two folders named {name}, in different Unicode forms; "
                "rename one"
            )
        folders[name] = path
    return folders


def sub_folders(folder: Path) -> list[Path]:
    """Return the folders in `folder` that may hold classes, in natural order."""
    return [path for path in _folders(folder) if _why_left_out(path) is None]


def explain_left_out(layout: Layout, root: Path) -> list[str]:
    """Return each folder that holds no images of the data, with the reason: "notes/ (hidden)"."""
    reasons = {path: _why_no_part(path) for path in layout.others}
    parts = (layout.train, layout.validation, layout.test)
    for folder in dict.fromkeys((root, *(part for part in parts if part is not None))):
        for path in _folders(folder):
            why = _why_left_out(path)
            if why is not None and (why == RUNS or has_image(path)):
                reasons[path] = why
    return [f"{path.relative_to(root)}/ ({why})" for path, why in reasons.items()]


def _folders(folder: Path) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if path.is_dir()]
    except OSError as error:
        refuse_unreadable("data.root", error)
    return sorted(found, key=lambda path: natural_key(path.name))


def _why_left_out(folder: Path) -> str | None:
    if folder.name in SYSTEM_FOLDERS:
        return "made by the system"
    if folder.name.startswith("."):
        return "hidden"
    if folder.name in MLFLOW_FOLDERS:
        return "files of MLflow"
    return RUNS if _holds_runs(folder) else None


def _holds_runs(folder: Path, depth: int = 2) -> bool:
    """Return whether `folder` is a run's or a sweep's, or holds such ones: outputs, multirun."""
    if (folder / JOURNAL).exists() or (folder / SWEEP).exists():
        return True
    if depth == 0:
        return False
    try:
        with os.scandir(folder) as entries:
            inside = [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        refuse_unreadable("data.root", error)
    return any(_holds_runs(path, depth - 1) for path in inside)


def _unwrap(folder: Path, except_for: Collection[str] = ()) -> Path:
    """Enter folders that hold nothing but one other folder, if that one holds several."""
    inner = folder
    for _ in range(MAX_WRAPPERS):
        inside = sub_folders(inner)
        if len(inside) != 1 or has_image(inner, deep=False):
            return folder
        if inside[0].name.lower() in except_for:
            return inner
        inner = inside[0]
        if len(sub_folders(inner)) > 1:
            return inner
    return folder


def _part_of(folder: Path, siblings: Sequence[Path]) -> str | None:
    """Return the part that a folder's name says it is: train, validation, test or None.

    A name of several words such as seg_train counts if a sibling of another part has the same
    class folders.
    """
    part = part_in_name(folder.name)
    if part is None or folder.name.lower() in PART_NAMES:
        return part
    classes = {path.name for path in sub_folders(_unwrap(folder))}
    for sibling in siblings:
        same = classes & {path.name for path in sub_folders(_unwrap(sibling))}
        if sibling != folder and len(same) > 1:
            return part
    return None


def part_in_name(name: str) -> str | None:
    """Return the only part among a name's words: test for seg_test, validation for is_valid."""
    words = re.split(r"[^a-z]+", name.lower())
    parts = {PART_NAMES[word] for word in words if word in PART_NAMES}
    return parts.pop() if len(parts) == 1 else None


def _is_unlabelled(folder: Path) -> bool:
    """Return whether a part holds its images in one folder that says nothing of classes."""
    names = {path.name.lower() for path in sub_folders(folder)}
    return len(names) == 1 and names <= {
        *PART_NAMES,
        *("images", "imgs", "unknown", "unlabeled", "unlabelled"),
    }


def _why_no_part(folder: Path) -> str:
    if not has_image(folder):
        return "no images"
    if _is_test(folder):
        return "no class folders: images to predict"
    return "not in the training folder"


def _is_test(folder: Path) -> bool:
    return PART_NAMES.get(folder.name.lower()) == "test"

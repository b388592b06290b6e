"""What was found in the image files of a data set, and what is said of it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from visionsweep.data.decode import Decoded
from visionsweep.data.levels import NOT_FINITE
from visionsweep.errors import DataError

logger = logging.getLogger(__name__)

OnBadImage = Literal["error", "skip", "repair"]


@dataclass
class Findings:
    """What was found in the files, by their index."""

    bad: dict[int, str] = field(default_factory=dict)  # why a file was not decoded
    repaired: dict[int, str] = field(default_factory=dict)  # why pixels are missing
    uniform: list[int] = field(default_factory=list)  # images of one color
    transparent: list[int] = field(default_factory=list)  # those of them with transparency
    noted: dict[int, str] = field(default_factory=dict)  # what the libraries said
    digests: dict[int, str] = field(default_factory=dict)  # hexadecimal, of the file's bytes
    levels: tuple[float, float] | None = None  # of images with more than 8 bits, if measured
    levels_text: str | None = None  # what to say about them
    levels_warning: str | None = None

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> "Findings":
        """Return the findings from the JSON form of `vars`, whose keys are text.

        Raises KeyError, TypeError, ValueError or AttributeError if it is something else.
        """
        by_index = {
            name: {int(index): str(text) for index, text in stored[name].items()}
            for name in ("bad", "repaired", "noted", "digests")
        }
        levels = stored["levels"]
        return cls(
            **by_index,
            uniform=[int(index) for index in stored["uniform"]],
            transparent=[int(index) for index in stored["transparent"]],
            levels=None if levels is None else (float(levels[0]), float(levels[1])),
            levels_text=stored["levels_text"],
            levels_warning=stored["levels_warning"],
        )

    def add(self, index: int, decoded: Decoded) -> None:
        """Note what decoding the file `index` found."""
        self.digests[index] = decoded.digest.hex()
        if decoded.damage is not None:
            self.repaired[index] = decoded.damage
        if decoded.notes:
            self.noted[index] = decoded.notes[0]
        if (decoded.pixels == decoded.pixels[:, :1, :1]).all():
            self.uniform.append(index)
            if decoded.has_transparency:
                self.transparent.append(index)


def report_repaired(paths: Sequence[Path], findings: Findings) -> None:
    """Log how many files lack pixels."""
    if findings.repaired:
        index, reason = next(iter(findings.repaired.items()))
        logger.warning(
            "%s of %s files are damaged, e.g. %s (%s): what could be decoded is used "
            "(data.on_bad_image=repair)",
            *(f"{len(findings.repaired):,}", f"{len(paths):,}", paths[index], reason),
        )


def report_bad(paths: Sequence[Path], findings: Findings, on_bad_image: OnBadImage) -> None:
    """Raise DataError for files that could not be decoded, or log how many are left out."""
    if not findings.bad:
        return
    index, reason = next(iter(findings.bad.items()))
    line = f"cannot read {paths[index]} ({reason}); {len(findings.bad):,} of {len(paths):,} files"
    if on_bad_image == "error":
        way_out = "Raise it" if "data.max_pixels" in reason else "Fix it"
        is_repairable = reason in ("truncated", NOT_FINITE)
        repair = "data.on_bad_image=repair or " if is_repairable else ""
        raise DataError(f"{line}. {way_out}, or set {repair}data.on_bad_image=skip")
    if len(findings.bad) == len(paths):
        raise DataError(f"{line}: no image is left")
    logger.warning("%s left out (data.on_bad_image=%s)", line, on_bad_image)


def report_pixels(paths: Sequence[Path], findings: Findings) -> None:
    """Log the range of grey levels, and how many images show nothing."""
    if findings.levels_text is not None:
        logger.info("%s", findings.levels_text)
    if findings.levels_warning is not None:
        logger.warning("data.levels=auto: %s", findings.levels_warning)
    if findings.uniform:
        num_transparent = len(findings.transparent)
        advice = (
            f"; {num_transparent:,} of them {'has' if num_transparent == 1 else 'have'} "
            "transparency: set data.background to another color, or to ignore"
        )
        logger.warning(
            "%s of %s images are of one color, e.g. %s%s",
            *(f"{len(findings.uniform):,}", f"{len(paths):,}"),
            paths[(findings.transparent or findings.uniform)[0]],
            advice if num_transparent else "",
        )

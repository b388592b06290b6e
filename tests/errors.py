"""The mistakes that people make, and the line that they see: `tests/mistakes.txt`.

`tests/test_bad_input.py` types each of them; `python -m tests.errors` writes docs/errors.md.
"""

import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.images import make_csv, make_folder
from visionsweep.rundir.layout import JOURNAL, LAST

DOCUMENT = """\
# Mistakes, and what you see

Made by `make docs` from `tests/mistakes.txt`; `tests/test_bad_input.py` types each mistake. Its
line is the only thing on standard error, and `...` stands for what is left out here. The exit code
is 1, and no run is left behind that looks finished. There is no traceback: a traceback is a bug of
ours, please report it. `HYDRA_FULL_ERROR=1` also shows Hydra's.

| mistake | `visionsweep train ...` | line |
|---|---|---|
{rows}

Not mistakes: palette, CMYK, 16-bit, grey, black-and-white and transparent images train
(transparency on white); a path with `~`, spaces, commas, parentheses or letters outside ASCII needs
no quotes beyond your shell's; a class without an image is a warning that names it;
`data.on_bad_image=skip` counts and names the images that it leaves out.

`predict` answers in the same way: an unknown key with the nearest one, a missing run, a sample
whose ids have no image (count and examples), `tta=flip` for data whose images may not be mirrored.
`compare` too: a setting that does not differ (with those that do), runs on different data or
classes, a directory without a finished run, an unknown metric.
"""


def empty_folder(root: Path) -> None:
    (root / "photos").mkdir()


def file_for_folder(root: Path) -> None:
    (root / "outputs").write_text("")


def photos(root: Path) -> None:
    make_folder(root / "photos")


def truncated_image(root: Path) -> None:
    path = make_folder(root / "photos") / "dog" / "03.png"
    path.write_bytes(path.read_bytes()[:100])


def shared_test_file(root: Path) -> None:
    make_folder(root / "photos" / "train")
    make_folder(root / "photos" / "test")


def table(root: Path) -> None:
    make_csv(root)


def table_without_file(root: Path) -> None:
    make_csv(root)
    (root / "images/dog/05.png").unlink()


def used_directory(root: Path) -> None:
    (root / "outputs/first" / LAST).parent.mkdir(parents=True)
    (root / "outputs/first" / JOURNAL).touch()


@dataclass(frozen=True)
class Mistake:
    """A mistake: what lies in the directory, the arguments as one types them, the line."""

    name: str
    prepare: Callable[[Path], None]
    arguments: str
    line: str

    def words(self) -> list[str]:
        """Return the arguments as the program gets them."""
        return shlex.split(self.arguments)

    def matches(self, line: str, root: Path) -> bool:
        """Return whether `line` is the documented one, seen in the current directory `root`."""
        parts = self.line.replace("/home/me", str(root)).split("...")
        return re.fullmatch(".*".join(map(re.escape, parts)), line) is not None

    def row(self) -> str:
        """Return the row of the document's table."""
        return f"| {self.name} | `{self.arguments}` | {self.line} |"


def read_mistakes() -> list[Mistake]:
    """Return what `tests/mistakes.txt` holds."""
    text = Path(__file__).with_name("mistakes.txt").read_text(encoding="utf-8")
    mistakes = []
    for block in text.split("\n\n")[1:]:
        title, arguments, line = block.strip().splitlines()
        name, _, prepare = title.partition(" (")
        prepared = globals()[prepare.rstrip(")")] if prepare else lambda root: None
        mistakes.append(Mistake(name, prepared, arguments.strip(), line.strip()))
    return mistakes


def document() -> str:
    """Return docs/errors.md."""
    return DOCUMENT.format(rows="\n".join(mistake.row() for mistake in read_mistakes()))


if __name__ == "__main__":
    sys.stdout.write(document())

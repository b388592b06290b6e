"""A table in a text file (CSV, TSV and the like), as text: every cell keeps its spelling."""

import csv
import gzip
import io
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from visionsweep.data.paths import require_file
from visionsweep.errors import ConfigError, DataError
from visionsweep.text import did_you_mean

SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Table:
    """Rows below a header; every row has one cell per column."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]  # in the file, one per row, for messages
    separator: str

    def index(self, key: str, column: str | int) -> int:
        """Return the position of a column, given by its name or, from 0, by its number.

        Raises `ConfigError`, naming the setting `key`, if there is none or more than one.
        """
        wanted, names = nfc(str(column)), [nfc(name) for name in self.header]
        if names.count(wanted) > 1:
            raise ConfigError(
                f"{key}={column}: {self.path} has {names.count(wanted)} columns of that name; "
                "rename one"
            )
        if wanted in names:
            return names.index(wanted)
        if wanted.isdecimal() and int(wanted) < len(names):
            return int(wanted)
        raise ConfigError(
            f"{key}={column}: {self.path} has no such column{did_you_mean(wanted, self.header)} "
            f"(columns: {', '.join(self.header)})"
        )


def nfc(text: str) -> str:
    """Return Unicode's form NFC: macOS may store an accented letter as two characters."""
    return unicodedata.normalize("NFC", text)


def read_table(key: str, path: Path, separator: str | None = None) -> Table:
    """Read the file that the setting `key` names, without blank lines.

    The text is UTF-8, or UTF-16 with its byte order mark, perhaps compressed with gzip. Without
    `separator` it is the one of `SEPARATORS` that gives the header most columns. Raises `DataError`
    if the file is no such table.
    """
    require_file(key, str(path), "a CSV file with a header")
    text = _read_text(key, path)
    if separator is None:
        # max() takes the first of several: a header of one column has no separator
        separator = max(SEPARATORS, key=lambda each: len(_header(text, each)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows, lines = [], []
    try:
        header = next(reader, [])
        for row in reader:
            if row and len(row) != len(header):
                raise DataError(
                    f"{key}: {path} line {reader.line_num}: expected {len(header)} cells as in "
                    f"the header, got {len(row)} (separated by {separator!r})"
                )
            if row:
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{key}: {path} line {reader.line_num}: {error}") from error
    if not rows:
        problem = "a header but no row" if header else "nothing in it"
        raise DataError(f"{key}: {path} has {problem}; expected a header and one row per image")
    return Table(path, header, rows, lines, separator)


def _header(text: str, separator: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    except csv.Error:
        return []


def _read_text(key: str, path: Path) -> str:
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise DataError(f"{key}: cannot read {path} ({error})") from error
    if content.startswith(b"PK"):
        raise DataError(
            f"{key}: {path} is a ZIP archive, as .xlsx files are; unpack it, or save it as CSV"
        )
    has_utf16_mark = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if has_utf16_mark else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{key}: {path} is not UTF-8 text ({error.reason} at byte {error.start}). "
            "Save it as UTF-8"
        ) from error

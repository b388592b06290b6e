"""A table in a text file (CSV, TSV and the like), as text: every cell keeps its spelling."""

import csv
import gzip
import io
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from visionsweep.data.paths import require_file
from visionsweep.errors import ConfigError, DataError
from visionsweep.text import did_you_mean

SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class _Columns:
    path: Path
    header: list[str]
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


@dataclass(frozen=True)
class Table(_Columns):
    """Rows below a header; every row has one cell per column."""

    rows: list[list[str]]
    lines: list[int]  # in the file, one per row, for messages


@dataclass(frozen=True)
class TableFile(_Columns):
    """A table that stays in its file: memory holds one row at a time."""

    key: str  # the setting that names the file

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line and the cells of each row below the header, without blank lines.

        Raises `DataError` if a row has more or fewer cells than the header, or is no text.
        """
        key, path = self.key, self.path
        with _opened(key, path) as stream:
            reader = csv.reader(stream, delimiter=self.separator)
            try:
                next(reader, None)
                for row in reader:
                    if row and len(row) != len(self.header):
                        raise DataError(
                            f"{key}: {path} line {reader.line_num}: expected {len(self.header)} "
                            f"cells as in the header, got {len(row)} (separated by "
                            f"{self.separator!r})"
                        )
                    if row:
                        yield reader.line_num, row
            except _UNREADABLE as error:
                raise _unreadable(key, path, error, reader.line_num) from error


# What reading the text may raise.
_UNREADABLE = (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error)


def nfc(text: str) -> str:
    """Return Unicode's form NFC: macOS may store an accented letter as two characters."""
    return unicodedata.normalize("NFC", text)


def open_table(key: str, path: Path, separator: str | None = None) -> TableFile:
    """Return the table in the file that the setting `key` names.

    The text is UTF-8, or UTF-16 with its byte order mark, perhaps compressed with gzip. Without
    `separator` it is the one of `SEPARATORS` that gives the header most columns. Raises `DataError`
    if the file is no text.
    """
    require_file(key, str(path), "a CSV file with a header")
    if separator is None:
        # max() takes the first of several: a header of one column has no separator
        separator = max(SEPARATORS, key=lambda each: len(_header(key, path, each)))
    return TableFile(path, _header(key, path, separator), separator, key)


def read_table(key: str, path: Path, separator: str | None = None) -> Table:
    """Return the rows of the file that the setting `key` names; see `open_table`.

    Raises `DataError` if there is none.
    """
    table = open_table(key, path, separator)
    rows, lines = [], []
    for line, row in table.rows():
        rows.append(row)
        lines.append(line)
    check_not_empty(table, len(rows))
    return Table(path, table.header, table.separator, rows, lines)


def check_not_empty(table: TableFile, num_rows: int) -> None:
    """Raise `DataError` if the table has no row."""
    if num_rows == 0:
        problem = "a header but no row" if table.header else "nothing in it"
        raise DataError(
            f"{table.key}: {table.path} has {problem}; expected a header and one row per image"
        )


def _header(key: str, path: Path, separator: str) -> list[str]:
    with _opened(key, path) as stream:
        try:
            return next(csv.reader(stream, delimiter=separator), [])
        except csv.Error:  # with the wrong separator a quote may never end
            return []
        except _UNREADABLE as error:
            raise _unreadable(key, path, error, 1) from error


def _opened(key: str, path: Path) -> io.TextIOWrapper:
    """Return the text of a file; closing it closes the file."""
    try:
        with path.open("rb") as file:
            is_compressed = file.read(2) == b"\x1f\x8b"
        opener = gzip.open if is_compressed else open
        stream = cast(IO[bytes], opener(path, "rb"))
        start = stream.read(2)
        stream.seek(0)
    except _UNREADABLE as error:
        raise _unreadable(key, path, error, 1) from error
    if start == b"PK":
        stream.close()
        raise DataError(
            f"{key}: {path} is a ZIP archive, as .xlsx files are; unpack it, or save it as CSV"
        )
    encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return io.TextIOWrapper(stream, encoding, newline="")


def _unreadable(key: str, path: Path, error: Exception, line: int) -> DataError:
    if isinstance(error, UnicodeDecodeError):
        return DataError(f"{key}: {path} is not UTF-8 text ({error.reason}). Save it as UTF-8")
    if isinstance(error, csv.Error):
        return DataError(f"{key}: {path} line {line}: {error}")
    return DataError(f"{key}: cannot read {path} ({error})")

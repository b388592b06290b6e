"""A CSV file with a header, as text: every cell keeps its spelling."""

import csv
from dataclasses import dataclass
from pathlib import Path

from visionsweep.data.paths import require_file
from visionsweep.errors import ConfigError, DataError
from visionsweep.text import did_you_mean


@dataclass(frozen=True)
class Table:
    """Rows below a header of distinct names; every row has one cell per name."""

    path: Path
    header: list[str]
    rows: list[list[str]]

    def index(self, key: str, column: str) -> int:
        """Return the position of `column`; raise `ConfigError`, naming the setting `key`."""
        if column not in self.header:
            raise ConfigError(
                f"{key}: {self.path} has no column '{column}'{did_you_mean(column, self.header)} "
                f"(columns: {', '.join(self.header)})"
            )
        return self.header.index(column)


def read_table(key: str, path: Path) -> Table:
    """Read the UTF-8 file that the setting `key` names, without blank lines.

    Raises `DataError` if it is not such a file.
    """
    require_file(key, str(path), "a CSV file with a header")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            header = next(reader, [])
            rows = []
            for row in reader:
                if row and len(row) != len(header):
                    raise DataError(
                        f"{key}: {path} line {reader.line_num}: "
                        f"expected {len(header)} cells as in the header, got {len(row)}"
                    )
                if row:
                    rows.append(row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{key}: cannot read {path} as a UTF-8 CSV file ({error})") from error
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(
            f"{key}: {path} has more than one column '{repeated[0]}'; rename all but one"
        )
    if not rows:
        raise DataError(f"{key}: {path} has no row below its header")
    return Table(path, header, rows)

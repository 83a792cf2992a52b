r"""Tables in text files, read so that one broken row costs one row.

One line is one row; that holds for every benchmark read here, and it keeps a quote that is never
closed from swallowing the rest of the file. Lines end in ``\n`` or ``\r\n`` and nothing else:
Python's ``splitlines`` would also cut at U+2028, which stands inside sentences of XNLI.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from polyprefix.config import DataError
from polyprefix.tasks.examples import Row, RowError

BOM = b"\xef\xbb\xbf"

csv.field_size_limit(2**31 - 1)  # a quoted text may be as long as one without quotes


@dataclass(frozen=True)
class Table:
    """The lines of a file, undecoded, and how they divide into cells.

    Attributes:
        path: the file.
        lines: without line ends, byte order mark and the blank lines at the end.
        delimiter: what stands between cells.
        quoted: whether ``"a ""b"" c"`` is a cell that holds ``a "b" c``, or just that text.
    """

    path: Path
    lines: list[bytes]
    delimiter: str
    quoted: bool

    def cells(self, number: int) -> list[str]:
        """The cells of a line, counted from 1.

        Raises:
            RowError: it is empty, not UTF-8, holds a NUL byte or breaks the rules of quoting.
        """
        raw = self.lines[number - 1]
        if not raw.strip():
            raise RowError("the line is empty")
        if b"\0" in raw:
            raise RowError(f"a NUL byte (at byte {raw.index(0) + 1} of the line)")
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = raw[error.start]
            raise RowError(f"not UTF-8 (0x{byte:02x} at byte {error.start + 1})") from None
        if not self.quoted or '"' not in line:
            return line.split(self.delimiter)
        try:
            return next(csv.reader([line], delimiter=self.delimiter, strict=True))
        except csv.Error as error:
            # The module's text for a quote left open, "unexpected end of data", helps nobody.
            text = "a quote is not closed on the line" if "end of data" in str(error) else error
            raise RowError(f"quoting: {text}") from None

    def width(self) -> int:
        """The number of cells that most lines have, quotes not regarded."""
        delimiter = self.delimiter.encode()
        return Counter(line.count(delimiter) + 1 for line in self.lines).most_common(1)[0][0]

    def rows(self, columns: Sequence[str], first: int) -> Iterator[tuple[int, Row | RowError]]:
        """The rows from line ``first`` on: their line, and their columns or what is wrong."""
        header = self.lines[: first - 1]
        for number in range(first, len(self.lines) + 1):
            try:
                cells = self.cells(number)
            except RowError as error:
                yield number, error
                continue
            if self.lines[number - 1] in header:
                yield number, RowError("the header again")
            elif len(cells) != len(columns):
                names = ", ".join(columns)
                found = f"{len(cells)} column{'s' if len(cells) > 1 else ''}"
                yield number, RowError(f"{found} where {len(columns)} are expected ({names})")
            else:
                yield number, dict(zip(columns, cells, strict=True))


def read_table(path: Path, *, quoted: bool) -> Table:
    """Read a table. A ``.csv`` file has commas and quotes (RFC 4180), any other has tabs.

    Args:
        path: the file.
        quoted: whether a file with tabs is quoted as well; benchmarks differ.

    Raises:
        DataError: the file is missing, cannot be read or is empty.
    """
    lines = read_lines(path)
    if path.suffix.lower() == ".csv":
        return Table(path, lines, ",", quoted=True)
    return Table(path, lines, "\t", quoted)


def read_lines(path: Path) -> list[bytes]:
    """The lines of a file without line ends, byte order mark and blank lines at the end.

    Raises:
        DataError: the file is missing, cannot be read or is empty.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"file {str(path)!r} does not exist") from None
    except OSError as error:
        raise DataError(f"cannot read file {str(path)!r}: {error.strerror or error}") from None
    lines = [line.removesuffix(b"\r") for line in content.removeprefix(BOM).split(b"\n")]
    while lines and not lines[-1].strip(b" \r"):
        lines.pop()
    if not lines:
        raise DataError(f"file {str(path)!r} is empty")
    return lines


def read_header(table: Table) -> tuple[str, ...]:
    """The names in the first line.

    Raises:
        DataError: the line cannot be read.
    """
    try:
        return tuple(name.strip() for name in table.cells(1))
    except RowError as error:
        raise DataError(f"{table.path}, line 1: {error}") from None


def check_columns(table: Table, columns: Sequence[str], required: Iterable[str]) -> None:
    """Refuse a table that lacks a column or has it twice; further columns are passed over.

    Without its columns no row of a file can be used, so this is no matter of bad rows.

    Raises:
        DataError: names the file and what its header should hold.
    """
    required = tuple(required)
    for name in required:
        if columns.count(name) != 1:
            problem = "lacks the column" if name not in columns else "has more than one column"
            raise DataError(
                f"{table.path}, line 1: the header {problem} {name!r}; expected "
                f"{', '.join(required)}, found {', '.join(columns)[:200]}"
            )

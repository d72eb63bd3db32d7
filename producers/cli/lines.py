"""Lines of a file of any size and quality, in bounded memory."""

from collections.abc import Iterator
from typing import BinaryIO

LONGEST_LINE_BYTES = 1024 * 1024
"""The largest message fits, even if all of it is escaped."""

_BOM = b"\xef\xbb\xbf"


class Lines:
    """Numbers and lines of a file, from 1; None in the place of a line that is too long to be held."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._number = 0
        self.bytes_read = 0

    def __iter__(self) -> Iterator[tuple[int, bytes | None]]:
        return self

    def __next__(self) -> tuple[int, bytes | None]:
        line = self._read()
        if not line:
            raise StopIteration
        self._number += 1
        if len(line) <= LONGEST_LINE_BYTES or line.endswith(b"\n"):
            # Spreadsheets put a mark before the first line.
            return self._number, line.removeprefix(_BOM) if self._number == 1 else line
        while (rest := self._read()) and not rest.endswith(b"\n"):
            pass
        return self._number, None

    def _read(self) -> bytes:
        piece = self._file.readline(LONGEST_LINE_BYTES + 1)
        self.bytes_read += len(piece)
        return piece

"""The foot of a terminal: lines that are drawn again and again, while all that is printed meanwhile stands above them.

The cursor rests where they begin. So they are taken away by clearing from there, wherever a terminal that was resized
has put them, and however many lines it has made of them (ECMA-48: ED, CUU).
"""

import os
import sys
import threading
from collections.abc import Sequence
from typing import Any, TextIO, cast

CLEAR = "\r\x1b[J"


class Foot:
    """Of the terminal that is standard output; close it in the end."""

    def __init__(self) -> None:
        self._terminal = sys.stdout
        self._lock = threading.RLock()
        self._drawn = ""
        self._above: list[tuple[str, Above]] = []

    def size(self) -> tuple[int, int]:
        """Columns of the terminal, and lines that the foot may have: one stays for what is above."""
        columns, lines = os.get_terminal_size(self._terminal.fileno())
        return columns or 80, max(1, (lines or 24) - 1)

    def draw(self, lines: Sequence[str]) -> None:
        """Shows these lines, none of which is wider than the terminal, instead of the last ones."""
        with self._lock:
            if not self._above:
                self._stand_above()
            up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
            self._drawn = "\n".join(lines) + up + "\r"
            self._write(CLEAR + self._drawn)

    def above(self, stream: TextIO, text: str) -> None:
        """Writes whole lines to a stream, above the foot."""
        with self._lock:
            self._write(CLEAR)
            stream.write(text)
            stream.flush()
            self._write(self._drawn)

    def close(self) -> None:
        """Takes the foot away."""
        with self._lock:
            self._drawn = ""
            self._write(CLEAR)
            for name, stream in self._above:
                setattr(sys, name, stream.close_above())
            self._above = []

    def _stand_above(self) -> None:
        """From now on what is printed on this terminal is printed above the foot."""
        for name in ("stdout", "stderr"):
            if (stream := getattr(sys, name)).isatty():
                self._above.append((name, Above(self, stream)))
                setattr(sys, name, self._above[-1][1])

    def _write(self, text: str) -> None:
        self._terminal.write(text)
        self._terminal.flush()


class Above:
    """A text stream whose lines stand above the foot, when they are complete."""

    def __init__(self, foot: Foot, stream: TextIO) -> None:
        self._foot, self._stream = foot, stream
        self._begun = ""

    def write(self, text: str) -> int:
        """Takes text."""
        lines, end, self._begun = (self._begun + text).rpartition("\n")
        if end:
            self._foot.above(self._stream, lines + end)
        return len(text)

    def flush(self) -> None:
        """Lines that are complete have been written already."""

    def close_above(self) -> TextIO:
        """The stream itself, which got everything."""
        self._stream.write(self._begun)
        return self._stream

    def __getattr__(self, name: str) -> Any:
        return getattr(cast(Any, self._stream), name)

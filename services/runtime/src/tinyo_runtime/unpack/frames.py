"""Zstandard whose end is looked for: a frame that was cut off is told. (RFC 8878)

A layer has a diff ID that tells so; the archive that somebody sends has nothing of the kind.
"""

import io
import sys
from typing import BinaryIO, cast

from tinyo_runtime.unpack.refusals import Refused, cut_off

#: A few bytes may stand for 128 KiB each, and all of what these stand for is held in memory.
_PIECE = 4 << 10
_CHUNK = 1 << 20


def opened() -> BinaryIO:
    """What standard input holds."""
    return cast(BinaryIO, io.BufferedReader(_Frames(), _CHUNK))


class _Frames(io.RawIOBase):
    """One frame behind the other."""

    def __init__(self) -> None:
        import zstandard  # rare, and slow to load

        self._error = zstandard.ZstdError
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=128 << 20)
        self._frame = self._decompressor.decompressobj()
        self._is_whole = True
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            if not (piece := self._frame.unused_data or sys.stdin.buffer.read(_PIECE)):
                if not self._is_whole:
                    raise cut_off()
                return 0
            if self._frame.eof:
                self._frame = self._decompressor.decompressobj()
            try:
                self._ready = memoryview(self._frame.decompress(piece))
            except self._error as error:
                raise Refused(f"zstd: {error}") from error
            self._is_whole = self._frame.eof
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

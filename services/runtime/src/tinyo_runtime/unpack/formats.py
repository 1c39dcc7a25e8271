"""How layers are compressed: what their media type says must be what they are. Zstandard, and not at all."""

import io
import os
import sys
from typing import BinaryIO, cast

from tinyo_runtime.unpack import limits
from tinyo_runtime.unpack.refusals import Refused, Unsupported

_MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
_CHUNK = 1 << 20


def watch_input(media_type: str) -> None:
    """Standard input is counted from now on, and whoever reads it gets Refused when it is not as said."""
    said = _said(media_type)
    if said not in ("tar", *_MAGIC):
        raise Unsupported(f"layers of type {media_type!r} are not known")
    sys.stdin = io.TextIOWrapper(io.BufferedReader(_Input(said), _CHUNK))


def opened(media_type: str) -> BinaryIO | None:
    """The archive in standard input; None when it is gzip."""
    if _said(media_type) == "tar":
        return sys.stdin.buffer
    if _said(media_type) == "zstd":
        return cast(BinaryIO, io.BufferedReader(_Zstd(), _CHUNK))
    return None


def _said(media_type: str) -> str:
    return media_type.replace("+", ".").rpartition(".")[2]


class _Input(io.RawIOBase):
    """Standard input."""

    def __init__(self, said: str) -> None:
        self._said = said
        self._start = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = os.readv(0, [buffer])
        limits.counts.received += count
        if len(self._start) < 4:
            self._start += buffer[: min(count, 4 - len(self._start))]
            if len(self._start) == 4 or not count:
                self._check()
        return count

    def _check(self) -> None:
        names = [name for name, magic in _MAGIC.items() if self._start.startswith(magic)]
        found = names[0] if names else "tar"
        if found != self._said:
            raise Refused(f"the layer is said to be {self._said}, but is {found}")


class _Zstd(io.RawIOBase):
    """What standard input holds."""

    def __init__(self) -> None:
        import zstandard  # rare, and slow to load

        self._error = zstandard.ZstdError
        self._reader = zstandard.ZstdDecompressor(max_window_size=128 << 20).stream_reader(
            sys.stdin.buffer, read_across_frames=True
        )

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            return self._reader.readinto(buffer)
        except self._error as error:
            raise Refused(f"zstd: {error}") from error

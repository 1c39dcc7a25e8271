"""Where the archive goes: hashed and counted as it is, then compressed by other threads and counted again."""

import hashlib
import io
import os
from collections.abc import Callable
from functools import partial
from typing import BinaryIO, cast

from tinyo_runtime.unpack import limits

#: The best of isal, and what zstd takes by itself.
_GZIP_LEVEL = _ZSTD_LEVEL = 3

Compressor = Callable[["Counted"], BinaryIO]


class Counted(io.RawIOBase):
    """The file of the layer."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """All of it."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        limits.counts.received += len(data)
        return len(data)


class Output:
    """The archive, from its first byte to its last."""

    def __init__(self, compressed: BinaryIO) -> None:
        self._compressed = compressed
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Goes on. Raises Refused when nobody would unpack so much from so little."""
        limits.counts.unpacked(data)
        self._digest.update(data)
        self._compressed.write(data)

    def finish(self) -> str:
        """The diff ID, when all is written."""
        self.write(bytes(1024))
        self._compressed.close()
        return f"sha256:{self._digest.hexdigest()}"


def _gzip() -> Compressor:
    from isal import igzip_threaded  # before the process is sealed; its threads begin afterwards

    threads = len(os.sched_getaffinity(0))
    # Without types, but with the methods of a file.
    return partial(igzip_threaded.open, mode="wb", compresslevel=_GZIP_LEVEL, threads=threads)


def _zstd() -> Compressor:
    import zstandard

    threads = len(os.sched_getaffinity(0))
    return lambda file: cast(
        BinaryIO, zstandard.ZstdCompressor(_ZSTD_LEVEL, threads=threads).stream_writer(cast(BinaryIO, file))
    )


#: What makes each ready: imported when it is asked for.
COMPRESSORS = {"gzip": _gzip, "zstd": _zstd}

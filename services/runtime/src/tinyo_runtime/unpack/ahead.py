"""Decompresses and hashes the next pieces of the archive while files are written from the last ones."""

import os
import queue
import threading
from collections.abc import Callable

Read = Callable[[int], bytes]

_CHUNK = 1 << 18
#: Chunks that wait to be written.
_AHEAD = 16


def reader(read: Read) -> Read | None:
    """What gives the same bytes as `read` does, which a thread calls; None where only one processor is there.

    Called when the process is confined, because only then the thread is.
    """
    return _Ahead(read).read if len(os.sched_getaffinity(0)) > 1 else None


class _Ahead:
    def __init__(self, read: Read) -> None:
        self._source = read
        self._chunks: queue.Queue[bytes | BaseException] = queue.Queue(_AHEAD)
        self._chunk = b""
        self._at = 0
        self._ended = False
        threading.Thread(target=self._run, daemon=True).start()

    def read(self, size: int) -> bytes:
        """As many bytes as were asked for, except at the end. Raises what reading raised."""
        piece = self._chunk[self._at : self._at + size]
        self._at += len(piece)
        if len(piece) == size:
            return piece
        parts = [piece]
        missing = size - len(piece)
        while missing and not self._ended:
            chunk = self._chunks.get()
            if isinstance(chunk, BaseException):
                raise chunk
            self._chunk, self._at, self._ended = chunk, min(missing, len(chunk)), not chunk
            parts.append(chunk[: self._at])
            missing -= self._at
        return b"".join(parts)

    def _run(self) -> None:
        try:
            while chunk := self._source(_CHUNK):
                self._chunks.put(chunk)
            self._chunks.put(b"")
        except BaseException as error:
            self._chunks.put(error)

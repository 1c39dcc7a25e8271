"""The data of files, as much of it as was said, whatever happens to them meanwhile."""

import errno
import os
from collections.abc import Iterator

from tinyo_runtime.unpack.tar import CHUNK

#: Bytes of holes and zeros from which on a file is written as a sparse one, which not every tool gives back as it
#: came; without, an archive of next to nothing would look like a bomb.
SPARSE = 64 << 20
#: Bytes of zeros that are taken for a hole.
_GAP = 64 << 10
#: Pieces of data of one file, the map of which others hold in memory.
_PIECES = 20_000

#: Where data stands in a file: offset and length, in order.
Pieces = list[tuple[int, int]]


def pieces(fd: int, size: int) -> Pieces:
    """All of a file; without its zeros, where they are many."""
    if size < SPARSE:
        return [(0, size)] if size else []
    found: Pieces = []
    gap = _GAP
    for offset, length in _blocks(fd, size):
        if found and offset - sum(found[-1]) < gap:
            found[-1] = (found[-1][0], offset + length - found[-1][0])
        else:
            found.append((offset, length))
        while len(found) > _PIECES:
            gap *= 2
            found = _joined(found, gap)
    return found if size - sum(length for _, length in found) >= SPARSE else [(0, size)]


def _blocks(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Blocks with something in them (lseek(2), SEEK_DATA)."""
    zeros = bytes(_GAP)
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nothing but a hole follows
                raise
            return
        for at in range(start // _GAP * _GAP, end, _GAP):
            block = os.pread(fd, min(_GAP, size - at), at)
            if not zeros.startswith(block):
                yield at, len(block)
        at += _GAP


def _joined(found: Pieces, gap: int) -> Pieces:
    joined = found[:1]
    for offset, length in found[1:]:
        start, before = joined[-1]
        if offset - start - before < gap:
            joined[-1] = (start, offset + length - start)
        else:
            joined.append((offset, length))
    return joined


def sparse_map(found: Pieces, size: int) -> bytes:
    """What stands before the data of a sparse file (GNU tar manual, "Storing Sparse Files", version 1.0)."""
    found = found if found and sum(found[-1]) == size else [*found, (size, 0)]
    lines = b"".join(b"%d\n%d\n" % piece for piece in found)
    text = b"%d\n%s" % (len(found), lines)
    return text + bytes(-len(text) % 512)


def sparse_records(path: bytes, size: int) -> dict[bytes, bytes]:
    """PAX records that tell a sparse file, of the same version."""
    return {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": path,
        b"GNU.sparse.realsize": b"%d" % size,
    }


def data(fd: int, found: Pieces) -> Iterator[bytes]:
    """Exactly these bytes; zeros where the file has become shorter."""
    for offset, length in found:
        end = offset + length
        while offset < end:
            chunk = os.pread(fd, min(CHUNK, end - offset), offset)
            chunk = chunk or bytes(min(CHUNK, end - offset))
            yield chunk
            offset += len(chunk)

"""Sparse files in tar archives: GNU's old format and its three PAX formats (GNU tar manual, "Sparse Formats")."""

import os
from collections.abc import Callable, Iterator

from tinyo_runtime.unpack import tar
from tinyo_runtime.unpack.numbers import decimal
from tinyo_runtime.unpack.refusals import Refused, cut_off

#: Kind of an entry, in the old format.
GNU_SPARSE = b"S"
#: Bytes, because it is held in memory.
_MAX_MAP = 1 << 20

_MAP, _SIZE, _REAL_SIZE = b"GNU.sparse.map", b"GNU.sparse.size", b"GNU.sparse.realsize"


def old_map(header: bytes, read: Callable[[int], bytes]) -> dict[bytes, bytes]:
    """What PAX records would say: four pairs are in the header, 21 in each block that continues it."""
    areas = [header[386:482]]
    more = header[482]
    while more:
        block = read(tar.BLOCK)
        if len(block) < tar.BLOCK:
            raise cut_off()
        areas.append(block[:504])
        more = block[504]
        if len(areas) * tar.BLOCK > _MAX_MAP:
            raise Refused("the map of a sparse file is too long")
    fields = [area[at : at + 12] for area in areas for at in range(0, len(area), 12)]
    numbers = [b"%d" % tar.number(field) for field in fields if field[0]]
    return {_MAP: b",".join(numbers) or b"0,0", _SIZE: b"%d" % tar.number(header[483:495])}


def placed(fd: int, entry: tar.Entry, data: Iterator[bytes]) -> Iterator[bytes | memoryview] | None:
    """The data of a sparse file, with `fd` standing where each piece belongs; None for any other file."""
    if entry.records.get(b"GNU.sparse.major") == b"1" or entry.records.get(_MAP):
        return _placed(fd, entry, data)
    return None


def _placed(fd: int, entry: tar.Entry, data: Iterator[bytes]) -> Iterator[bytes | memoryview]:
    records = entry.records
    size = decimal(records.get(_SIZE) or records.get(_REAL_SIZE, b""))
    if records.get(b"GNU.sparse.major") == b"1":
        numbers, before, rest = _from_data(data)
    else:
        numbers, before, rest = records[_MAP].split(b","), 0, b""
    view = memoryview(rest)
    for offset, length in _pairs(numbers, entry.size - before, size):
        os.lseek(fd, offset, os.SEEK_SET)
        while length:
            view = view or memoryview(next(data))
            piece, view = view[:length], view[length:]
            length -= len(piece)
            yield piece
    os.ftruncate(fd, size)


def _from_data(data: Iterator[bytes]) -> tuple[list[bytes], int, bytes]:
    """The map stands before the data: a count, then two numbers each, one a line, padded to a block.

    Its numbers, its bytes, and what came behind it with its last piece.
    """
    text = b""
    count = None
    while count is None or text.count(b"\n") <= 2 * count:
        if len(text) > _MAX_MAP or not (piece := next(data, b"")):
            raise Refused("the map of a sparse file is too long")
        text += piece
        if count is None and b"\n" in text:
            count = decimal(text.partition(b"\n")[0])
    lines = text.split(b"\n", 2 * count + 1)
    used = len(text) - len(lines.pop())
    used += -used % tar.BLOCK
    return lines[1:], used, text[used:]


def _pairs(numbers: list[bytes], stored: int, size: int) -> list[tuple[int, int]]:
    """Where data stands in the file: (offset, length), in order."""
    values = [decimal(value) for value in numbers]
    pairs = list(zip(values[::2], values[1::2], strict=False))
    at = 0
    for offset, length in pairs:
        if offset < at:
            raise Refused("the map of a sparse file is out of order")
        at = offset + length
    if len(values) % 2 or at > size or sum(length for _, length in pairs) != stored:
        raise Refused("the map of a sparse file does not match its size")
    return pairs

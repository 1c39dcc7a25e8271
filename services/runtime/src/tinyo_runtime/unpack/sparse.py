"""Sparse files in tar archives: GNU's old format and its three PAX formats (GNU tar manual, "Sparse Formats")."""

from tinyo_runtime.unpack.tar import BLOCK, GNU_SPARSE, MAX_EXTENSION, Entry, Refused, Stream, decimal, number

#: Where data stands in the file: (offset, length), in order.
Map = list[tuple[int, int]]


def data_map(entry: Entry, stream: Stream) -> Map | None:
    """Where the data of a sparse file belongs, None for any other file.

    The entry's name and size become the file's own; the stream stands at the first byte of data afterwards.
    """
    stored, records = entry.size, entry.records
    if entry.kind == GNU_SPARSE:
        numbers = _old(entry)
    elif records.get(b"GNU.sparse.major") == b"1":
        before = stream.position
        numbers = _from_data(stream, stored)
        stored -= stream.position - before
        entry.size = decimal(records.get(b"GNU.sparse.realsize", b""))
    elif text := records.get(b"GNU.sparse.map"):
        numbers = [decimal(value) for value in text.split(b",")]
        entry.size = decimal(records.get(b"GNU.sparse.size") or records.get(b"GNU.sparse.realsize", b""))
    else:
        return None
    entry.name = records.get(b"GNU.sparse.name") or entry.name
    result = list(zip(numbers[::2], numbers[1::2], strict=True)) if len(numbers) % 2 == 0 else []
    at = 0
    for offset, length in result:
        if offset < at:
            raise Refused("the map of a sparse file is out of order")
        at = offset + length
    if len(numbers) % 2 or at > entry.size or sum(length for _, length in result) != stored:
        raise Refused("the map of a sparse file does not match its size")
    return result


def _old(entry: Entry) -> list[int]:
    """Four pairs in the header, 21 in each block that continues it; an empty field ends the list."""
    entry.size = number(entry.header[483:495])
    areas = [entry.header[386:482]]
    areas += [entry.header[at : at + 504] for at in range(BLOCK, len(entry.header), BLOCK)]
    fields = [area[at : at + 12] for area in areas for at in range(0, len(area), 12)]
    return [number(field) for field in fields if field[0]]


def _from_data(stream: Stream, stored: int) -> list[int]:
    """The map stands before the data: a count, then two numbers each, one a line, padded to a block."""
    text = b""
    count = None
    while count is None or text.count(b"\n") <= 2 * count:
        if len(text) >= min(stored, MAX_EXTENSION):
            raise Refused("the map of a sparse file is too long")
        text += stream.read(BLOCK)
        if count is None and b"\n" in text:
            count = decimal(text.partition(b"\n")[0])
    return [decimal(line) for line in text.split(b"\n")[1 : 2 * count + 1]]

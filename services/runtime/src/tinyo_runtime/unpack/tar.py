"""Reads a tar stream: headers of ustar, each with its data behind it (tar(5)). Names stay bytes."""

from collections.abc import Callable, Iterator

from tinyo_runtime.unpack import numbers, refusals

BLOCK = 512
#: Bytes of a file that are held in memory at a time.
CHUNK = 1 << 20

Read = Callable[[int], bytes]

FILE, SYMLINK, FOLDER = b"0", b"2", b"5"


class Entry:
    """One member of the archive, as its header has it."""

    def __init__(self, header: bytes) -> None:
        self.name = header[:100].partition(b"\0")[0]
        self.mode = number(header[100:108]) & 0o7777
        self.uid = number(header[108:116])
        self.gid = number(header[116:124])
        #: Bytes of data.
        self.size = number(header[124:136])
        #: Nanoseconds since 1970.
        self.mtime = number(header[136:148]) * 10**9
        #: FILE, SYMLINK, FOLDER; `others` knows more of them.
        self.kind = header[156:157]
        #: Target of a link.
        self.link = header[157:257].partition(b"\0")[0]
        #: What else is said of it, by PAX.
        self.records: dict[bytes, bytes] = {}


def entries(read: Read, taken: Callable[[Entry, bytes], bool]) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    """Every entry in order with its data; what the caller does not read of the data is skipped.

    The archive ends at a block of zeros, or between two entries; what follows is read, and means nothing.
    """
    while any(header := read(BLOCK)):
        entry = Entry(header)
        if not taken(entry, header):
            yield entry, (data := pieces(read, entry.size))
            for _ in data:
                pass
    while read(CHUNK):
        pass


def pieces(read: Read, size: int) -> Iterator[bytes]:
    """The data of an entry piece by piece, so that any size needs little memory; then its padding is read."""
    for left in range(size, 0, -CHUNK):
        piece = read(min(left, CHUNK))
        if len(piece) < min(left, CHUNK):
            raise refusals.cut_off()
        yield piece
    read(-size % BLOCK)


def number(field: bytes) -> int:
    """Octal digits; or base 256, where the first bit is set."""
    if field >= b"\x80":
        return numbers.base_256(field)
    return int(field.partition(b"\0")[0].strip() or b"0", 8)


def beneath(name: bytes) -> bytes:
    """The name relative to the layer's root, without what means nothing. Raises Refused when it leads out."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise refusals.leads_out(name)
    return b"/".join(parts)

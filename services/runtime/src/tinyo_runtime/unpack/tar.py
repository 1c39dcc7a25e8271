"""Reads a tar stream: ustar, PAX and GNU, as builders of images write them (tar(5), POSIX pax(1)).

Nothing is trusted: every number is checked, and whatever is malformed raises Refused. Names stay bytes.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

BLOCK = 512
#: Long names and PAX records are held in memory.
MAX_EXTENSION = 1 << 20

FILE, HARD_LINK, SYMLINK, CHARACTER, DEVICE, FOLDER, FIFO = (b"%d" % kind for kind in range(7))
_OLD_FILE, _CONTIGUOUS = b"\0", b"7"
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK, GNU_SPARSE = b"x", b"g", b"L", b"K", b"S"

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
_XATTR = b"SCHILY.xattr."
#: What the kernel and ext4 can hold.
_MAX_ID, _MAX_SECONDS = 2**32 - 2, 2**34


class Refused(Exception):
    """The layer is not what it should be; the text says why, for people."""


class Unsupported(Refused):
    """The layer is well-formed, but holds something that is not understood."""


class Stream:
    """Bytes in order; `fill` gives the next chunk, and b"" at the end."""

    def __init__(self, fill: Callable[[], bytes]) -> None:
        self._fill = fill
        self._chunk = b""
        self._at = 0
        self.position = 0

    def ended(self) -> bool:
        """True when nothing follows."""
        if self._at == len(self._chunk):
            self._chunk, self._at = self._fill(), 0
        return not self._chunk

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        end = self._at + size
        if end > len(self._chunk):
            return b"".join(self.pieces(size))
        piece = self._chunk[self._at : end]
        self._at = end
        self.position += size
        return piece

    def pieces(self, size: int) -> Iterator[bytes]:
        """Exactly `size` bytes in pieces as they come, so that a file of any size needs little memory."""
        while size:
            if self.ended():
                raise Refused("the archive ends in the middle of an entry")
            piece = self._chunk[self._at : self._at + size]
            self._at += len(piece)
            self.position += len(piece)
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> None:
        """Passes over `size` bytes."""
        for _ in self.pieces(size):
            pass


@dataclass(slots=True)
class Entry:
    """One member of the archive."""

    name: bytes
    #: FILE, HARD_LINK, …; anything else is a kind that this module does not know.
    kind: bytes
    mode: int
    uid: int
    gid: int
    #: Nanoseconds since 1970.
    mtime: int
    #: Bytes of the file.
    size: int
    #: Target of a symbolic or hard link.
    link: bytes
    #: PAX records that hold for it.
    records: dict[bytes, bytes]
    #: The header itself, with the blocks that continue it.
    header: bytes = field(repr=False)

    def xattrs(self) -> Iterator[tuple[bytes, bytes]]:
        """Extended attributes as the archive gives them, not yet filtered."""
        for key, value in self.records.items():
            if key.startswith(_XATTR):
                yield key.removeprefix(_XATTR), value


def entries(stream: Stream) -> Iterator[Entry]:
    """Every entry in order; what the caller does not read of an entry's data is skipped.

    The archive ends at a block of zeros, or where the stream ends between two entries.
    """
    always: dict[bytes, bytes] = {}
    records: dict[bytes, bytes] = {}
    while not stream.ended():
        header = stream.read(BLOCK)
        if not any(header):
            return
        entry = _parse(header)
        end = stream.position + entry.size + -entry.size % BLOCK
        if entry.kind in (_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK):
            if entry.size > MAX_EXTENSION:
                raise Refused(f"an extended header of {entry.size} bytes is more than {MAX_EXTENSION}")
            data = stream.read(entry.size)
            match entry.kind:
                case b"x":
                    records |= _pax(data)
                case b"g":
                    always |= _pax(data)
                case b"L":
                    records[b"path"] = _text(data)
                case b"K":
                    records[b"linkpath"] = _text(data)
        else:
            if entry.kind == GNU_SPARSE:
                entry.header += _continued(header, stream)
            if always or records:
                _override(entry, always | records)
                records = {}
            end = stream.position + entry.size + -entry.size % BLOCK
            yield entry
        stream.skip(end - stream.position)


def _parse(header: bytes) -> Entry:
    name, mode, uid, gid, size, mtime, checksum, kind, link, magic, _, _, _, _, _, prefix = _HEADER.unpack(
        header
    )
    if number(checksum) != sum(header) - sum(checksum) + 8 * ord(" "):
        raise Refused("a header's checksum is wrong: this is not a tar archive, or it is damaged")
    name = _text(name)
    if magic == b"ustar\0" and prefix[0]:
        name = _text(prefix) + b"/" + name
    if kind == _OLD_FILE:
        kind = FOLDER if name.endswith(b"/") else FILE
    elif kind == _CONTIGUOUS:
        kind = FILE
    bytes_follow = kind not in (HARD_LINK, SYMLINK, CHARACTER, DEVICE, FOLDER, FIFO)
    return Entry(
        name=name,
        kind=kind,
        mode=number(mode) & 0o7777,
        uid=_checked(number(uid), 0, _MAX_ID),
        gid=_checked(number(gid), 0, _MAX_ID),
        mtime=_checked(number(mtime), -_MAX_SECONDS, _MAX_SECONDS) * 10**9,
        size=_checked(number(size), 0, 2**62) if bytes_follow else 0,
        link=_text(link),
        records={},
        header=header,
    )


def _continued(header: bytes, stream: Stream) -> bytes:
    """Blocks between the header of an old GNU sparse file and its data: more of its map."""
    blocks = b""
    more = header[482]
    while more:
        block = stream.read(BLOCK)
        blocks += block
        more = block[504]
        if len(blocks) > MAX_EXTENSION:
            raise Refused("the map of a sparse file is too long")
    return blocks


def _override(entry: Entry, records: dict[bytes, bytes]) -> None:
    """What an extended header says counts more than the header; an empty value says nothing."""
    entry.records = records
    entry.name = records.get(b"path") or entry.name
    entry.link = records.get(b"linkpath") or entry.link
    if b"\0" in entry.link:
        raise Refused(f"the link {entry.name!r} has a target that no link can have")
    if value := records.get(b"uid"):
        entry.uid = _checked(decimal(value), 0, _MAX_ID)
    if value := records.get(b"gid"):
        entry.gid = _checked(decimal(value), 0, _MAX_ID)
    if value := records.get(b"mtime"):
        seconds, _, fraction = value.removeprefix(b"-").partition(b".")
        nanoseconds = decimal(seconds or b"0") * 10**9 + decimal(fraction[:9].ljust(9, b"0"))
        sign = -1 if value.startswith(b"-") else 1
        entry.mtime = sign * _checked(nanoseconds, 0, _MAX_SECONDS * 10**9)
    if (value := records.get(b"size")) and entry.kind in (FILE, GNU_SPARSE):
        entry.size = _checked(decimal(value), 0, 2**62)


def _pax(data: bytes) -> dict[bytes, bytes]:
    """Records of the form `LENGTH KEY=VALUE\\n`; pieces of a sparse map may repeat and are joined."""
    records: dict[bytes, bytes] = {}
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        end = at + decimal(data[at:space]) if space > at else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not space < end <= len(data) or data[end - 1] != ord("\n") or not equals or b"\0" in key:
            raise Refused("an extended header is malformed")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            pieces.append(value)
        else:
            records[key] = value
        at = end
    if pieces:
        records[b"GNU.sparse.map"] = b",".join(pieces)
    return records


def _text(value: bytes) -> bytes:
    return value.partition(b"\0")[0]


def number(value: bytes) -> int:
    """Octal digits, or base 256 (GNU) where the first bit is set."""
    if value[0] & 0x80:
        magnitude = int.from_bytes(value) & ~(0x80 << 8 * (len(value) - 1))
        return int.from_bytes(value, signed=True) if value[0] & 0x40 else magnitude
    try:
        return int(_text(value).strip() or b"0", 8)
    except ValueError:
        raise Refused(f"{value!r} in a header is not an octal number") from None


def decimal(value: bytes) -> int:
    """Decimal digits and nothing else (int() would also take signs and underscores)."""
    if not value.isdigit() or len(value) > 20:
        raise Refused(f"{value[:40]!r} in an extended header is not a number")
    return int(value)


def _checked(value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise Refused(f"{value} in a header is not between {low} and {high}")
    return value

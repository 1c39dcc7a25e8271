"""What tar can say beyond the fields of an old header: ustar's prefix, PAX records (POSIX pax(1)), GNU's long names.

Nothing is trusted: every number is checked, and whatever is malformed raises Refused.
"""

from collections.abc import Callable

from tinyo_runtime.unpack import limits, others, sparse, tar, whiteouts
from tinyo_runtime.unpack.numbers import decimal
from tinyo_runtime.unpack.refusals import Refused, cut_off

#: Long names and PAX records are held in memory.
MAX_EXTENSION = 1 << 20

_OLD_FILE, _CONTIGUOUS = b"\0", b"7"
_EXTENSIONS = _PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK = b"x", b"g", b"L", b"K"

#: What the kernel and ext4 can hold.
_MAX_ID, _MAX_SECONDS, _MAX_SIZE = 2**32 - 2, 2**34, 2**62


class Extensions:
    """What was said for the entry that comes next, and for all that come."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._always: dict[bytes, bytes] = {}
        self._records: dict[bytes, bytes] = {}

    def takes(self, entry: tar.Entry, header: bytes) -> bool:
        """True for an extension, which is read; any other entry becomes what all before it said of it."""
        _check(entry, header)
        if entry.kind in _EXTENSIONS:
            self._keep(entry)
            return True
        limits.counts.entry()
        if entry.kind == sparse.GNU_SPARSE:
            entry.records = sparse.old_map(header, self._read)
            entry.kind = tar.FILE
        if self._always or self._records:
            _override(entry, self._always | self._records)
            self._records = {}
        if b"\0" in entry.name + entry.link:
            raise Refused(f"{entry.name!r} or its target has a name that nothing can have")
        return whiteouts.takes(entry, self._read)

    def _keep(self, entry: tar.Entry) -> None:
        if entry.size > MAX_EXTENSION:
            raise Refused(f"an extended header of {entry.size} bytes is more than {MAX_EXTENSION}")
        data = b"".join(tar.pieces(self._read, entry.size))
        match entry.kind:
            case b"x":
                _add(self._records, _pax(data))
            case b"g":
                _add(self._always, _pax(data))
            case b"L":
                self._records[b"path"] = data.partition(b"\0")[0]
            case b"K":
                self._records[b"linkpath"] = data.partition(b"\0")[0]


def _check(entry: tar.Entry, header: bytes) -> None:
    """The header is whole and undamaged, and its fields are what the system can hold; kinds have one name each."""
    if len(header) < tar.BLOCK:
        raise cut_off()
    if tar.number(header[148:156]) != sum(header) - sum(header[148:156]) + 8 * ord(" "):
        raise Refused("a header's checksum is wrong: this is not a tar archive, or it is damaged")
    if header[257:263] == b"ustar\0" and header[345]:
        entry.name = header[345:500].partition(b"\0")[0] + b"/" + entry.name
    if entry.kind == _OLD_FILE:
        entry.kind = tar.FOLDER if entry.name.endswith(b"/") else tar.FILE
    elif entry.kind == _CONTIGUOUS:
        entry.kind = tar.FILE
    if entry.kind in (tar.SYMLINK, tar.FOLDER, *others.WITHOUT_DATA):
        entry.size = 0  # whatever the header says: no data follows
    _within(entry.uid, 0, _MAX_ID)
    _within(entry.gid, 0, _MAX_ID)
    _within(entry.size, 0, _MAX_SIZE)
    _within(entry.mtime, -_MAX_SECONDS * 10**9, _MAX_SECONDS * 10**9)


def _override(entry: tar.Entry, records: dict[bytes, bytes]) -> None:
    """What an extended header says counts more than the header; an empty value says nothing."""
    entry.records = records | entry.records
    entry.name = records.get(b"path") or entry.name
    entry.link = records.get(b"linkpath") or entry.link
    if value := records.get(b"uid"):
        entry.uid = _within(decimal(value), 0, _MAX_ID)
    if value := records.get(b"gid"):
        entry.gid = _within(decimal(value), 0, _MAX_ID)
    if value := records.get(b"mtime"):
        seconds, _, fraction = value.removeprefix(b"-").partition(b".")
        nanoseconds = decimal(seconds or b"0") * 10**9 + decimal(fraction[:9].ljust(9, b"0"))
        sign = -1 if value.startswith(b"-") else 1
        entry.mtime = sign * _within(nanoseconds, 0, _MAX_SECONDS * 10**9)
    if entry.kind == tar.FILE:
        entry.name = records.get(b"GNU.sparse.name") or entry.name
        if value := records.get(b"size"):
            entry.size = _within(decimal(value), 0, _MAX_SIZE)


def _add(records: dict[bytes, bytes], more: dict[bytes, bytes]) -> None:
    """However many headers say it, it is held in memory."""
    records |= more
    if (size := sum(len(key) + len(value) for key, value in records.items())) > MAX_EXTENSION:
        raise Refused(f"extended headers of {size} bytes are more than {MAX_EXTENSION}")


def _pax(data: bytes) -> dict[bytes, bytes]:
    """Records of the form `LENGTH KEY=VALUE\\n`; pieces of a sparse map may repeat and are joined."""
    records: dict[bytes, bytes] = {}
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        end = at + decimal(data[at:space]) if space > at else at
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not at < space < end <= len(data) or data[end - 1] != ord("\n") or not equals or b"\0" in key:
            raise Refused("an extended header is malformed")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            pieces.append(value)
        else:
            records[key] = value
        at = end
    if pieces:
        records[b"GNU.sparse.map"] = b",".join(pieces)
    return records


def _within(value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise Refused(f"{value} in a header is not between {low} and {high}")
    return value

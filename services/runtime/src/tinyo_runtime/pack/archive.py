"""Headers of a tar archive: ustar, and PAX records (POSIX pax(1)) for whatever that has no room for."""

import os
from collections.abc import Mapping

from tinyo_runtime.unpack.extensions import MAX_EXTENSION
from tinyo_runtime.unpack.refusals import Refused
from tinyo_runtime.unpack.tar import BLOCK

_PAX = b"x"
#: What fits into the fields of a header.
_NAME, _ID, _LARGE = 100, 0o7777777, 0o77777777777


def header(
    name: bytes,
    kind: bytes,
    found: os.stat_result | None = None,
    *,
    size: int = 0,
    link: bytes = b"",
    records: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """All that stands before the data of an entry. Raises Refused.

    Without `found` it belongs to root and to no time. `size` counts the bytes of data.
    """
    mode, uid, gid, time = 0o600, 0, 0, 0
    if found:
        mode, uid, gid, time = found.st_mode & 0o7777, found.st_uid, found.st_gid, found.st_mtime_ns
    said = dict(records or {})
    if len(name) > _NAME:
        said.setdefault(b"path", name)
    if len(link) > _NAME:
        said[b"linkpath"] = link
    for key, number in ((b"uid", uid), (b"gid", gid)):
        if number > _ID:
            said[key] = b"%d" % number
    if size > _LARGE:
        said[b"size"] = b"%d" % size
    seconds, fraction = divmod(abs(time), 10**9)
    if fraction or not 0 <= time <= _LARGE * 10**9:
        text = b"%s%d.%09d" % (b"-" if time < 0 else b"", seconds, fraction)
        said[b"mtime"] = text.rstrip(b"0").rstrip(b".")
    return _extended(name, said) + _fields(name, kind, mode, uid, gid, size, time // 10**9, link)


def padding(size: int) -> bytes:
    """What follows so much data."""
    return bytes(-size % BLOCK)


def _extended(name: bytes, records: Mapping[bytes, bytes]) -> bytes:
    """PAX records, as an entry of their own; nothing when there are none."""
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    if len(data) > MAX_EXTENSION:
        raise Refused(f"the attributes of {name!r} take {len(data)} bytes, more than {MAX_EXTENSION}")
    if not data:
        return b""
    return _fields(b"././@PaxHeader", _PAX, 0, 0, 0, len(data), 0, b"") + data + padding(len(data))


def _record(key: bytes, value: bytes) -> bytes:
    """LENGTH KEY=VALUE\\n, whose length counts its own digits."""
    rest = b" %s=%s\n" % (key, value)
    length = len(rest) + len(b"%d" % len(rest))
    length = len(rest) + len(b"%d" % length)
    return b"%d%s" % (length, rest)


def _fields(
    name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, seconds: int, link: bytes
) -> bytes:
    """The header itself; what does not fit was said before, and is cut or 0."""
    block = bytearray(BLOCK)
    block[: min(len(name), _NAME)] = name[:_NAME]
    block[100:107] = b"%07o" % mode
    block[108:115] = b"%07o" % (uid if uid <= _ID else 0)
    block[116:123] = b"%07o" % (gid if gid <= _ID else 0)
    block[124:135] = b"%011o" % (size if size <= _LARGE else 0)
    block[136:147] = b"%011o" % (seconds if 0 <= seconds <= _LARGE else 0)
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157 : 157 + min(len(link), _NAME)] = link[:_NAME]
    block[257:265] = b"ustar\x0000"
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block)

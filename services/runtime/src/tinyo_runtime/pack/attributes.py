"""Extended attributes: what overlayfs and TinyO noted of a file or folder, and what becomes part of the layer."""

import os
from collections.abc import Container
from typing import NamedTuple

from tinyo_runtime.spawner.made import MARK
from tinyo_runtime.unpack.attributes import PREFIX, is_kept
from tinyo_runtime.unpack.refusals import Refused

_OVERLAY = "trusted.overlay."
#: Only with mount options that TinyO turns off: the files are elsewhere than they seem.
_ELSEWHERE = (f"{_OVERLAY}redirect", f"{_OVERLAY}metacopy")


class Attributes(NamedTuple):
    """Of one file or folder."""

    #: PAX records.
    records: dict[bytes, bytes]
    #: Nothing of the layers below is seen in this folder.
    opaque: bool
    #: TinyO made it, so that something could be mounted there.
    made: bool
    #: How many cannot be said in an archive.
    unspeakable: int


def of(fd: int, path: bytes) -> Attributes:
    """Raises Refused when the layers below would be needed to know what is there."""
    names = os.listxattr(fd)
    if not names:
        return Attributes({}, False, False, 0)
    if any(name in names for name in _ELSEWHERE):
        raise Refused(f"{path!r} was moved or changed by overlayfs without its content")
    kept = [name for name in map(os.fsencode, names) if is_kept(name)]
    said = [name for name in kept if b"=" not in name]
    return Attributes(
        records={PREFIX + name: os.getxattr(fd, name) for name in said},
        opaque=_has(fd, names, f"{_OVERLAY}opaque"),
        made=MARK in names,
        unspeakable=len(kept) - len(said),
    )


def _has(fd: int, names: Container[str], name: str) -> bool:
    return name in names and os.getxattr(fd, name) == b"y"

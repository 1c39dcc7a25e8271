"""Extended attributes: what overlayfs and TinyO noted of a file or folder, and what becomes part of the layer."""

import errno
import os
from typing import NamedTuple

from tinyo_runtime.spawner.made import MARK
from tinyo_runtime.unpack.attributes import PREFIX, is_kept
from tinyo_runtime.unpack.refusals import Refused

_OPAQUE = "trusted.overlay.opaque"
#: Only with mount options that TinyO turns off: the files are elsewhere than they seem.
_ELSEWHERE = ("trusted.overlay.redirect", "trusted.overlay.metacopy")


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
    values = {name: _value(fd, name) for name in said}
    return Attributes(
        records={PREFIX + name: value for name, value in values.items() if value is not None},
        opaque=_OPAQUE in names and _value(fd, _OPAQUE) == b"y",
        made=MARK in names,
        unspeakable=len(kept) - len(said),
    )


def _value(fd: int, name: str | bytes) -> bytes | None:
    """None when it was removed meanwhile."""
    try:
        return os.getxattr(fd, name)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return None

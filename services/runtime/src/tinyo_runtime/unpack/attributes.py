"""Extended attributes, as PAX records have them; and what can be said of entries that cannot be opened."""

import errno
import os

from tinyo_runtime.unpack import limits
from tinyo_runtime.unpack.tar import Entry

_PREFIX = b"SCHILY.xattr."


def add(fd: int, entry: Entry) -> None:
    """Those that a container could set itself, and capabilities; never what overlayfs believes."""
    for record, value in entry.records.items():
        key = record.removeprefix(_PREFIX)
        if key == record or (key != b"security.capability" and not key.startswith(b"user.")):
            continue
        if key.startswith(b"user.overlay."):
            continue
        try:
            os.setxattr(fd, key, value)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
            limits.counts.skipped += 1


def of_link(parent: int, name: bytes, entry: Entry) -> None:
    """Owner and time of a symbolic link or pipe."""
    os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
    os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

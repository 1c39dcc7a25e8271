"""Extended attributes, as PAX records have them; and what can be said of entries that cannot be opened."""

import errno
import os

from tinyo_runtime.unpack import limits
from tinyo_runtime.unpack.tar import Entry

#: Of the keys of their records.
PREFIX = b"SCHILY.xattr."
#: Capabilities and access control lists.
_KEPT = (b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default")


def add(fd: int, entry: Entry) -> None:
    """Those that a layer may have."""
    for record, value in entry.records.items():
        key = record.removeprefix(PREFIX)
        if key == record or not is_kept(key):
            continue
        try:
            os.setxattr(fd, key, value)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
            limits.counts.skipped += 1


def is_kept(name: bytes) -> bool:
    """Whether a container could set it itself; never what overlayfs believes."""
    return name in _KEPT or (name.startswith(b"user.") and not name.startswith(b"user.overlay."))


def of_link(parent: int, name: bytes, entry: Entry) -> None:
    """Owner and time of a symbolic link or pipe."""
    os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
    os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

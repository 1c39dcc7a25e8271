"""Entries of other kinds than files, folders and symbolic links."""

import os
import stat
from typing import TYPE_CHECKING

from tinyo_runtime.unpack import attributes, limits, tar, whiteouts
from tinyo_runtime.unpack.refusals import Refused, Unsupported

if TYPE_CHECKING:
    from tinyo_runtime.unpack.tree import Tree

#: Kinds of entries.
WITHOUT_DATA = HARD_LINK, _CHARACTER, _DEVICE, FIFO = b"1", b"3", b"4", b"6"

#: Names of what was left out.
_devices: set[bytes] = set()


def make(tree: "Tree", path: bytes, entry: tar.Entry) -> None:
    """Makes it. Raises Refused, Unsupported when nobody knows what it is, and FileExistsError."""
    above, _, name = path.rpartition(b"/")
    if entry.kind == whiteouts.WHITEOUT:
        whiteouts.make(tree, path)
    elif entry.kind == HARD_LINK:
        _link(tree, path, entry)
    elif entry.kind == FIFO:
        parent = tree.folder(above)
        os.mkfifo(name, entry.mode, dir_fd=parent)
        attributes.of_link(parent, name, entry)
        os.chmod(name, entry.mode, dir_fd=parent)  # a new owner takes set-uid bits away
    elif entry.kind in (_CHARACTER, _DEVICE):
        limits.counts.skipped += 1  # a container gets its devices from the runtime, never from an image
        _devices.add(path)
    else:
        raise Unsupported(f"{path!r} is of a kind that is not known: {entry.kind!r}")


def _link(tree: "Tree", path: bytes, entry: tar.Entry) -> None:
    """A hard link, to a file of the same layer only: layers stand by themselves."""
    target = tar.beneath(entry.link)
    if target == path:
        return
    if target in _devices:
        _devices.add(path)
        return
    above, _, name = target.rpartition(b"/")
    try:
        source = os.dup(tree.folder(above))
        found = os.lstat(name, dir_fd=source)
    except (FileNotFoundError, NotADirectoryError):
        found = None
    if not found or stat.S_ISDIR(found.st_mode) or whiteouts.is_one(found):
        raise Refused(f"{path!r} is a hard link to {entry.link!r}, which is no file of its layer")
    above, _, new = path.rpartition(b"/")
    try:
        os.link(name, new, src_dir_fd=source, dst_dir_fd=tree.folder(above), follow_symlinks=False)
    finally:
        os.close(source)

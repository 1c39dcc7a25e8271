"""Whiteouts and opaque folders: how a layer hides what those below it have (OCI image specification, layers).

They become what overlayfs takes for the same (Documentation/filesystems/overlayfs.rst). A whiteout speaks of
lower layers only: what this very layer has under the name stays.
"""

import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from tinyo_runtime.unpack import tar
from tinyo_runtime.unpack.refusals import Refused

if TYPE_CHECKING:
    from tinyo_runtime.unpack.tree import Tree

#: Kind of an entry.
WHITEOUT = b"whiteout"

PREFIX = b".wh."
OPAQUE = b".wh..wh..opq"
#: Bookkeeping of AUFS, which old builders left in layers.
_AUFS = b".wh..wh."


def takes(entry: tar.Entry, read: Callable[[int], bytes]) -> bool:
    """Makes an entry a whiteout whose name says so; True for what means nothing, which is read."""
    if PREFIX not in entry.name or entry.kind == tar.FOLDER:
        return False
    path = tar.beneath(entry.name)
    name = path.rpartition(b"/")[2]
    if name.startswith(PREFIX):
        entry.kind = WHITEOUT
    if (path.startswith(_AUFS) and path != OPAQUE) or (name.startswith(_AUFS) and name != OPAQUE):
        for _ in tar.pieces(read, entry.size):
            pass
        return True
    return False


def make(tree: "Tree", path: bytes) -> None:
    """Hides a name of the layers below, or everything that they have in a folder."""
    above, _, name = path.rpartition(b"/")
    if name == OPAQUE:
        hide_lower(tree.folder(above))
        return
    target = name.removeprefix(PREFIX)
    if target in (b"", b".", b".."):
        raise Refused(f"{name!r} hides nothing that an image may hide")
    parent = tree.folder(above)
    try:
        os.mknod(target, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        tree.hiding.add(above)
    except FileExistsError:
        if stat.S_ISDIR(os.lstat(target, dir_fd=parent).st_mode):
            replace_lower(tree, above + b"/" + target if above else target)


def is_one(found: os.stat_result) -> bool:
    """Whether a whiteout was made there."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def replace_lower(tree: "Tree", path: bytes) -> None:
    """Makes a folder a new one, that has nothing of what is below it: neither content nor owner and mode."""
    hide_lower(tree.folder(path))
    tree.made.discard(path)


def hide_lower(folder: int) -> None:
    """Marks a folder opaque."""
    os.setxattr(folder, b"trusted.overlay.opaque", b"y")

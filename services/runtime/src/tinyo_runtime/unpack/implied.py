"""Folders that overlayfs shows in another way than the image says; whoever mounts them sets that right.

There are two kinds: folders that a layer needs but does not describe, which should look as the layers below say; and
folders with whiteouts, which overlayfs lists when no other layer has the folder. They are found by an attribute of
theirs, which containers do not see; its value also says where to look for more.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinyo_runtime.unpack.tree import Tree

ATTRIBUTE = b"trusted.tinyo.implied"
#: In the value: not described; with whiteouts; there are some below it.
ITSELF, WHITEOUTS, BELOW = b"i", b"w", b"b"


def mark(tree: "Tree") -> None:
    """Gives all of them, and all folders that lead to them, the attribute. Raises OSError."""
    implied = tree.made - tree.described.keys()
    leading = set[bytes]()
    for path in implied | tree.hiding:
        while path and (path := path.rpartition(b"/")[0]) not in leading:
            leading.add(path)
    kinds = ((ITSELF, implied), (WHITEOUTS, tree.hiding), (BELOW, leading))
    for path in sorted(implied | tree.hiding | leading):
        value = b"".join(letter for letter, paths in kinds if path in paths)
        os.setxattr(tree.folder(path), ATTRIBUTE, value)

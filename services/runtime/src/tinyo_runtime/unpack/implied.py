"""Folders that a layer needs but does not describe: whoever mounts it makes them look as the layers below say.

They are found by an attribute of theirs, which containers do not see; its value also says where to look for more.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinyo_runtime.unpack.tree import Tree

ATTRIBUTE = b"trusted.tinyo.implied"
#: In the value: the folder itself is one; there are some below it.
ITSELF, BELOW = b"i", b"b"


def mark(tree: "Tree") -> None:
    """Gives all of them, and all folders that lead to them, the attribute. Raises OSError."""
    found = tree.made - tree.described.keys()
    leading = set[bytes]()
    for path in found:
        while path and (path := path.rpartition(b"/")[0]) not in leading:
            leading.add(path)
    for path in sorted(found | leading):
        value = ITSELF * (path in found) + BELOW * (path in leading)
        os.setxattr(tree.folder(path), ATTRIBUTE, value)

"""Makes room for an entry where an earlier one of its layer has its name: the later one counts."""

import errno
import os
import stat
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from tinyo_runtime.unpack import whiteouts
from tinyo_runtime.unpack.refusals import Refused
from tinyo_runtime.unpack.tar import FOLDER, Entry

if TYPE_CHECKING:
    from tinyo_runtime.unpack.tree import Tree


class gives_way:
    """In its scope the entry is made; if something stands in its way, that is removed and the entry added again.

    Nothing of the entry's data has been read by then. Any other OSError gets the entry's name as filename.
    """

    def __init__(self, tree: "Tree", path: bytes, entry: Entry, data: Iterator[bytes]) -> None:
        self._tree, self._path, self._entry, self._data = tree, path, entry, data

    def __enter__(self) -> None:
        if not self._path and self._entry.kind != FOLDER:
            raise Refused("the layer's root is not a folder")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, OSError) or not error.errno:  # without a number, it is about the compression
            return False
        error.filename = self._entry.name
        if isinstance(error, FileExistsError):
            _remove(self._tree, self._path)
        elif error.errno not in (errno.ENOTDIR, errno.ELOOP) or not self._clear_the_way():
            return False
        self._tree.add(self._entry, self._data)
        return True

    def _clear_the_way(self) -> bool:
        """True when something in the entry's path was no folder, and now is or is gone.

        A folder replaces what an earlier entry left under its own name, and any folder a whiteout.
        """
        parts = self._path.split(b"/")
        for count in range(1, len(parts) + 1):
            path, name = b"/".join(parts[:count]), parts[count - 1]
            parent = self._tree.folder(b"/".join(parts[: count - 1]))
            found = os.lstat(name, dir_fd=parent)
            if stat.S_ISDIR(found.st_mode):
                continue
            replaces = count == len(parts) and self._entry.kind == FOLDER
            if not replaces and not whiteouts.is_one(found):
                raise Refused(f"{path!r} is used as a folder, but is not one")
            os.unlink(name, dir_fd=parent)
            whiteouts.replace_lower(self._tree, path)  # which it had replaced already
            return True
        return False


def _remove(tree: "Tree", path: bytes) -> None:
    """And all that is below it and known of it; takes no longer than what is removed has taken."""
    above, _, name = path.rpartition(b"/")
    if not stat.S_ISDIR(os.lstat(name, dir_fd=tree.folder(above)).st_mode):
        os.unlink(name, dir_fd=tree.folder(above))
        return
    for below in os.listdir(tree.folder(path)):
        _remove(tree, path + b"/" + os.fsencode(below))
    if path in tree.folders:
        os.close(tree.folders.pop(path))
    tree.described.pop(path, None)
    tree.made.discard(path)
    tree.hiding.discard(path)
    os.rmdir(name, dir_fd=tree.folder(above))

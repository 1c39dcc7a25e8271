"""Writes the entries of a layer below one folder.

Every path is walked one component at a time, each opened without following links from the descriptor of the
one above it, which is what RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS of openat2(2) means; the descriptors are
kept, so most entries cost no walk. Only what does not exist is made, so that nothing is ever written through
what an earlier entry left.

A layer stands by itself, because images share it: a folder that it needs but does not describe is root's,
mode 0755, whatever the layers below say of it, and `implied` marks it.
"""

import contextlib
import os
from collections.abc import Iterator

from tinyo_runtime.unpack import attributes, earlier, implied, limits, others, sparse
from tinyo_runtime.unpack.tar import FILE, FOLDER, SYMLINK, Entry, beneath

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Tree:
    """The folder of one layer while it is filled; `finish` after the last entry."""

    def __init__(self, root: str) -> None:
        #: Descriptors of folders that are open, by their paths.
        self.folders = {b"": os.open(root, _OPEN_FOLDER)}
        #: What entries said of folders.
        self.described: dict[bytes, Entry] = {}
        #: Folders that were made, and those with whiteouts.
        self.made, self.hiding = {b""}, set[bytes]()

    def add(self, entry: Entry, data: Iterator[bytes]) -> None:
        """Makes what the entry describes. Raises Refused, and OSError with the entry's name as filename."""
        path = beneath(entry.name)
        above, _, name = path.rpartition(b"/")
        with earlier.gives_way(self, path, entry, data):
            parent = self.folder(above)
            if entry.kind == FOLDER:
                self.folder(path)
                self.described[path] = entry
            elif entry.kind == FILE:
                fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
                for piece in sparse.placed(fd, entry, data) or data:
                    while piece := piece[os.write(fd, piece) :]:
                        pass
                _describe(fd, entry)
                os.close(fd)
            elif entry.kind == SYMLINK:
                os.symlink(entry.link, name, dir_fd=parent)
                attributes.of_link(parent, name, entry)
            else:
                others.make(self, path, entry)

    def folder(self, path: bytes) -> int:
        """Descriptor of a folder, good until the next call; what is missing of its path is made."""
        limits.folders(self.folders, path)
        if path not in self.folders:
            above, _, name = path.rpartition(b"/")
            parent = self.folder(above)
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=parent)
                self.made.add(path)
            self.folders[path] = os.open(name, _OPEN_FOLDER, dir_fd=parent)
        return self.folders[path]

    def finish(self) -> None:
        """Gives folders their owners, modes and times, now that nothing changes inside them any more."""
        for path, entry in self.described.items():
            _describe(self.folder(path), entry)
        implied.mark(self)


def _describe(fd: int, entry: Entry) -> None:
    """Owner, mode, attributes, time: in this order, because a new owner clears bits of the mode and attributes."""
    os.fchown(fd, entry.uid, entry.gid)
    os.fchmod(fd, entry.mode)
    attributes.add(fd, entry)
    os.utime(fd, ns=(entry.mtime, entry.mtime))

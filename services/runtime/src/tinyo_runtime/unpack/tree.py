"""Writes the entries of a layer below one folder, in the form that overlayfs wants.

Every path is walked one component at a time, each opened without following links from the descriptor of the
one above it, which is what RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS of openat2(2) means; the descriptors are
kept, so most entries cost no walk. What an earlier entry left is replaced, never written through.

A layer stands by itself, because images share it: a folder that it needs but does not describe is root's,
mode 0755, whatever the layers below say of it, and a hard link into them cannot be made.
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable
from typing import TypeVar

from tinyo_runtime.unpack import sparse, tar
from tinyo_runtime.unpack.tar import Entry, Refused, Stream, Unsupported

MAX_ENTRIES = 2_000_000
MAX_DEPTH = 256
#: Folders that are kept open; an entry needs at most two paths more.
_MAX_OPEN = 256

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
#: Bookkeeping of AUFS, which old builders left in layers.
_AUFS = b".wh..wh."

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

T = TypeVar("T")


class Tree:
    """The folder of one layer while it is filled; `finish` after the last entry."""

    def __init__(self, root: int) -> None:
        os.fchmod(root, 0o755)
        self.entries = 0
        #: Device nodes, and attributes that this file system cannot hold.
        self.skipped = 0
        self._folders = {b"": root}
        self._described: dict[bytes, Entry] = {}

    def add(self, entry: Entry, data: Stream) -> None:
        """Makes what the entry describes. Raises Refused, and OSError with the entry's name as filename."""
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise Refused(f"the layer has more than {MAX_ENTRIES} entries")
        if len(self._folders) > _MAX_OPEN:
            self._close_folders()
        holes = sparse.data_map(entry, data) if entry.kind == tar.GNU_SPARSE or entry.records else None
        path = _beneath(entry.name)
        above, _, name = path.rpartition(b"/")
        try:
            if entry.kind == tar.FOLDER:
                self._folder(path, replace=True)
                self._described[path] = entry
            elif name.startswith(_WHITEOUT) or path.startswith(_AUFS):
                self._white_out(above, name)
            elif name:
                self._make(path, self._folder(above), name, entry, data, holes)
            else:
                raise Refused("the layer's root is not a folder")
        except OSError as error:
            error.filename = entry.name
            raise

    def finish(self) -> None:
        """Gives folders their owners, modes and times, now that nothing changes inside them any more."""
        for path, entry in self._described.items():
            if len(self._folders) > _MAX_OPEN:
                self._close_folders()
            fd = self._folder(path)
            self._describe(fd, entry)
            os.fchmod(fd, entry.mode)
        self._close_folders()

    def _folder(self, path: bytes, *, replace: bool = False) -> int:
        """Descriptor of a folder; it and those above it are made where they are missing.

        With `replace` it takes the place of whatever else has its name.
        """
        if (known := self._folders.get(path)) is not None:
            return known
        above, _, name = path.rpartition(b"/")
        parent = self._folder(above)
        try:
            fd = os.open(name, _OPEN_FOLDER, dir_fd=parent)
        except FileNotFoundError:
            os.mkdir(name, 0o755, dir_fd=parent)
            fd = os.open(name, _OPEN_FOLDER, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            whiteout = _is_whiteout(os.lstat(name, dir_fd=parent))
            if not replace and not whiteout:
                raise Refused(f"{path!r} is used as a folder, but is not one") from error
            os.unlink(name, dir_fd=parent)
            os.mkdir(name, 0o755, dir_fd=parent)
            fd = os.open(name, _OPEN_FOLDER, dir_fd=parent)
            if whiteout:
                _hide_lower(fd)
        self._folders[path] = fd
        return fd

    def _make(
        self, path: bytes, parent: int, name: bytes, entry: Entry, data: Stream, holes: sparse.Map | None
    ) -> None:
        """A file, link or pipe in the folder `parent`."""

        def new(make: Callable[[], T]) -> T:
            try:
                return make()
            except FileExistsError:
                self._remove(path, parent, name)
                return make()

        match entry.kind:
            case tar.FILE | tar.GNU_SPARSE:
                fd = new(lambda: os.open(name, _NEW_FILE, entry.mode, dir_fd=parent))
                try:
                    _write(fd, entry.size, data, holes)
                    self._describe(fd, entry)
                finally:
                    os.close(fd)
            case tar.HARD_LINK:
                above, _, target = _beneath(entry.link).rpartition(b"/")
                if _beneath(entry.link) == path:
                    return
                source = self._folder(above)
                try:
                    found = os.stat(target, dir_fd=source, follow_symlinks=False)
                except FileNotFoundError:
                    found = None
                if not found or stat.S_ISDIR(found.st_mode):
                    raise Refused(f"{path!r} is a hard link to {entry.link!r}, which is no file of its layer")
                new(
                    lambda: os.link(target, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
                )
            case tar.SYMLINK:
                new(lambda: os.symlink(entry.link, name, dir_fd=parent))
                os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
                os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)
            case tar.FIFO:
                new(lambda: os.mkfifo(name, entry.mode, dir_fd=parent))
                os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
                os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)
            case tar.CHARACTER | tar.DEVICE:
                self.skipped += 1  # a container gets its devices from the runtime, never from an image
            case _:
                raise Unsupported(f"{path!r} is of a kind that is not known: {entry.kind!r}")

    def _describe(self, fd: int, entry: Entry) -> None:
        """Owner, the bits that a change of owner clears, attributes and times of a file or folder."""
        if entry.uid or entry.gid:
            os.fchown(fd, entry.uid, entry.gid)
            if entry.mode & (stat.S_ISUID | stat.S_ISGID):
                os.fchmod(fd, entry.mode)
        for key, value in entry.xattrs():
            if key == b"security.capability" or (
                key.startswith(b"user.") and not key.startswith(b"user.overlay.")
            ):
                try:
                    os.setxattr(fd, key, value)
                except OSError as error:
                    if error.errno != errno.ENOTSUP:
                        raise
                    self.skipped += 1
        os.utime(fd, ns=(entry.mtime, entry.mtime))

    def _white_out(self, above: bytes, name: bytes) -> None:
        """Hides a name of the layers below, or everything that they have in a folder.

        What this very layer has under the name stays: a whiteout speaks of lower layers only.
        """
        if name == _OPAQUE:
            _hide_lower(self._folder(above))
        elif not (name.startswith(_AUFS) or above.startswith(_AUFS)):
            target = name.removeprefix(_WHITEOUT)
            if target in (b"", b".", b".."):
                raise Refused(f"{name!r} hides nothing that an image may hide")
            parent = self._folder(above)
            try:
                os.mknod(target, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
            except FileExistsError:
                if stat.S_ISDIR(os.lstat(target, dir_fd=parent).st_mode):
                    _hide_lower(self._folder(above + b"/" + target if above else target))

    def _remove(self, path: bytes, parent: int, name: bytes) -> None:
        """Makes room for a later entry of the same name."""
        if not stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
            os.unlink(name, dir_fd=parent)
            return
        shutil.rmtree(name, dir_fd=parent)
        for folder in [known for known in self._folders if (known + b"/").startswith(path + b"/")]:
            os.close(self._folders.pop(folder))
        self._described = {
            known: entry
            for known, entry in self._described.items()
            if not (known + b"/").startswith(path + b"/")
        }

    def _close_folders(self) -> None:
        root = self._folders.pop(b"")
        for fd in self._folders.values():
            os.close(fd)
        self._folders = {b"": root}


def _beneath(name: bytes) -> bytes:
    """The name relative to the layer's root, without what means nothing; refuses what could lead out."""
    parts = [part for part in name.split(b"/") if part and part != b"."]
    if b".." in parts or b"\0" in name:
        raise Refused(f"the name {name!r} leads out of the layer")
    if len(parts) > MAX_DEPTH:
        raise Refused(f"{len(parts)} folders deep is more than {MAX_DEPTH}")
    return b"/".join(parts)


def _write(fd: int, size: int, data: Stream, holes: sparse.Map | None) -> None:
    for offset, length in [(0, size)] if holes is None else holes:
        if offset:
            os.lseek(fd, offset, os.SEEK_SET)
        for piece in data.pieces(length):
            while piece:
                piece = piece[os.write(fd, piece) :]
    if holes is not None:
        os.ftruncate(fd, size)


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _hide_lower(folder: int) -> None:
    """Marks a folder opaque (Documentation/filesystems/overlayfs.rst)."""
    os.setxattr(folder, b"trusted.overlay.opaque", b"y")

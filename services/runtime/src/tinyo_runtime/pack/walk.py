"""Goes through the upper folder of an overlay and says what it finds in the words of a layer.

Everything is opened from the descriptor of the folder that it is in, without following links. Names are sorted;
what changes or goes while it is read is told as it was for a moment, or not at all.

Whiteouts and opaque folders are those of overlayfs (Documentation/filesystems/overlayfs.rst) and become those of
the OCI image specification (layer.md).
"""

import errno
import os
import stat
from collections import Counter

from tinyo_runtime.pack import archive, attributes, content
from tinyo_runtime.pack.output import Output
from tinyo_runtime.unpack import limits, others, whiteouts
from tinyo_runtime.unpack.refusals import Refused
from tinyo_runtime.unpack.tar import FILE, FOLDER, SYMLINK

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
#: What the kernel says to somebody who opens or reads something that has just become something else.
_CHANGED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EINVAL)


class Walk:
    """From the root to every leaf of it."""

    def __init__(self, layer: Output) -> None:
        self._layer = layer
        #: What is not in the layer, and how often: "sockets", "devices", "names", "attributes", "changed".
        self.left_out = Counter[str]()
        #: Names of files that have more of them, by device and inode.
        self._links: dict[tuple[int, int], bytes] = {}
        #: Folders that TinyO made: they are said when there is anything in them.
        self._waiting: list[bytes] = []

    def whole(self) -> None:
        """The root, with all that is in it. Raises Refused and OSError."""
        self._folder(os.open("/", _OPEN_FOLDER), b"")

    def _folder(self, fd: int, path: bytes) -> None:
        if path.count(b"/") >= limits.MAX_DEPTH:
            raise Refused(f"{path.count(b'/') + 1} folders deep is more than {limits.MAX_DEPTH}")
        about = self._attributes(fd, path)
        said = archive.header((path or b".") + b"/", FOLDER, os.fstat(fd), records=about.records)
        if about.opaque:
            said += archive.header(_join(path, whiteouts.OPAQUE), FILE)
        self._waiting.append(said)
        if not about.made:
            self._say()
        for name in sorted(_names(fd)):
            self._entry(fd, name, _join(path, name))
        if self._waiting and self._waiting[-1] is said:
            self._waiting.pop()
        os.close(fd)

    def _entry(self, parent: int, name: bytes, path: bytes) -> None:
        limits.counts.entry()
        if name.startswith(whiteouts.PREFIX):
            self.left_out["names"] += 1  # it would hide something
            return
        try:
            found, fd, link = _look(parent, name)
        except OSError as error:
            if error.errno not in _CHANGED:
                raise
            self.left_out["changed"] += 1
            return
        if whiteouts.is_one(found):
            self._say(archive.header(_join(path[: -len(name) - 1], whiteouts.PREFIX + name), FILE))
        elif stat.S_ISDIR(found.st_mode):
            self._folder(fd, path)
        elif stat.S_ISREG(found.st_mode):
            self._file(fd, path, found)
        elif stat.S_ISLNK(found.st_mode):
            self._leaf(path, SYMLINK, found, link)
        elif stat.S_ISFIFO(found.st_mode):
            self._leaf(path, others.FIFO, found)
        else:
            self.left_out["sockets" if stat.S_ISSOCK(found.st_mode) else "devices"] += 1

    def _file(self, fd: int, path: bytes, found: os.stat_result) -> None:
        """A regular file, as long as it was when it was found."""
        about = self._attributes(fd, path)
        if not (about.made and not found.st_size) and not self._is_link(path, found):
            pieces = content.pieces(fd, found.st_size)
            size, records, before = sum(length for _, length in pieces), about.records, b""
            name = path
            if size < found.st_size:
                before = content.sparse_map(pieces, found.st_size)
                size += len(before)
                name = b"GNUSparseFile.0/" + path[-80:].replace(b"/", b"_")
                records |= content.sparse_records(path, found.st_size)
            self._say(archive.header(name, FILE, found, size=size, records=records), before)
            for data in content.data(fd, pieces):
                self._layer.write(data)
            self._layer.write(archive.padding(size))
            if os.fstat(fd).st_mtime_ns != found.st_mtime_ns:
                self.left_out["changed"] += 1
        os.close(fd)

    def _leaf(self, path: bytes, kind: bytes, found: os.stat_result, link: bytes = b"") -> None:
        """Something without data."""
        if not self._is_link(path, found):
            self._say(archive.header(path, kind, found, link=link))

    def _is_link(self, path: bytes, found: os.stat_result) -> bool:
        """Whether it is a further name of something that was said, which is said then."""
        if found.st_nlink == 1:
            return False
        first = self._links.setdefault((found.st_dev, found.st_ino), path)
        if first != path:
            self._say(archive.header(path, others.HARD_LINK, found, link=first))
        return first != path

    def _attributes(self, fd: int, path: bytes) -> attributes.Attributes:
        about = attributes.of(fd, path)
        if about.unspeakable:
            self.left_out["attributes"] += about.unspeakable
        return about

    def _say(self, *said: bytes) -> None:
        """After the folders that it is in."""
        for data in (*self._waiting, *said):
            self._layer.write(data)
        self._waiting.clear()


def _look(parent: int, name: bytes) -> tuple[os.stat_result, int, bytes]:
    """What there is under a name, a descriptor of a folder or file, and the target of a link."""
    found = os.lstat(name, dir_fd=parent)
    if stat.S_ISLNK(found.st_mode):
        return found, -1, os.readlink(name, dir_fd=parent)
    if not stat.S_ISDIR(found.st_mode) and not stat.S_ISREG(found.st_mode):
        return found, -1, b""
    fd = os.open(name, _OPEN_FOLDER if stat.S_ISDIR(found.st_mode) else _OPEN_FILE, dir_fd=parent)
    opened = os.fstat(fd)
    if stat.S_IFMT(opened.st_mode) != stat.S_IFMT(found.st_mode):
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return opened, fd, b""


def _names(folder: int) -> list[bytes]:
    """Those in a folder; one that was removed has none."""
    try:
        return [*map(os.fsencode, os.listdir(folder))]
    except FileNotFoundError:
        return []


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name

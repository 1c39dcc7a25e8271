"""Copies files out of a container or into it, as a tar on standard output or input: a program of its own, confined.

`transfer.py out|in ROOT PATH FLAG [TARGET SOURCE 0|1]...`: ROOT is a descriptor of the root of a running container, or of
one that does not run the folder where it can be mounted, whether nothing can be written to it (0 or 1), and the options
of its overlay; then each SOURCE is mounted at TARGET, as it would be if it ran, and read-only with 1. The container is
hostile, and runs meanwhile: its root is all that there is for this process, nothing is loaded any more once it is in
there (CVE-2019-14271), and everything is opened from the descriptor of the folder that it is in, without following
links (CVE-2018-15664). What goes wrong is said on standard error, as one line of JSON: an errno and a text.
"""

import bz2  # noqa: F401 (as the next ones: tarfile would import them later)
import contextlib
import errno
import gzip  # noqa: F401
import json
import lzma  # noqa: F401
import os
import stat
import sys
import tarfile
import zlib  # noqa: F401
from typing import BinaryIO, cast

# This very installation, whatever else the interpreter may find.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from tinyo_runtime import lookups
from tinyo_runtime.pack import output, walk
from tinyo_runtime.spawner import syscalls
from tinyo_runtime.unpack import confine
from tinyo_runtime.unpack.refusals import Refused

#: dac_read_search; and chown, dac_override, fowner, fsetid.
_READING, _WRITING = 1 << 2, 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: A file that something is mounted on cannot be replaced.
_SAME_FILE = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20
_MAX_DEPTH = 256


def enter(root: str, mounts: list[str], capabilities: int) -> None:
    """Makes a container's root all that there is. Raises OSError."""
    if root.isdigit():
        os.fchdir(int(root))
        os.close(int(root))
    else:
        folder, read_only, options = root.split(";", 2)
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        if len(os.fsencode(options)) >= os.sysconf("SC_PAGE_SIZE"):  # mount(2) would cut it in silence
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG), "mount options")
        syscalls.mount("overlay", folder, "overlay", syscalls.MS_NODEV | int(read_only), options)
        os.chdir(folder)
        top = os.open(".", os.O_PATH | os.O_CLOEXEC)
        for target, source, read_only in zip(mounts[::3], mounts[1::3], mounts[2::3], strict=True):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # it was never started
                place = lookups.within(top, target, os.O_PATH)
                mount = syscalls.open_tree(syscalls.AT_FDCWD, source)
                syscalls.make_private(mount, read_only=read_only == "1")
                syscalls.move_mount(mount, place, target)
        os.close(top)
    confine.leave(".", capabilities)


class Stream:
    """Standard output, for the walk."""

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest := rest[os.write(1, rest) :]:
            pass


def out(path: str, *, follow: bool) -> None:
    """Writes a path, and all that is below it. Raises OSError and Refused."""
    stream, root = Stream(), os.open("/", os.O_PATH | os.O_CLOEXEC)
    walker = walk.Walk(cast("output.Output", stream))
    above, name = os.path.split(path)
    if name in ("", ".", ".."):
        walker._folder(lookups.within(root, path, os.O_RDONLY | os.O_DIRECTORY), b"")
    else:
        parent = lookups.within(root, above, os.O_RDONLY | os.O_DIRECTORY)
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode) and follow:
            fd = lookups.within(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
            found = os.fstat(fd)
            if stat.S_ISDIR(found.st_mode):
                walker._folder(fd, os.fsencode(name))
            elif stat.S_ISREG(found.st_mode):
                walker._file(fd, os.fsencode(name), found)
        elif stat.S_IFMT(found.st_mode) in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK):
            raise OSError(errno.EINVAL, "neither a file nor a folder", path)
        else:
            walker._entry(parent, os.fsencode(name), os.fsencode(name))
    stream.write(bytes(1024))


class Landing:
    """A folder of the container into which entries of a tar come."""

    def __init__(self, folder: int, rename: str = "") -> None:
        self._folder = folder
        #: What the first part of each name becomes.
        self._rename = rename
        #: What was said of folders, until nothing changes in them any more.
        self._described: list[tuple[tuple[str, ...], tarfile.TarInfo]] = []

    def add(self, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        """Makes an entry, in place of what is there. Raises OSError."""
        parts = self._parts(member.name)
        if not parts:
            return
        parent = self._open(parts[:-1])
        try:
            if member.isdir():
                with contextlib.suppress(FileExistsError):
                    os.mkdir(parts[-1], 0o700, dir_fd=parent)
                os.close(os.open(parts[-1], _OPEN_FOLDER, dir_fd=parent))
                self._described.append((parts, member))
            elif member.isreg():
                self._file(parent, parts[-1], member, cast(BinaryIO, archive.extractfile(member)))
            elif member.issym():
                _gone(parent, parts[-1])
                os.symlink(member.linkname, parts[-1], dir_fd=parent)
                _describe(parts[-1], parent, member)
            elif member.islnk():
                self._link(parent, parts[-1], self._parts(member.linkname))
            elif member.isfifo():
                _gone(parent, parts[-1])
                os.mkfifo(parts[-1], member.mode & 0o7777, dir_fd=parent)
                _describe(parts[-1], parent, member)
        except OSError as error:
            raise OSError(error.errno, error.strerror, "/".join(parts)) from None
        finally:
            os.close(parent)

    def finish(self) -> None:
        """Gives folders their owners, modes and times."""
        for parts, member in reversed(self._described):
            fd = self._open(parts)
            os.fchown(fd, member.uid, member.gid)
            os.fchmod(fd, member.mode & 0o7777)
            os.utime(fd, (member.mtime, member.mtime))
            os.close(fd)

    def _parts(self, name: str) -> tuple[str, ...]:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if self._rename:
            first = name.split("/", 1)[0] not in (".", "")
            parts = [self._rename, *parts[first:]]
        if ".." in parts or len(parts) > _MAX_DEPTH:
            raise OSError(errno.EINVAL, "a name in the archive leads elsewhere", name)
        return tuple(parts)

    def _open(self, parts: tuple[str, ...]) -> int:
        """Descriptor of a folder; what is missing of its path is made."""
        folder = os.dup(self._folder)
        for part in parts:
            above = folder
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=above)
                folder = os.open(part, _OPEN_FOLDER, dir_fd=above)
            finally:
                os.close(above)
        return folder

    def _file(self, parent: int, name: str, member: tarfile.TarInfo, data: BinaryIO) -> None:
        try:
            _gone(parent, name)
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            fd = os.open(name, _SAME_FILE, dir_fd=parent)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise
            os.truncate(fd, 0)
        while piece := data.read(_CHUNK):
            rest = memoryview(piece)
            while rest := rest[os.write(fd, rest) :]:
                pass
        os.fchown(fd, member.uid, member.gid)
        os.fchmod(fd, member.mode & 0o7777)
        os.utime(fd, (member.mtime, member.mtime))
        os.close(fd)

    def _link(self, parent: int, name: str, target: tuple[str, ...]) -> None:
        source = self._open(target[:-1])
        _gone(parent, name)
        os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        os.close(source)


def _gone(parent: int, name: str) -> None:
    """What has that name makes room; a folder does not."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)


def _describe(name: str, parent: int, member: tarfile.TarInfo) -> None:
    os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
    os.utime(name, (member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)


def into(path: str, *, archive: bool) -> None:
    """Reads a tar, and makes what it has. Raises OSError."""
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|*", errorlevel=2) as entries:
        landing = None
        for member in entries:
            landing = landing or _landing(root, path, member, archive=archive)
            landing.add(member, entries)
        if landing:
            landing.finish()
    while os.read(0, _CHUNK):  # whoever writes is not told that nobody reads
        pass


def _landing(root: int, path: str, first: tarfile.TarInfo, *, archive: bool) -> Landing:
    """Where entries go, by the rules of docker: into a folder that is there, or in place of what is not."""
    try:
        there = lookups.within(root, path, os.O_PATH)
        if stat.S_ISDIR(os.fstat(there).st_mode):
            return Landing(lookups.within(root, path, os.O_RDONLY | os.O_DIRECTORY))
        if archive or first.isdir() or path.endswith(("/", "/.")):
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", path)
    except FileNotFoundError:
        if archive or (path.endswith(("/", "/.")) and not first.isdir()):
            raise
    above, name = os.path.split(path.rstrip("/"))
    if name in ("", ".", ".."):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return Landing(lookups.within(root, above, os.O_RDONLY | os.O_DIRECTORY), name)


def main(direction: str, root: str, path: str, flag: str, *mounts: str) -> None:
    """The program. Raises OSError, Refused and TarError."""
    is_out = direction == "out"
    enter(root, [*mounts], _READING if is_out else _WRITING)
    os.umask(0)
    if is_out:
        out(path, follow=flag == "1")
    else:
        into(path, archive=flag == "1")


if __name__ == "__main__":
    code = 0
    try:
        main(*sys.argv[1:])
    except (OSError, Refused, tarfile.TarError, EOFError, ValueError) as error:
        number = getattr(error, "errno", None) or 0
        text = (
            f"{error.strerror}: {error.filename}"
            if isinstance(error, OSError) and error.filename
            else str(error)
        )
        os.write(2, json.dumps({"errno": number, "message": text}).encode())
        code = 1
    os._exit(code)  # nothing of the interpreter's end may look for files, which would be the container's

"""Fills a new volume with what an image has where the volume will be: a program of its own.

`fill.py LAYERS VOLUME TARGET NAME...` mounts the layers NAME of the folder LAYERS, the topmost first, where nobody
else sees it, and copies what is at TARGET in there to VOLUME/filling, which then becomes VOLUME/data. Nothing happens
when there is no such folder. Owners, modes, times, attributes, links and pipes are as in the image; sockets and
devices are left out.

The image is hostile: TARGET is looked up as if the image were "/", and all that follows is opened from the
descriptor of the folder that it is in, without following links.
"""

import contextlib
import errno
import os
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

#: On the root of a volume that was filled, where nobody in a container sees it (xattr(7)).
MARK = "trusted.tinyo.filled"
#: Attributes that belong to whoever made the layers.
_NOT_OURS = ("trusted.",)
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Folders deep; the descriptors of two for each.
_MAX_DEPTH = 400
_CHUNK = 1 << 26
_PR_SET_PDEATHSIG, _MS_RDONLY = 1, 1


def is_filled(data: Path) -> bool:
    """Whether a volume was filled, be it with nothing."""
    try:
        os.getxattr(data, MARK)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
        return False
    return True


class Copy:
    """Copies the contents of one folder into another, both by descriptor."""

    def __init__(self) -> None:
        #: Where the first name of a file is that has more of them: folder and name below the new root.
        self._links: dict[tuple[int, int], str] = {}

    def folder(self, source: int, target: int, path: str = "", depth: int = 0) -> None:
        """What is in it, and then how it looks, because new files change its times."""
        if depth > _MAX_DEPTH:
            raise OSError(errno.ELOOP, f"more than {_MAX_DEPTH} folders deep", path)
        for name in os.listdir(source):
            self._entry(source, target, name, f"{path}{name}", depth)
        self._look(source, target)

    def _entry(self, source: int, target: int, name: str, path: str, depth: int) -> None:
        found = os.lstat(name, dir_fd=source)
        if stat.S_ISDIR(found.st_mode):
            with _opened(name, _OPEN_FOLDER, source) as below:
                os.mkdir(name, 0o700, dir_fd=target)
                with _opened(name, _OPEN_FOLDER, target) as new:
                    self.folder(below, new, f"{path}/", depth + 1)
        elif found.st_nlink > 1 and (found.st_dev, found.st_ino) in self._links:
            os.link(self._links[found.st_dev, found.st_ino], name, src_dir_fd=self._root, dst_dir_fd=target)
            return
        elif stat.S_ISREG(found.st_mode):
            with _opened(name, _OPEN_FILE, source) as old:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with _opened(name, flags, target) as new:
                    _data(old, new, found.st_size)
                    self._look(old, new)
        elif stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            self._owner(name, target, found)
        elif stat.S_ISFIFO(found.st_mode):
            os.mkfifo(name, 0o600, dir_fd=target)
            self._owner(name, target, found)
            os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=target)
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            self._links[found.st_dev, found.st_ino] = path

    def whole(self, source: int, target: int) -> None:
        """From the root to every leaf of it."""
        self._root = target
        self.folder(source, target)

    def _owner(self, name: str, target: int, found: os.stat_result) -> None:
        os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
        times = (found.st_atime_ns, found.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)

    def _look(self, source: int, target: int) -> None:
        """The owner comes first: it takes setuid bits and file capabilities away."""
        found = os.fstat(source)
        os.fchown(target, found.st_uid, found.st_gid)
        os.fchmod(target, stat.S_IMODE(found.st_mode))
        for name in os.listxattr(source):
            if not name.startswith(_NOT_OURS):
                os.setxattr(target, name, os.getxattr(source, name))
        os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


@contextlib.contextmanager
def _opened(name: str, flags: int, folder: int) -> Iterator[int]:
    fd = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        yield fd
    finally:
        os.close(fd)


def _data(source: int, target: int, size: int) -> None:
    """Only what is no hole (lseek(2))."""
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        end = os.lseek(source, at, os.SEEK_HOLE)
        os.lseek(target, at, os.SEEK_SET)
        while at < end:
            at += os.sendfile(target, source, at, min(_CHUNK, end - at)) or end
    os.ftruncate(target, size)


def main(layers: str, volume: str, target: str, *names: str) -> None:
    """The program. Raises OSError."""
    # This very installation, whatever else the interpreter may find.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from tinyo_runtime import lookups
    from tinyo_runtime.spawner import syscalls

    parent = os.getppid()
    syscalls.check(syscalls.libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != parent:  # whoever comes after our parent fills it again
        return
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    home = os.open(volume, _OPEN_FOLDER)
    os.mkdir("filling", 0o700, dir_fd=home)
    os.chdir(layers)
    # Read-only; two layers are the least that overlayfs takes, and the container's own is one of them.
    options = f"lowerdir={':'.join(names)},redirect_dir=nofollow,metacopy=off,index=off"
    if len(os.fsencode(options)) >= os.sysconf("SC_PAGE_SIZE"):  # mount(2) would cut it in silence
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG), "mount options")
    syscalls.mount("overlay", f"{volume}/filling", "overlay", syscalls.MS_NODEV | _MS_RDONLY, options)
    root = os.open(f"{volume}/filling", _OPEN_FOLDER)
    try:
        source = lookups.within(root, target, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):  # it is filled with nothing
        source = -1
    syscalls.detach(f"{volume}/filling")  # the descriptors keep it
    if source < 0:
        os.setxattr(f"{volume}/data", MARK, b"y")
        os.rmdir("filling", dir_fd=home)
        return
    new = os.open("filling", _OPEN_FOLDER, dir_fd=home)
    Copy().whole(source, new)
    os.setxattr(new, MARK, b"y")
    syscalls.check(syscalls.libc.syncfs(new), volume)
    os.rename("filling", "data", src_dir_fd=home, dst_dir_fd=home)
    os.fsync(home)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        raise SystemExit(f"{error.strerror}: {error.filename}" if error.filename else str(error)) from None

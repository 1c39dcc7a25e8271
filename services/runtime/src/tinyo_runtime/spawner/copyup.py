"""What an image has where a tmpfs is mounted over it, copied into that (the option `tmpcopyup` of podman).

Both trees are walked by descriptors, and no link is followed: the image is hostile, and we still have the host's
privileges. Files, folders and links are copied; what is none of them (devices, pipes, sockets) is left out.
"""

import os
import stat

from tinyo_runtime.spawner import mounts

CHUNK = 1 << 20
OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def copy(target: str, mount: int) -> None:
    """From `target` in the root, if that is a folder, to the root of a mount."""
    try:
        place = mounts.open_in_root(target)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(os.fstat(place).st_mode):
        _folder(os.open(".", OPEN | os.O_DIRECTORY, dir_fd=place), os.open(".", OPEN, dir_fd=mount))
    os.close(place)


def _folder(source: int, copied: int) -> None:
    """All that is in an open folder, and how it is; both are closed."""
    status = os.fstat(source)
    os.fchown(copied, status.st_uid, status.st_gid)
    os.fchmod(copied, stat.S_IMODE(status.st_mode))
    for name in os.listdir(source):
        kind = stat.S_IFMT(os.stat(name, dir_fd=source, follow_symlinks=False).st_mode)
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=copied)
            folder = OPEN | os.O_DIRECTORY
            _folder(os.open(name, folder, dir_fd=source), os.open(name, folder, dir_fd=copied))
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=copied)
        elif kind == stat.S_IFREG:
            _file(os.open(name, OPEN, dir_fd=source), name, copied)
    os.close(source)
    os.close(copied)


def _file(source: int, name: str, folder: int) -> None:
    copied = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    status = os.fstat(source)
    while data := os.read(source, CHUNK):
        while data := data[os.write(copied, data) :]:  # a file system that is nearly full takes a part
            pass
    os.fchown(copied, status.st_uid, status.st_gid)
    os.fchmod(copied, stat.S_IMODE(status.st_mode))
    os.close(source)
    os.close(copied)

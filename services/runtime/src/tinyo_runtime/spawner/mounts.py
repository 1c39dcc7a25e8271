"""How anything gets to its place in a container's root, which is the working directory here: every target is
looked up below it, as if it were "/".
"""

import os

from tinyo_runtime.spawner import made
from tinyo_runtime.spawner import syscalls as sys


def open_in_root(path: str, *, make: str = "", links: bool = True) -> int:
    """Opens `path` below the working directory as if that were "/" (CVE-2021-30465).

    With `make` ("folder" or "file") what is missing is made, one component at a time.
    """
    resolve = sys.RESOLVE_IN_ROOT | (sys.RESOLVE_NO_MAGICLINKS if links else sys.RESOLVE_NO_SYMLINKS)
    try:
        return sys.openat2(sys.AT_FDCWD, path.lstrip("/") or ".", os.O_PATH, resolve)
    except BlockingIOError:  # a mount or rename anywhere on the machine made ".." uncertain
        return open_in_root(path, make=make, links=links)
    except FileNotFoundError:
        if not make:
            raise
    parent, name = os.path.split(path.rstrip("/"))
    folder = open_in_root(parent, make="folder", links=links)
    try:
        new, mode = (os.mkdir, 0o755) if make == "folder" else (os.mknod, 0o644)
        new(name, mode, dir_fd=folder)
        made.mark(folder, name)
    finally:
        os.close(folder)
    return open_in_root(path, links=links)


def attach(mount: int, target: str, *, make: str = "", links: bool = True) -> None:
    """Moves a mount onto a target inside the root; both are descriptors when it happens."""
    fd = open_in_root(target, make=make, links=links)
    sys.move_mount(mount, fd, target)
    os.close(fd)
    os.close(mount)

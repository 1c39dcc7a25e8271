"""Looking up a path below a folder that somebody else may change meanwhile: openat2(2)."""

from tinyo_runtime.spawner import syscalls as sys

RESOLVE_BENEATH = 0x08
#: How often the kernel may say that a mount or rename anywhere on the machine made ".." uncertain.
TRIES = 1000


def opened(folder: int, path: str, flags: int, resolve: int) -> int:
    """A descriptor. Raises OSError."""
    for _ in range(TRIES):
        try:
            return sys.openat2(folder, path or ".", flags, resolve)
        except BlockingIOError:
            continue
    return sys.openat2(folder, path or ".", flags, resolve)


def beneath(folder: int, path: str, flags: int) -> int:
    """Nothing in the path, link or not, leads out of the folder. Raises OSError, EXDEV when something does."""
    return opened(folder, path, flags, RESOLVE_BENEATH | sys.RESOLVE_NO_MAGICLINKS)


def within(root: int, path: str, flags: int) -> int:
    """As if the folder were "/", whatever links say. Raises OSError."""
    return opened(root, path.lstrip("/"), flags, sys.RESOLVE_IN_ROOT | sys.RESOLVE_NO_MAGICLINKS)

"""A file that is written whole, or not at all: nothing of it is left when a command fails, or is killed."""

import errno
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress

from tinyo_ctl.failures import Failure
from tinyo_ctl.tell import safe


def written(path: str, chunks: Iterable[bytes]) -> None:
    """Writes a file in place of what is there; to a device or pipe, bytes as they come. Raises Failure."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            with open(path, "wb", buffering=0) as file:
                for chunk in chunks:
                    write(file.fileno(), chunk)
        else:
            _replace(os.path.realpath(path), chunks)
    except OSError as error:
        raise Failure(f"{safe(path)} cannot be written: {error.strerror}") from None


def _replace(path: str, chunks: Iterable[bytes]) -> None:
    """Without a name until it is whole, where the file system can do that (O_TMPFILE, open(2))."""
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f".{name[:200]}.{secrets.token_hex(4)}")
    named = False
    try:
        descriptor = os.open(folder, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        named = True
    try:
        for chunk in chunks:
            write(descriptor, chunk)
        os.fsync(descriptor)
        if not named:
            above = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:  # with a descriptor it is linkat(2), which follows the link in /proc
                os.link(f"/proc/self/fd/{descriptor}", beside, src_dir_fd=above)
            finally:
                os.close(above)
        os.rename(beside, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(beside)
        raise
    finally:
        os.close(descriptor)


def write(descriptor: int, data: bytes) -> None:
    """All of it. Raises OSError."""
    rest = memoryview(data)
    while rest := rest[os.write(descriptor, rest) :]:
        pass

"""What goes wrong, as data: in a process before it execs, in a clone, and in messages that are none."""

import contextlib
import errno
import os
import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyo_runtime.spawner.__main__ import Spawner
    from tinyo_runtime.spawner.process import Process

#: Bytes of a failure: what a pipe takes at once.
MAX_BYTES = 4096


class ProtocolError(Exception):
    """What arrived is not a message of this protocol."""


def report(status: int, step: str, error: BaseException) -> None:
    """In the process: step, errno and object, to its status pipe. What came from an image can be text that has no
    bytes."""
    if isinstance(error, OSError):
        what = f"{step}\0{error.errno or 0}\0{error.filename or ''}"
    else:
        what = f"{step}\0{0}\0{error!r}"
    os.write(status, what.encode(errors="backslashreplace")[:MAX_BYTES])


def tell(spawner: "Spawner", process: "Process") -> None:
    """In the spawner, when such a process has ended: nothing is kept of it."""
    process.close()
    del spawner.processes[process.id]
    match os.fsdecode(process.failure).split("\0", 2):
        case [step, number, about] if number.isascii() and number.isdecimal() and len(number) < 5:
            spawner.tell("failed", process.id, step=step, errno=int(number), object=about)
        case _:  # somebody in the container took its pipe from it
            spawner.tell("failed", process.id, step="tell", errno=0, object="what it said is no failure")


@contextlib.contextmanager
def of_clone(spawner: "Spawner", id: str) -> Iterator[None]:
    """The clone of a process may fail, or what it needs."""
    try:
        yield
    except OSError as error:
        spawner.tell("failed", id, step="clone", errno=error.errno, object=error.filename or "")


def taken(id: str) -> OSError:
    """There is a process of that id."""
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), f"id {id}")


@contextlib.contextmanager
def survived(spawner: "Spawner") -> Iterator[None]:
    """Anything malformed ends the connection, never the spawner."""
    try:
        yield
    except (ProtocolError, LookupError, TypeError, ValueError, OSError) as error:
        print(f"spawner: refused a message: {error!r}", file=sys.stderr, flush=True)
        spawner.disconnect()


def too_large(data: bytes, fds: Sequence[int]) -> OSError:
    """A message that the other side would refuse; an image's environment can make it so."""
    return OSError(
        errno.EMSGSIZE, f"{len(data)} bytes and {len(fds)} descriptors are too much for one message"
    )


@contextlib.contextmanager
def understood(fds: "array[int]") -> Iterator[None]:
    """ProtocolError, and no descriptor stays, when a message cannot be understood."""
    try:
        yield
    except (ValueError, RecursionError, ProtocolError) as error:
        for fd in fds:
            os.close(fd)
        raise ProtocolError(str(error)) from error


def check(message: Any, version: int, cut_off: int) -> None:
    """ProtocolError unless it is whole, an object, and of this version."""
    if cut_off:
        raise ProtocolError("message too large")
    if not isinstance(message, dict) or message.get("v") != version:
        raise ProtocolError(f"not a message of version {version}")

"""How commands end that did not work: what is said then, and with which exit code.

0 it worked, 1 it failed, 2 the command line or a Statefile is wrong, 3 the services cannot be reached,
130 interrupted.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self


class Failure(Exception):
    """Ends a command: what to tell the user, in one or more lines, and with which exit code."""

    #: 1 failed, 2 usage or Statefile, 3 the services cannot be reached.
    exit_code = 1
    #: What stands before the text.
    prefix = "tinyo: "


class UsageError(Failure):
    """The command line is wrong."""

    exit_code = 2


class ServicesError(Failure):
    """The services could not be started, or stopped."""

    exit_code = 3


class Ending:
    """Entered around a command, it says why that failed; then `code` is the exit code."""

    code = 0

    def __enter__(self) -> Self:
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        match error:
            case Failure():
                print(f"{error.prefix}{error}", file=sys.stderr)
                self.code = error.exit_code
            case SystemExit(code=int(code)):  # argparse has said why
                self.code = code
            case KeyboardInterrupt():
                self.code = 130
            case BrokenPipeError():
                # Who read the output has gone; at exit, Python would fail once more to write what is left.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                self.code = 1
            case OSError(errno=errno.ENOSPC | errno.EIO | errno.EFBIG, filename=None):  # a print's
                print(f"tinyo: the output cannot be written: {error.strerror}", file=sys.stderr)
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                self.code = 1
            case _:
                return False
        return True


@contextmanager
def goes_on(what: str) -> Iterator[None]:
    """Says after Ctrl-C that it did not end what the node does."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted: the {what} goes on in the node; `tinyo ls` shows how far it is", file=sys.stderr)
        raise

"""What is said of a layer that is not unpacked, and how."""

import json
import os
from types import TracebackType
from typing import cast

from isal import igzip, isal_zlib

_GZIP_ERROR = cast(type[Exception], isal_zlib.IsalError)


class Refused(Exception):
    """The layer is not what it should be; the text says why, for people."""


class Unsupported(Refused):
    """The layer is well-formed, but holds something that is not understood."""


def leads_out(name: bytes) -> Refused:
    """A name with "..", wherever it would lead."""
    return Refused(f"the name {name!r} leads out of the layer")


def cut_off() -> Refused:
    """The stream ends where more must follow."""
    return Refused("the archive ends in the middle of an entry")


class reported:
    """In its scope an error ends the process: with a verdict and exit code 0, or with 1 if it must not happen.

    Nobody prints a traceback, for which the interpreter would read files, which would be the layer's.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not error:
            return
        if not (found := verdict(error)):
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os.write(1, json.dumps(found).encode() + b"\n")
        os._exit(0)


def verdict(error: BaseException) -> dict[str, object] | None:
    """None for what must not happen."""
    if isinstance(error, Unsupported):
        return {"error": "unsupported", "message": str(error)}
    if isinstance(error, (Refused, EOFError, _GZIP_ERROR, igzip.BadGzipFile)):
        return {"error": "corrupt", "message": str(error)}
    if isinstance(error, (ValueError, OverflowError)):
        message = f"a number in a header is malformed: this is not a tar archive, or it is damaged ({error})"
        return {"error": "corrupt", "message": message}
    if isinstance(error, MemoryError):
        return {"error": "corrupt", "message": "the layer needs too much memory"}
    if isinstance(error, OSError):
        name = f" for {error.filename!r}" if error.filename else ""
        message = f"{error.strerror or error}{name}"
        return {"error": "system", "errno": error.errno, "message": message}
    return None

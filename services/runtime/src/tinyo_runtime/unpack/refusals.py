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
    """In its scope every error prints a verdict, and ends the process with exit code 0: it can be relied on."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error and (verdict := _verdict(error)):
            os.write(1, json.dumps(verdict).encode() + b"\n")
            os._exit(0)  # see __main__


def _verdict(error: BaseException) -> dict[str, object] | None:
    """None for what must not happen."""
    if isinstance(error, Unsupported):
        return {"error": "unsupported", "message": str(error)}
    if isinstance(error, (Refused, EOFError, _GZIP_ERROR, igzip.BadGzipFile)):
        return {"error": "corrupt", "message": str(error)}
    if isinstance(error, ValueError):
        return {"error": "corrupt", "message": f"a header is malformed: {error}"}
    if isinstance(error, MemoryError):
        return {"error": "corrupt", "message": "the layer needs too much memory"}
    if isinstance(error, OSError):
        name = f" for {error.filename!r}" if error.filename else ""
        message = f"{error.strerror or error}{name}"
        return {"error": "system", "errno": error.errno, "message": message}
    return None

"""The time of a command line that somebody waits for: half of it is Python's, and half of that nobody needs."""

import gc
import os
import sys
from typing import NoReturn


def begin() -> None:
    """Before anything large is imported. grpc brings asyncio, and that brings ssl, which no unix socket needs and
    asyncio does without; and there is no garbage yet that would be worth looking for. Whoever started us without a standard
    input has none to send: what is opened next must not become it."""
    try:
        os.fstat(0)
    except OSError:
        os.open(os.devnull, os.O_RDONLY)
    sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]
    gc.set_threshold(100_000)


def leave(code: int) -> NoReturn:
    """Ends with this exit code, without taking the interpreter apart: that would take as long as a request."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:  # who read the output has gone
        code = code or 1
    except OSError as error:
        os.write(2, f"tinyo: the output cannot be written: {error.strerror}\n".encode())
        code = code or 1
    os._exit(code)

"""Calls of the C library that Python has no function for."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int | bytes | None, of: str = "") -> int:
    """What it returns, numbers being passed as C's long. Raises OSError with the call's name, or the name `of` what."""
    result: int = getattr(_libc, name)(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), of or name)
    return result

"""The system calls of a container are those of the profile, for its first process and all further ones alike."""

import binascii
from functools import cache

import grpc

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.options import Start, filters

#: Those of harden.DEFAULT_CAPABILITIES that open further calls.
CAPABILITIES = frozenset({"CAP_SYS_CHROOT"})


async def part(start: Start) -> None:
    """Nothing starts without it. Raises TinyoError SECCOMP_UNUSABLE."""
    start.plan["seccomp"] = program()


@cache
def program() -> str:
    """As a plan has it; made once, in 25 ms. Raises TinyoError SECCOMP_UNUSABLE."""
    try:
        return binascii.b2a_base64(filters.compiled(CAPABILITIES), newline=False).decode()
    except OSError as error:
        message = f"the filter of system calls cannot be made: {error}; install the package libseccomp2"
        raise TinyoError(grpc.StatusCode.FAILED_PRECONDITION, "SECCOMP_UNUSABLE", message) from None

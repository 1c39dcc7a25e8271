"""The system calls of a container are those of a profile, for its first process and all further ones alike."""

import asyncio
import os
from functools import lru_cache

import grpc
from tinyo.v1.security_pb2 import SECCOMP_KIND_PROFILE, SECCOMP_KIND_UNCONFINED, Seccomp

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.options import Start, capabilities, filters, profiles
from tinyo_runtime.spawner import harden


async def part(start: Start) -> None:
    """Nothing starts without it, unless its spec says so. After the capabilities, which open further calls. Raises
    TinyoError SECCOMP_UNUSABLE."""
    asked = start.container.config.spec.security.seccomp
    if asked.kind == SECCOMP_KIND_UNCONFINED:
        start.plan["seccomp"] = None
    elif asked.kind == SECCOMP_KIND_PROFILE:  # nobody waits for how long that takes
        start.plan["seccomp"] = start.hand(
            opened(await asyncio.to_thread(own, asked, start.plan["capabilities"]))
        )
    else:
        start.plan["seccomp"] = start.hand(opened(program(start.plan["capabilities"])))


def opened(program: bytes) -> int:
    """A descriptor of a file that has it; in the text of a message its 10 kB would take a third of a millisecond."""
    fd = os.memfd_create("seccomp")
    os.write(fd, program)
    return fd


@lru_cache(64)
def program(mask: int = harden.DEFAULT_CAPABILITIES) -> bytes:
    """Of the default profile; made once, in 25 ms. Raises TinyoError SECCOMP_UNUSABLE."""
    try:
        return filters.compiled(capabilities.names(mask))
    except OSError as error:
        raise unusable(
            f"the filter of system calls cannot be made: {error}; install the package libseccomp2"
        ) from None


def own(asked: Seccomp, mask: int) -> bytes:
    """Of a profile that the user brought. Raises TinyoError SECCOMP_UNUSABLE."""
    try:
        return compiled(asked.profile, mask)
    except (OSError, LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        message = f"the profile {asked.file} of system calls cannot be used: {error}"
        raise unusable(message, "security.seccomp") from None


@lru_cache(64)
def compiled(profile: str, mask: int) -> bytes:
    """By its text."""
    return profiles.compiled(profile, capabilities.names(mask))


def unusable(message: str, field: str = "") -> TinyoError:
    """SECCOMP_UNUSABLE."""
    return TinyoError(grpc.StatusCode.FAILED_PRECONDITION, "SECCOMP_UNUSABLE", message, {}, field)

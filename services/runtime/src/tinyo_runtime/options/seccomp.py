"""The system calls of a container are those of a profile, for its first process and all further ones alike."""

import asyncio
import binascii
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
        start.plan["seccomp"] = await asyncio.to_thread(own, asked, start.plan["capabilities"])
    else:
        start.plan["seccomp"] = program(start.plan["capabilities"])


@lru_cache(64)
def program(mask: int = harden.DEFAULT_CAPABILITIES) -> str:
    """Of the default profile, as a plan has it; made once, in 25 ms. Raises TinyoError SECCOMP_UNUSABLE."""
    try:
        return encoded(filters.compiled(capabilities.names(mask)))
    except OSError as error:
        raise unusable(
            f"the filter of system calls cannot be made: {error}; install the package libseccomp2"
        ) from None


def own(asked: Seccomp, mask: int) -> str:
    """Of a profile that the user brought. Raises TinyoError SECCOMP_UNUSABLE."""
    try:
        return compiled(asked.profile, mask)
    except (OSError, LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        message = f"the profile {asked.file} of system calls cannot be used: {error}"
        raise unusable(message, "security.seccomp") from None


@lru_cache(64)
def compiled(profile: str, mask: int) -> str:
    """By its text, as a plan has it."""
    return encoded(profiles.compiled(profile, capabilities.names(mask)))


def encoded(program: bytes) -> str:
    """As a plan has it."""
    return binascii.b2a_base64(program, newline=False).decode()


def unusable(message: str, field: str = "") -> TinyoError:
    """SECCOMP_UNUSABLE."""
    return TinyoError(grpc.StatusCode.FAILED_PRECONDITION, "SECCOMP_UNUSABLE", message, {}, field)

"""The capabilities of a container (capabilities(7)): the eleven that Podman gives, and what its spec changes of them."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import grpc
from tinyo.v1.security_pb2 import CAPABILITY_ALL, Capability, CapabilityChange

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.options import Start
from tinyo_runtime.spawner import harden


async def part(start: Start) -> None:
    """For its first process and further ones alike; and whether its programs gain privileges, which are a part of
    these. Raises TinyoError CAPABILITY_MISSING."""
    security = start.container.config.spec.security
    for index, one in enumerate(security.capabilities.add):
        if bits([one]) & ~ours():
            raise missing(Capability.Name(one).replace("CAPABILITY", "CAP", 1), index)
    start.plan["capabilities"] = mask(security.capabilities)
    start.plan["new_privileges"] = security.new_privileges


def mask(change: CapabilityChange) -> int:
    """As bits. All are those that we have ourselves, who may be in a container, too."""
    kept = 0 if CAPABILITY_ALL in change.drop else harden.DEFAULT_CAPABILITIES
    if CAPABILITY_ALL in change.add:
        kept = ours()
    return kept & ~bits(change.drop) | bits(change.add)


def bits(capabilities: Iterable[int]) -> int:
    """ALL is none of them."""
    return sum({1 << one - 1 for one in capabilities if 0 < one < CAPABILITY_ALL})


def names(mask: int) -> frozenset[str]:
    """By name, as profiles of system calls have them: "CAP_SYS_ADMIN"."""
    found = (name for name, one in Capability.items() if mask & bits([one]))
    return frozenset(name.replace("CAPABILITY", "CAP", 1) for name in found)


@cache
def ours() -> int:
    """Those that we can give to a container (proc_pid_status(5))."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("CapPrm:")[2].split()[0], 16)


def missing(name: str, index: int) -> TinyoError:
    """CAPABILITY_MISSING."""
    message = f"{name} cannot be given: the runtime has it not itself, or this kernel does not know it"
    failed, field = grpc.StatusCode.FAILED_PRECONDITION, f"security.capabilities.add[{index}]"
    return TinyoError(failed, "CAPABILITY_MISSING", message, {"capability": name}, field)

"""What a container may do to its kernel: what is no capability, and profiles that mean nothing."""

from collections.abc import Iterator

from tinyo.v1.container_pb2 import ContainerSpec
from tinyo.v1.security_pb2 import (
    CAPABILITY_UNSPECIFIED,
    SECCOMP_KIND_PROFILE,
    Capability,
    CapabilityChange,
    Seccomp,
)

from tinyo_node.checks.seccomp import Malformed, profile

#: Characters of the name of an AppArmor profile.
NAME_LIMIT = 255


def check(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    """What is wrong with `security` of a spec."""
    security = spec.security
    yield from capabilities(security.capabilities)
    yield from seccomp(security.seccomp)
    name = security.apparmor
    if len(name) > NAME_LIMIT or not name.isprintable() or name != name.strip():
        yield "security.apparmor", f"{name[:NAME_LIMIT]!r} is no name of an AppArmor profile"


def capabilities(change: CapabilityChange) -> Iterator[tuple[str, str]]:
    """Of what is added and dropped."""
    for field in ("add", "drop"):
        for index, one in enumerate(getattr(change, field)):
            if one == CAPABILITY_UNSPECIFIED or one not in Capability.values():
                yield f"security.capabilities.{field}[{index}]", f"{one} is no capability"
    for index, one in enumerate(change.drop):
        if one in change.add:
            name = Capability.Name(one).removeprefix("CAPABILITY_") if one in Capability.values() else one
            yield f"security.capabilities.drop[{index}]", f"{name} is added and dropped: say one of them"


def seccomp(seccomp: Seccomp) -> Iterator[tuple[str, str]]:
    """Of the system calls."""
    if seccomp.kind != SECCOMP_KIND_PROFILE:
        if seccomp.profile:
            yield "security.seccomp", "a profile of system calls is there, and is not asked for"
        return
    try:
        profile(seccomp.profile)
    except Malformed as error:
        yield "security.seccomp", f"profile {seccomp.file or 'of system calls'}: {error}"

"""The profile as a program for the kernel (seccomp(2), bpf(4)), made by libseccomp."""

import errno
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tinyo_runtime.libseccomp import BAD_ARCHITECTURE, Compare, Filter
from tinyo_runtime.options import profile

#: By machine: the ways into its kernel (AUDIT_ARCH_*, as libseccomp names them), its own first.
ARCHITECTURES = {
    "x86_64": (0xC000003E, 0x40000003, 0x4000003E),  # x86-64, i386, x32
    "aarch64": (0xC00000B7, 0x40000028),  # arm64, arm
}
#: New calls have one number on all machines from here on (Linux 5.1).
UNIFIED = 424
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
EQUAL, MASKED_EQUAL = 4, 7
_LOW = 0xFFFFFFFF

_I386, _SOCKETCALL = 0x40000003, 102
_LOAD, _AND, _JEQ, _JGE, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06


def missing_from(newer: int) -> tuple[tuple[int, int, int, int], ...]:
    """What comes before a program for which calls from that number on are as if the kernel did not have them, so that C
    libraries do without. They have one number everywhere from UNIFIED on; from 512 on are x32's own."""
    return (
        (_LOAD, 0, 0, 0),  # struct seccomp_data: number
        (_AND, 0, 0, _LOW ^ 1 << 30),  # without x32's bit
        (_JGE, 0, 2, newer),
        (_JGE, 1, 0, 512),
        (_RETURN, 0, 0, ERRNO | errno.ENOSYS),
    )


#: What comes before that of the default profile. libseccomp, asked for `socket`, would open socketcall(2) of i386 for
#: every family.
_BEFORE = (
    *missing_from(profile.NEWER),
    (_JEQ, 0, 3, _SOCKETCALL),
    (_LOAD, 0, 0, 4),  # architecture
    (_JEQ, 0, 1, _I386),
    (_RETURN, 0, 0, ERRNO | errno.EPERM),
)


@contextmanager
def begun(action: int, architectures: Iterable[int]) -> Iterator[Filter]:
    """A filter without rules, for this machine's own way into the kernel and further ones. OSError."""
    with Filter(action) as rules:
        rules.set(BAD_ARCHITECTURE, ERRNO | errno.ENOSYS)
        for architecture in architectures:
            rules.add_architecture(architecture)
        yield rules


def compiled(capabilities: frozenset[str] = frozenset()) -> bytes:
    """The program for a container that has these capabilities, by name ("CAP_SYS_CHROOT"). OSError."""
    with begun(ERRNO | errno.EPERM, ARCHITECTURES[os.uname().machine][1:]) as rules:
        allowed = profile.ALLOWED.union(*(profile.WITH_CAPABILITY.get(name, ()) for name in capabilities))
        for name in sorted(allowed):
            rules.add(ALLOW, name)
        for name in sorted(profile.MISSING - allowed):
            rules.add(ERRNO | errno.ENOSYS, name)
        if "clone" not in allowed:
            rules.add(ALLOW, "clone", Compare(0, MASKED_EQUAL, profile.NAMESPACES, 0))
        for value in profile.PERSONALITIES:
            rules.add(ALLOW, "personality", Compare(0, EQUAL, value, 0))
        for family in profile.FAMILIES:  # the kernel looks at 32 bits of it, and so do we
            rules.add(ALLOW, "socket", Compare(0, MASKED_EQUAL, _LOW, family))
        return packed(_BEFORE) + rules.program()


def packed(program: Iterable[tuple[int, int, int, int]]) -> bytes:
    """Instructions as the kernel has them (struct sock_filter)."""
    return b"".join(struct.pack("HBBI", *one) for one in program)

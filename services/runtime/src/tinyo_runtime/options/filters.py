"""The profile as a program for the kernel (seccomp(2), bpf(4)), made by libseccomp."""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache

from tinyo_runtime.options import profile

#: By machine: the ways into its kernel (AUDIT_ARCH_*, as libseccomp names them), its own first.
ARCHITECTURES = {
    "x86_64": (0xC000003E, 0x40000003, 0x4000003E),  # x86-64, i386, x32
    "aarch64": (0xC00000B7, 0x40000028),  # arm64, arm
}
#: New calls have one number on all machines from here on (Linux 5.1).
UNIFIED = 424
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
#: Attributes of a filter: what happens to unknown ways into the kernel; how it is searched, 2 is by a tree.
_BAD_ARCHITECTURE, _OPTIMIZE, _TREE = 2, 8, 2
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


class Compare(ctypes.Structure):
    """struct scmp_arg_cmp: an argument, by its place, compared with a value, or its bits with a value."""

    _fields_ = (
        ("place", ctypes.c_uint),
        ("how", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


@cache
def _library() -> ctypes.CDLL:
    """OSError when it is not there."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_release.restype = None
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Compare))
    ]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


class Rules:
    """A filter that comes into being."""

    def __init__(self, context: int) -> None:
        self._context = context

    def add(self, action: int, name: str, *compare: Compare) -> None:
        """One more rule; a name that the library does not know stays as all others are. OSError."""
        number = number_of(name)
        if number != -1:
            array = (Compare * len(compare))(*compare)
            what = (self._context, action, number, len(compare), array)
            _check(_library().seccomp_rule_add_array(*what), name)

    def exported(self) -> bytes:
        """As a program. OSError."""
        with open(os.memfd_create("seccomp"), "rb") as file:
            _check(_library().seccomp_export_bpf(self._context, file.fileno()), "seccomp_export_bpf")
            file.seek(0)
            return file.read()


@contextmanager
def begun(action: int, architectures: Iterable[int]) -> Iterator[Rules]:
    """A filter without rules, for this machine's own way into the kernel and further ones. OSError."""
    library = _library()
    context = library.seccomp_init(action)
    if not context:
        raise OSError(errno.ENOMEM, "seccomp_init")
    try:
        _check(library.seccomp_attr_set(context, _BAD_ARCHITECTURE, ERRNO | errno.ENOSYS), "bad architecture")
        _check(library.seccomp_attr_set(context, _OPTIMIZE, _TREE), "optimize")
        for architecture in architectures:
            _check(library.seccomp_arch_add(context, architecture), "seccomp_arch_add")
        yield Rules(context)
    finally:
        library.seccomp_release(context)


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
        return packed(_BEFORE) + rules.exported()


def packed(program: Iterable[tuple[int, int, int, int]]) -> bytes:
    """Instructions as the kernel has them (struct sock_filter)."""
    return b"".join(struct.pack("HBBI", *one) for one in program)


def number_of(name: str) -> int:
    """Of a call on this machine; negative when it has none."""
    return int(_library().seccomp_syscall_resolve_name(name.encode()))


def _check(result: int, what: str) -> None:
    if result:
        raise OSError(-result, os.strerror(-result), what)

"""libseccomp by ctypes: rules about system calls, by name, become a program for the kernel (seccomp(2), bpf(4)).

with Filter(ERRNO | errno.EPERM) as filter:
    filter.add(ALLOW, "read")
    filter.program()
"""

import ctypes
import errno
import os
from functools import cache

#: Attributes of a filter: what happens to unknown ways into the kernel; how it is searched, 2 is by a tree.
BAD_ARCHITECTURE, _OPTIMIZE, _TREE = 2, 8, 2
#: What happens at a call, as libseccomp names it; ERRNO and TRACE have a number besides.
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000, "SCMP_ACT_KILL_THREAD": 0x00000000, "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000, "SCMP_ACT_ERRNO": 0x00050000, "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000, "SCMP_ACT_ALLOW": 0x7FFF0000,
}  # fmt: skip
OPERATORS = {
    "SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5, "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}  # fmt: skip
#: AUDIT_ARCH_* with libseccomp's bit for x32.
ARCHITECTURES = {
    "SCMP_ARCH_X86": 0x40000003, "SCMP_ARCH_X86_64": 0xC000003E, "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_ARM": 0x40000028, "SCMP_ARCH_AARCH64": 0xC00000B7,
}  # fmt: skip


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


class Filter:
    """What happens at each call, and with `default` at all others. Every method raises OSError."""

    def __init__(self, default: int) -> None:
        self._context = _library().seccomp_init(default)
        if not self._context:
            raise OSError(errno.ENOMEM, "seccomp_init")

    def __enter__(self) -> "Filter":
        self.set(_OPTIMIZE, _TREE)
        return self

    def __exit__(self, *_: object) -> None:
        _library().seccomp_release(self._context)

    def set(self, attribute: int, value: int) -> None:
        """One attribute of the filter."""
        _check(_library().seccomp_attr_set(self._context, attribute, value), f"attribute {attribute}")

    def add_architecture(self, architecture: int) -> None:
        """A further way into the kernel, for which the rules hold as well."""
        added = _library().seccomp_arch_add(self._context, architecture)
        _check(0 if added == -errno.EEXIST else added, "seccomp_arch_add")

    def add(self, action: int, name: str, *compare: Compare) -> None:
        """One rule, that holds when all comparisons do. A name that the library does not know stays as it is."""
        number = number_of(name)
        if number != -1:
            array = (Compare * len(compare))(*compare)
            added = _library().seccomp_rule_add_array(self._context, action, number, len(compare), array)
            _check(0 if added == -errno.EEXIST else added, name)

    def program(self) -> bytes:
        """For the kernel."""
        with open(os.memfd_create("seccomp"), "rb") as file:
            _check(_library().seccomp_export_bpf(self._context, file.fileno()), "seccomp_export_bpf")
            file.seek(0)
            return file.read()


def ways(comparisons: list[Compare]) -> list[list[Compare]]:
    """Comparisons of one call's arguments: all must hold; but where an argument is compared twice, each by itself is
    enough, as Docker's profiles mean it (as in runc)."""
    places = {one.place for one in comparisons}
    return [[one] for one in comparisons] if len(places) < len(comparisons) else [comparisons]


def number_of(name: str) -> int:
    """Of a call on this machine; negative when it has none."""
    return int(_library().seccomp_syscall_resolve_name(name.encode()))


def _check(result: int, what: str) -> None:
    if result:
        raise OSError(-result, os.strerror(-result), what)

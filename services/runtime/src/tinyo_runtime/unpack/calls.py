"""The system calls that unpacking makes; the kernel has no others for this process from then on (seccomp(2)).

They are answered with "no such call", which every C library understands. What is allowed whatever its arguments are
costs nothing: the kernel keeps a table of those, and runs the filter only for the rest.
"""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator

from tinyo_runtime.unpack.libc import call

_X86 = os.uname().machine == "x86_64"
#: AUDIT_ARCH_*; seccomp, clone, fcntl.
_ARCHITECTURE = 0xC000003E if _X86 else 0xC00000B7
_SECCOMP, _CLONE, _FCNTL = (317, 56, 72) if _X86 else (277, 220, 25)

#: By name: numbers for x86_64 and aarch64.
ALLOWED = {
    # the layer's files
    "openat": (257, 56), "close": (3, 57), "write": (1, 64), "lseek": (8, 62), "ftruncate": (77, 46),
    "mkdirat": (258, 34), "mknodat": (259, 33), "symlinkat": (266, 36), "linkat": (265, 37), "unlinkat": (263, 35),
    "fchown": (93, 55), "fchownat": (260, 54), "fchmod": (91, 52), "fchmodat": (268, 53), "utimensat": (280, 88),
    "fsetxattr": (190, 7), "fstat": (5, 80), "newfstatat": (262, 79), "getdents64": (217, 61),
    # what comes and what is said
    "read": (0, 63), "readv": (19, 65), "dup": (32, 23),
    # memory
    "brk": (12, 214), "mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226),
    "madvise": (28, 233),
    # threads and signals
    "futex": (202, 98), "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "gettid": (186, 178),
    "set_robust_list": (273, 99), "rseq": (334, 293), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "restart_syscall": (219, 128),
    "clock_gettime": (228, 113), "clock_nanosleep": (230, 115), "getrandom": (318, 278),
    "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
#: Of clone(2): a thread of this process, and nothing that is new but that.
_THREAD, _NEW = 0x00010000, 0x7E020000
#: Of fcntl(2): not F_SETOWN and F_SETSIG, which would send signals to anybody.
_DESCRIPTORS = (fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL)

_LOAD, _AND, _EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
#: Where struct seccomp_data has them: number, architecture, and the low halves of the first two arguments.
_NUMBER_AT, _ARCHITECTURE_AT, _FLAGS_AT, _COMMAND_AT = 0, 4, 16, 24
_ALLOW, _REFUSE = (_RETURN, 0, 0, 0x7FFF0000), (_RETURN, 0, 0, 0x00050000 | errno.ENOSYS)
_SET_FILTER, _SPECULATION_AS_BEFORE = 1, 4


def only_needed() -> None:
    """Loads the filter, for good; after no_new_privs. Raises OSError."""
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in _program())
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HQ", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
    call("syscall", _SECCOMP, _SET_FILTER, _SPECULATION_AS_BEFORE, head, of="seccomp")


def _program() -> Iterator[tuple[int, int, int, int]]:
    """Instructions of bpf(4): code, how many to skip if true and if false, value."""
    yield from ((_LOAD, 0, 0, _ARCHITECTURE_AT), (_EQUAL, 1, 0, _ARCHITECTURE), _REFUSE)
    yield (_LOAD, 0, 0, _NUMBER_AT)
    for numbers in ALLOWED.values():
        yield from ((_EQUAL, 0, 1, numbers[not _X86]), _ALLOW)
    yield from ((_EQUAL, 0, 5, _CLONE), (_LOAD, 0, 0, _FLAGS_AT), (_AND, 0, 0, _THREAD | _NEW))
    yield from ((_EQUAL, 0, 1, _THREAD), _ALLOW, _REFUSE)
    yield from ((_EQUAL, 1, 0, _FCNTL), _REFUSE, (_LOAD, 0, 0, _COMMAND_AT))
    for command in _DESCRIPTORS:
        yield from ((_EQUAL, 0, 1, command), _ALLOW)
    yield _REFUSE

"""The program for the kernel does what the profile says, by every entry: it is run here call by call."""

import ctypes
import errno
import os
import struct

import pytest
from tinyo_runtime.options import filters, profile

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the entries are those of x86-64")

X86_64, I386, X32 = filters.ARCHITECTURES["x86_64"]
ALLOWED, REFUSED, MISSING = filters.ALLOW, filters.ERRNO | errno.EPERM, filters.ERRNO | errno.ENOSYS
BY_ARGUMENTS = {"clone", "personality", "socket"}


def answer(program: bytes, entry: int, number: int, argument: int = 0) -> int:
    """What a program of bpf(4) says of a call."""
    if entry == X32:
        entry, number = X86_64, number | 1 << 30
    data = struct.pack("<IIQ6Q", number, entry, 0, argument, *[0] * 5)
    value = place = 0
    while True:
        code, yes, no, k = struct.unpack_from("HBBI", program, 8 * place)
        place += 1
        match code:
            case 0x20:
                (value,) = struct.unpack_from("<I", data, k)
            case 0x54:
                value &= k
            case 0x05:
                place += k
            case 0x15:
                place += yes if value == k else no
            case 0x25:
                place += yes if value > k else no
            case 0x35:
                place += yes if value >= k else no
            case _:
                assert code == 0x06, f"instruction {code:#x}"
                return int(k)


@pytest.fixture(scope="module")
def program() -> bytes:
    return filters.compiled(frozenset({"CAP_SYS_CHROOT"}))


@pytest.mark.parametrize("entry", [X86_64, I386, X32])
def test_every_number(program: bytes, entry: int) -> None:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p
    library.seccomp_syscall_resolve_num_arch.argtypes = [ctypes.c_uint32, ctypes.c_int]
    allowed = profile.ALLOWED | BY_ARGUMENTS | profile.WITH_CAPABILITY["CAP_SYS_CHROOT"]
    for number in range(1000):
        found = library.seccomp_syscall_resolve_num_arch(entry, number | (entry == X32) << 30)
        name = found.decode() if found else ""
        expected = ALLOWED if name in allowed else REFUSED
        if name in profile.MISSING or profile.NEWER <= number < 512:
            expected = MISSING
        assert answer(program, entry, number) == expected, (number, name)


@pytest.mark.parametrize(
    ("calls", "values", "expected"),
    [
        (((X86_64, 41), (I386, 359), (X32, 41)), (0, 1, 2, 10, 16, 17, 37, 39, 41, 45), ALLOWED),
        (((X86_64, 41), (I386, 359), (X32, 41)), (38, 40, 46, 1 << 32 | 38, 1 << 63 | 40), REFUSED),
        (((I386, 102),), range(21), REFUSED),
        (((X86_64, 56), (I386, 120), (X32, 56)), (17, 0x3D0F00, 0x1200011), ALLOWED),
        (((X86_64, 56), (I386, 120), (X32, 56)), (0x20000, 0x10000011, 1 << 32 | 0x40000000), REFUSED),
        (((X86_64, 135), (I386, 136), (X32, 135)), profile.PERSONALITIES, ALLOWED),
        (((X86_64, 135), (I386, 136), (X32, 135)), (0x40000, 0x400000), REFUSED),
        (((0xC00000B7, 64),), (0,), MISSING),  # another machine's
    ],
)
def test_arguments(
    program: bytes, calls: tuple[tuple[int, int], ...], values: tuple[int, ...], expected: int
) -> None:
    for entry, number in calls:
        for value in values:
            assert answer(program, entry, number, value) == expected, (hex(entry), number, hex(value))

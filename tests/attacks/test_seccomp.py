"""Attacks on the kernel by calls that no container needs, through each of its three entries.

Arguments are such that the kernel, where it is reached, refuses them before it looks at privileges: what comes back
tells whether it was reached.
"""

import asyncio
import errno
import os
from typing import Any

import pytest
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.failures import SpawnError
from tinyo_runtime.options import filters, profile, seccomp

from tests.support.box import Box, InBox, line, python

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")

#: With DAC_READ_SEARCH and SYS_ADMIN: some kernels look first whether open_by_handle_at(2) and bpf(2) may be made.
CAPABLE = {"capabilities": 0x800405FB | 1 << 2 | 1 << 21}
#: An instruction of bpf(4) that allows every call. The kernel takes 4,096 instructions.
ALLOWS = b"\x06\0\0\0\0\0\xff\x7f"

#: By name: number and arguments. 1 is no address, and -1 no descriptor.
NATIVE = {
    "unshare": (272, 0x10000001),  # CLONE_NEWUSER
    "clone": (56, 0x20200),  # CLONE_NEWNS and CLONE_FS, which exclude each other
    "clone with a user namespace": (56, 0x10000200),
    "mount": (165, 1, 1, 1, 0, 0),
    "bpf": (321, 0, 0, 1 << 20),
    "open_by_handle_at": (304, -1, 1, 0),
    "userfaultfd": (323, 1 | 1 << 4),
    "perf_event_open": (298, 0, 0, 0, 0, 1 << 20),
    "io_uring_setup": (425, 1, 1),
    "setns": (308, -1, 0),
    "personality": (135, 0x40000),  # ADDR_NO_RANDOMIZE
    "socket of AF_ALG": (41, 38, 5, 0),
    "socket of AF_VSOCK": (41, 40, 1, 0),
    "socket of AF_ALG, and a bit that the kernel does not look at": (41, 1 << 32 | 38, 5, 0),
}
#: Through int 0x80.
I386 = {
    "unshare": (310, 0x10000001),
    "mount": (21, 1, 1, 1),
    "bpf": (357, 0, 0, 1 << 20),
    "userfaultfd": (374, 1 | 1 << 4),
    "socket of AF_ALG": (359, 38, 5, 0),
    "socketcall": (102, 1, 1),  # SYS_SOCKET
}
X32 = 1 << 30


def inside(calls: str, stay: str = "") -> None:
    """Makes calls, "entry number arguments" each, and prints their errors (0 for none); may stay then."""
    import ctypes
    import mmap
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    # push rbx; mov eax, edi; mov ebx, esi; xchg ecx, edx; int 0x80; pop rbx; ret
    page.write(bytes.fromhex("53 89f8 89f3 87d1 cd80 5b c3"))
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    i386 = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint] * 4)(address)
    results = []
    for call in calls.split(";"):
        entry, *values = call.split()
        arguments = [int(value) for value in values] + [0] * (7 - len(values))
        if entry == "i386":
            results.append(max(0, -i386(*(value & 0xFFFFFFFF for value in arguments[:4]))))
        else:
            ctypes.set_errno(0)
            result = libc.syscall(*map(ctypes.c_long, arguments))
            if result == 0 and arguments[0] == 56:
                os._exit(0)  # a child that should not be
            results.append(ctypes.get_errno() if result < 0 else 0)
    print(*results, flush=True)
    if stay:
        input()


def calls() -> dict[str, str]:
    """What is tried, by entry and name."""
    found = {f"x86-64: {name}": ("x86-64", *call) for name, call in NATIVE.items()}
    found |= {f"i386: {name}": ("i386", *call) for name, call in I386.items()}
    found |= {
        f"x32: {name}": ("x32", number | X32, *arguments)
        for name, (number, *arguments) in NATIVE.items()
        if name in ("unshare", "mount", "userfaultfd", "setns")
    }
    return {name: " ".join(map(str, call)) for name, call in found.items()}


@pytest.mark.parametrize("how", ["start", "exec"])
@pytest.mark.parametrize("filtered", [True, False])
def test_calls_that_no_container_needs(box: InBox, how: str, filtered: bool) -> None:
    """Without the filter each of them reaches the kernel: this is what makes the attempt an attack."""
    tried = calls()
    text = ";".join(tried.values())
    plan: dict[str, Any] = CAPABLE | ({"seccomp": seccomp.program()} if filtered else {})

    async def check(box: Box) -> None:
        process = await box.run_python("c", inside, text, "stay", **plan)
        results = await line(process.stdout)
        if how == "exec":
            process = await box.join(process, "e", *python(inside, text), **plan)
            results = await line(process.stdout)
            await asyncio.wait_for(process.exited, 20)
        found = dict(zip(tried, map(int, results.split()), strict=True))
        refused = {name for name, error in found.items() if error == errno.EPERM}
        assert refused == ({*tried} if filtered else set()), found

    box(check)


def test_what_the_kernel_does_not_have(box: InBox) -> None:
    """C libraries do without calls that they are told are missing; with EPERM they would give up."""

    async def check(box: Box) -> None:
        tried = ["x86-64 435 0 0", "x86-64 250 0", f"x86-64 {profile.NEWER + 2} -1 1 0 0", "x86-64 511"]
        process = await box.run_python("c", inside, ";".join(tried), seccomp=seccomp.program())
        assert (await line(process.stdout)).split() == [str(errno.ENOSYS)] * len(tried)

    box(check)


def test_a_filter_that_is_none_starts_nothing(box: InBox) -> None:
    """A plan whose filter cannot be read, or that the kernel refuses, is not one without a filter."""

    async def check(box: Box) -> None:
        for program in (b"", b"AAAA", b"A" * 8, ALLOWS * 4097):
            with pytest.raises(SpawnError) as caught:
                await box.start("c", "true", seccomp=program)
            assert caught.value.step == "drop_privileges"

    box(check)


def test_without_the_library_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """One clear error, which says what to do."""

    def missing(capabilities: frozenset[str]) -> bytes:
        raise OSError("libseccomp.so.2: cannot open shared object file")

    monkeypatch.setattr(filters, "compiled", missing)
    seccomp.program.cache_clear()
    with pytest.raises(TinyoError) as caught:
        seccomp.program()
    assert caught.value.reason == "SECCOMP_UNUSABLE"

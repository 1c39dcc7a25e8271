"""Programs of a few system calls (syscall(2)), static and without a library, so that no image needs to have a compiler
or an interpreter. The exit code of one is the errno of its last call, 0 when that succeeded."""

import os
import struct

#: Where a program is in its memory (elf(5)), and the bytes before its first instruction.
BASE, HEADERS = 0x400000, 120
MACHINES = {"x86_64": 62, "aarch64": 183}
#: mov to rdi, rsi, rdx, r10, r8, r9, a constant of 64 bits.
REGISTERS = (b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x49\xba", b"\x49\xb8", b"\x49\xb9")

#: A number or, as bytes, what the address of is passed.
Argument = int | bytes
#: Its number, and what it is called with.
Call = tuple[int, tuple[Argument, ...]]


def program(*calls: Call, machine: str = "") -> bytes:
    """One that makes these calls, one after the other, for a machine as uname(2) calls it: this one."""
    machine = machine or os.uname().machine
    code = _code(calls, machine, 0)
    code, data = _code(calls, machine, BASE + HEADERS + len(code)), _data(calls)
    size = HEADERS + len(code) + len(data)
    head = struct.pack(
        "<16s2HI3QI6H",
        *(b"\x7fELF\2\1\1", 2, MACHINES[machine], 1, BASE + HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0),
    )
    segment = struct.pack("<2I6Q", 1, 5, 0, BASE, BASE, size, size, 4096)  # PT_LOAD, to read and run
    return head + segment + code + data


def _data(calls: tuple[Call, ...]) -> bytes:
    return b"".join(one + b"\0" for _, arguments in calls for one in arguments if isinstance(one, bytes))


def _code(calls: tuple[Call, ...], machine: str, data: int) -> bytes:
    """Instructions, with the addresses of what lies from `data` on."""
    code = b""
    for number, arguments in calls:
        values = []
        for one in arguments:
            values.append(data if isinstance(one, bytes) else one)
            data += len(one) + 1 if isinstance(one, bytes) else 0
        code += (_x86_64 if machine == "x86_64" else _aarch64)(number, values)
    if machine == "x86_64":  # xor edi, edi; test rax, rax; jns; sub rdi, rax; mov eax, 60 (exit); syscall
        return code + bytes.fromhex("31ff 4885c0 7903 4829c7 b83c000000 0f05")
    # cmp x0, 0; csneg x0, xzr, x0, ge; mov x8, 93 (exit); svc 0
    return (
        code + struct.pack("<2I", 0xF100001F, 0xDA80A7E0) + _constant(8, 93) + struct.pack("<I", 0xD4000001)
    )


def _x86_64(number: int, values: list[int]) -> bytes:
    moves = [move + _word(value) for move, value in zip(REGISTERS, values, strict=False)]
    return b"".join(moves) + b"\x48\xb8" + _word(number) + b"\x0f\x05"


def _aarch64(number: int, values: list[int]) -> bytes:
    moves = [_constant(register, value) for register, value in enumerate(values)]
    return b"".join(moves) + _constant(8, number) + struct.pack("<I", 0xD4000001)


def _constant(register: int, value: int) -> bytes:
    """movz, and movk for what is above 16 bits."""
    parts = struct.unpack("<4H", _word(value))
    return b"".join(
        struct.pack("<I", (0xF2800000 if place else 0xD2800000) | place << 21 | part << 5 | register)
        for place, part in enumerate(parts)
    )


def _word(value: int) -> bytes:
    return struct.pack("<Q", value & (1 << 64) - 1)

"""bpf(2) without a compiler: instructions by hand (Documentation/bpf/standardization/instruction-set.rst), and the two
calls that a device filter needs."""

import ctypes
import os
import struct

from tinyo_runtime.spawner import syscalls as sys

SYS_bpf = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
BPF_PROG_LOAD, BPF_PROG_ATTACH = 5, 8
BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE = 15, 6
#: Programs of cgroups above and below count as well: all must allow (systemd attaches its own to units).
BPF_F_ALLOW_MULTI = 2

#: Registers; the first has the result, the second (R1) the context at the beginning.
R0, R1, R2, R3, R4, R5 = range(6)


def instruction(code: int, to: int = 0, of: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """One instruction: `offset` is in bytes of memory or, for jumps, in instructions that are left out."""
    return struct.pack("<BBhi", code, of << 4 | to, offset, value)


def load_word(to: int, of: int, offset: int) -> bytes:
    """32 bits of memory."""
    return instruction(0x61, to, of, offset)


def copy(to: int, of: int) -> bytes:
    """32 bits of another register."""
    return instruction(0xBC, to, of)


def mask(to: int, value: int) -> bytes:
    """A bitwise and, of 32 bits."""
    return instruction(0x54, to, value=value)


def shift_right(to: int, bits: int) -> bytes:
    """By so many bits, of 32."""
    return instruction(0x74, to, value=bits)


def unless_equal(register: int, value: int, skip: int) -> bytes:
    """Leaves out the next `skip` instructions when it is something else."""
    return instruction(0x55, register, offset=skip, value=value)


def unless_same(register: int, other: int, skip: int) -> bytes:
    """Leaves out the next `skip` instructions when two registers differ."""
    return instruction(0x5D, register, other, offset=skip)


def answer(value: int) -> bytes:
    """The program ends with this result."""
    return instruction(0xB7, R0, value=value) + instruction(0x95)


def load(program: bytes) -> int:
    """A descriptor of a program for devices that the kernel has verified; its text was not derived from anybody's."""
    code, license = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(b"")
    # union bpf_attr: prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags,
    # prog_name, prog_ifindex, expected_attach_type
    attributes = struct.pack(
        "2I2Q2IQ2I16s2I",
        *(BPF_PROG_TYPE_CGROUP_DEVICE, len(program) // 8, ctypes.addressof(code), ctypes.addressof(license)),
        *(0, 0, 0, 0, 0, b"tinyo_devices", 0, BPF_CGROUP_DEVICE),
    )
    return sys.syscall(SYS_bpf, "bpf(BPF_PROG_LOAD)", BPF_PROG_LOAD, attributes, len(attributes))


def attach(program: bytes, cgroup: int) -> None:
    """To a cgroup of v2, by its descriptor; it goes with the cgroup."""
    fd = load(program)
    # union bpf_attr: target_fd, attach_bpf_fd, attach_type, attach_flags
    attributes = struct.pack("4I", cgroup, fd, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI)
    try:
        sys.syscall(SYS_bpf, "bpf(BPF_PROG_ATTACH)", BPF_PROG_ATTACH, attributes, len(attributes))
    finally:
        os.close(fd)

"""Which devices the processes of a cgroup may use: the kernel asks at every open(2) and mknod(2), whoever does it.

restrict(cgroup, (*DEFAULT, Rule("c", 10, 229, "rw")))

What no rule allows is refused. v1 has files for that (Documentation/admin-guide/cgroup-v1/devices.rst), v2 a program of
BPF that is attached to the cgroup, holds for all below it, and goes with it (cgroup-v2.rst, "Device controller").
"""

import os
import stat
from pathlib import Path
from typing import NamedTuple

from tinyo_runtime.devices import bpf

#: As the kernel passes them (linux/bpf.h, BPF_DEVCG_*).
KINDS = {"b": 1, "c": 2}
ACCESSES = {"m": 1, "r": 2, "w": 4}
REFUSED, ALLOWED = 0, 1


class Rule(NamedTuple):
    """One device, or several: None stands for every number."""

    #: "c" (character) or "b" (block).
    kind: str
    major: int | None
    minor: int | None
    #: Some of "r" (read), "w" (write) and "m" (make nodes).
    access: str


#: Nodes can be made of everything, which needs a capability and opens nothing; null, zero, full, random, urandom, tty,
#: ptmx and terminals can be used. The OCI runtime specification wants these; the host's console is not among them.
DEFAULT = (
    Rule("c", None, None, "m"), Rule("b", None, None, "m"),
    *(Rule("c", 1, minor, "rwm") for minor in (3, 5, 7, 8, 9)),
    Rule("c", 5, 0, "rwm"), Rule("c", 5, 2, "rwm"), Rule("c", 136, None, "rwm"),
)  # fmt: skip


def of_node(status: os.stat_result, access: str) -> Rule:
    """The rule that allows the device of a node."""
    kind = "b" if stat.S_ISBLK(status.st_mode) else "c"
    return Rule(kind, os.major(status.st_rdev), os.minor(status.st_rdev), access)


def restrict(cgroup: Path, rules: tuple[Rule, ...]) -> None:
    """From now on its processes may use these devices alone. A hierarchy that has no say in this is left as it is."""
    if os.path.exists(f"{cgroup}/devices.deny"):
        write(f"{cgroup}/devices.deny", "a")
        write(f"{cgroup}/devices.allow", *map(said, rules))
    elif (cgroup / "cgroup.controllers").exists():
        folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            bpf.attach(program_of(rules), folder)
        finally:
            os.close(folder)


def said(rule: Rule) -> str:
    """As v1 reads it: "c 10:229 rw"."""
    major, minor = ("*" if number is None else number for number in (rule.major, rule.minor))
    return f"{rule.kind} {major}:{minor} {rule.access}"


def write(path: str, *values: str) -> None:
    """One value after the other into a file that is there. OSError says what."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for value in values:
            os.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"{path}: {value}") from None
    finally:
        os.close(fd)


def program_of(rules: tuple[Rule, ...]) -> bytes:
    """What is asked is compared with one rule after the other; the first that fits allows it.

    struct bpf_cgroup_dev_ctx has the kind in the lower and the access in the upper half of its first word, then major
    and minor.
    """
    kind, access, major, minor, scratch = bpf.R2, bpf.R3, bpf.R4, bpf.R5, bpf.R1
    program = bpf.load_word(kind, bpf.R1, 0) + bpf.mask(kind, 0xFFFF)
    program += bpf.load_word(access, bpf.R1, 0) + bpf.shift_right(access, 16)
    program += bpf.load_word(major, bpf.R1, 4) + bpf.load_word(minor, bpf.R1, 8)
    for rule in rules:
        allowed = sum(ACCESSES[one] for one in set(rule.access))
        wanted = ((kind, KINDS[rule.kind]), (major, rule.major), (minor, rule.minor))
        tests = [(register, number) for register, number in wanted if number is not None]
        left = len(tests) + 5  # instructions of this rule
        for register, number in tests:
            left -= 1
            program += bpf.unless_equal(register, number, left)
        program += bpf.copy(scratch, access) + bpf.mask(scratch, allowed)
        program += bpf.unless_same(scratch, access, 2) + bpf.answer(ALLOWED)
    return program + bpf.answer(REFUSED)

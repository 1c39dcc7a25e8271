"""System calls that no container needs, and that let many out of theirs.

Arguments are such that the kernel would refuse them, with another error, if the call got that far; none does harm.
"""

import errno
import os
import subprocess
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from tinyo_ctl.attacks import Attack, Outcome, broken, elf, held, impossible

if TYPE_CHECKING:
    from tinyo_ctl.attacks.ground import Ground

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
AF_INET, AF_PACKET, AF_ALG, AF_VSOCK, SOCK_STREAM, SOCK_RAW, SOCK_SEQPACKET = 2, 17, 38, 40, 1, 3, 5
KEYCTL_GET_KEYRING_ID, USER = 0, -4
#: Numbers on x86-64 and arm64.
NUMBERS = {
    "access": (269, 48),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chdir": (80, 49),
    "chroot": (161, 51),
    "clock_settime": (227, 112),
    "close": (3, 57),
    "finit_module": (313, 273),
    "fsopen": (430, 430),
    "getpid": (39, 172),
    "io_uring_setup": (425, 425),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "mkdir": (258, 34),
    "open_by_handle_at": (304, 265),
    "perf_event_open": (298, 241),
    "setns": (308, 268),
    "setuid": (105, 146),
    "socket": (41, 198),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
AT_FDCWD = -100
#: A bit in the numbers of x86-64's third door, x32.
X32 = 1 << 30


def call(name: str, *arguments: elf.Argument) -> elf.Call:
    """One call, by its name, for this machine."""
    return NUMBERS[name][os.uname().machine != "x86_64"], arguments


#: By the name of the program: what is tried, the hole, the call.
TRIED: dict[str, tuple[str, str, elf.Call]] = {
    "user": (
        "be root in a new user namespace",
        "CVE-2022-0185",
        call("unshare", CLONE_NEWUSER),
    ),
    "fsopen": ("open a file system to mount (fsopen)", "CVE-2022-0185", call("fsopen", 0, 0)),
    "setns": ("enter another namespace (setns)", "", call("setns", -1, 0)),
    "bpf": ("load a program into the kernel (bpf)", "CVE-2017-16995", call("bpf", 5, 0, 0)),
    "uring": ("set up io_uring", "CVE-2022-29582", call("io_uring_setup", 1, 0)),
    "perf": ("watch the kernel (perf_event_open)", "CVE-2013-2094", call("perf_event_open", 0, 0, -1, -1, 0)),
    "fault": ("hold the kernel in a page fault (userfaultfd)", "", call("userfaultfd", 0)),
    "key": ("add a key to the kernel (add_key)", "CVE-2016-0728", call("add_key", 0, 0, 0, 0, USER)),
    "keys": ("find the keys of the host's root (keyctl)", "", call("keyctl", KEYCTL_GET_KEYRING_ID, USER, 0)),
    "handle": ("open a file of the host by its inode (shocker)", "", call("open_by_handle_at", -1, 0, 0)),
    "module": ("load a kernel module", "", call("finit_module", -1, b"", 0)),
    "kexec": ("load another kernel (kexec)", "", call("kexec_load", 0, 99, 0, 0)),
    "clock": ("set the host's clock", "", call("clock_settime", 0, 0)),
    "alg": ("use the kernel's ciphers (AF_ALG)", "", call("socket", AF_ALG, SOCK_SEQPACKET, 0)),
    "vsock": (
        "talk to the hypervisor (AF_VSOCK)",
        "CVE-2021-26708",
        call("socket", AF_VSOCK, SOCK_STREAM, 0),
    ),
    "packet": (
        "send and read raw frames (AF_PACKET)",
        "CVE-2020-14386",
        call("socket", AF_PACKET, SOCK_RAW, 0),
    ),
    "raw": ("send with a source that is not its own", "", call("socket", AF_INET, SOCK_RAW, 255)),
    "setuid": ("become root by a setuid program, as nobody", "", call("setuid", 0)),
}
#: Tried by a user without privileges.
AS_NOBODY = {"setuid"}
#: What a kernel says that has no such call, or no such family of sockets; and what one says that refuses.
LACKING = {errno.ENOSYS, errno.EAFNOSUPPORT}
REFUSED = {errno.EPERM, errno.EACCES, *LACKING}
#: How a broken program or call would be noticed: by name, what it must end with.
CONTROLS = {"control": (call("getpid"), 0), "error": (call("close", -1), errno.EBADF)}


@cache
def programs(outside: str) -> dict[str, bytes]:
    """All of them by name; `outside` is a file of the host."""
    made = {name: elf.program(tried) for name, (_, _, tried) in TRIED.items()}
    made |= {name: elf.program(control) for name, (control, _) in CONTROLS.items()}
    if os.uname().machine == "x86_64":
        number, arguments = call("unshare", CLONE_NEWUSER)
        made["x32"] = elf.program((number | X32, arguments))
    made["chroot"] = elf.program(
        call("mkdir", AT_FDCWD, b"/tmp/jail", 0o700),
        call("chroot", b"/tmp/jail"),  # and the working directory stays outside of it
        call("chdir", b"../../../../../../../../.."),
        call("chroot", b"."),
        call("access", AT_FDCWD, os.fsencode(outside), 0),
    )
    return made


@cache
def known(program: bytes) -> bool:
    """Whether the kernel has what a program calls: it is run here, by root of the host, where nothing is refused."""
    memory = os.memfd_create("attack")
    os.write(memory, program)
    reader = os.open(f"/proc/self/fd/{memory}", os.O_RDONLY)
    os.close(memory)  # what is open to be written cannot be run (ETXTBSY)
    try:
        return subprocess.run([f"/proc/self/fd/{reader}"], pass_fds=[reader]).returncode not in LACKING
    finally:
        os.close(reader)


def refused(name: str) -> "Callable[[Ground], Outcome]":
    """An attack that is held when the kernel does not even look at what is asked for."""

    def run(ground: "Ground") -> Outcome:
        if name not in AS_NOBODY and not known(programs(ground.outside)[name]):
            return impossible("this kernel has none")
        code, _ = ground.run(f"/attack/{name}", user="65534:65534" if name in AS_NOBODY else "")
        if code in REFUSED:
            return held()
        return broken(
            "the call succeeded" if code == 0 else f"the call got through ({errno.errorcode.get(code, code)})"
        )

    return run


def doors(ground: "Ground") -> Outcome:
    """The same kernel has a second set of numbers on x86-64."""
    if os.uname().machine != "x86_64":
        return impossible("only x86-64 has this door")
    return refused("x32")(ground)


def jail(ground: "Ground") -> Outcome:
    """What root does in a chroot(2), which is not what a container is made of."""
    code, _ = ground.run("/attack/chroot")
    return held() if code else broken(f"{ground.outside} of the host can be seen")


ATTACKS = (
    *(Attack(what, cve, refused(name)) for name, (what, cve, _) in TRIED.items()),
    Attack("the first by another door of the kernel (x32)", "", doors),
    Attack("climb out by chroot", "", jail),
)

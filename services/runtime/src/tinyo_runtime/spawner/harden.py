"""What makes a container safer than its namespaces alone: called from the steps of enter.py by name.

A container would run without any of this, and somebody in it would own the host.
"""

import ctypes
import errno
import os
import resource
import signal
import stat
import struct
import sys as python
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyo_runtime.spawner import asked, users
from tinyo_runtime.spawner import syscalls as sys

if TYPE_CHECKING:
    from tinyo_runtime.spawner.enter import Plan

#: The default capabilities of podman (containers-common): chown, dac_override, fowner, fsetid, kill,
#: setgid, setuid, setpcap, net_bind_service, sys_chroot, setfcap.
DEFAULT_CAPABILITIES = 0x800405FB
#: As a bit.
CAP_SYS_ADMIN = 1 << 21
LAST_CAPABILITY = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
PAGE = 4096

#: What Python ignores, which exec would pass on.
IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)

PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

sys.libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4

KEYCTL_JOIN_SESSION_KEYRING = 1
SYS_capset, SYS_rt_sigaction, SYS_keyctl, SYS_seccomp = {
    "x86_64": (126, 13, 250, 317),
    "aarch64": (91, 134, 219, 277),
}[os.uname().machine]

#: By way into the kernel (AUDIT_ARCH_*): the number of add_key(2); request_key(2) and keyctl(2) follow it.
KEY_CALLS = {
    "x86_64": ((0xC000003E, 248), (0x40000003, 286)),
    "aarch64": ((0xC00000B7, 217), (0x40000028, 309)),
}[os.uname().machine]
X32 = 1 << 30  # a bit in the numbers of x86-64's third way; nobody else has it
BPF_LOAD, BPF_AND, BPF_JEQ, BPF_JGT, BPF_JGE, BPF_RETURN = 0x20, 0x54, 0x15, 0x25, 0x35, 0x06
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1, 4
#: Bytes of the largest program that the kernel takes (BPF_MAXINSNS); of a larger one it must see that it is.
MAX_PROGRAM = 4096 * 8
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000


def protect_spawner() -> None:
    """In our mount namespace the interpreter cannot be written to (CVE-2019-5736); signals, umask and the number
    of open files are no matter of whoever started us."""
    assert len(os.listdir("/proc/self/task")) == 1, "a spawner has one thread"
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in set(range(1, signal.NSIG)) - {signal.SIGKILL, signal.SIGSTOP, *IGNORED}:
        default_signal(number)
    os.umask(0o022)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY:
        return
    for folder in {"/usr", python.prefix, python.base_prefix}:
        copy = sys.open_tree(sys.AT_FDCWD, folder)
        sys.make_private(copy, read_only=True)
        target = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        sys.move_mount(copy, target, folder)
        os.close(copy)
        os.close(target)
    # Once more from there: /proc/self/exe leads to the mount from which a program was started.
    os.execv(python.executable, python.orig_argv)


def be_unreadable() -> None:
    """Nobody inside of a container that we join may look at us before exec (CVE-2016-9962), nor we at the host's
    keys."""
    prctl(PR_SET_DUMPABLE, 0)
    be_killable()
    sys.syscall(SYS_keyctl, "keyctl", KEYCTL_JOIN_SESSION_KEYRING, None)


def be_killable() -> None:
    """The score of our own, which is not to be killed when memory runs out, is not for containers. It is also the
    least that they can choose from now on, because we could choose less (proc_pid_oom_score_adj(5))."""
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"0")
    except PermissionError:
        pass  # whoever runs us gave us a higher one: then that is the least
    finally:
        os.close(fd)


def is_own(fd: int) -> bool:
    """Whether a stream is the container's own, a pipe or a terminal. All else is the host's, as its /dev/null is."""
    return os.isatty(fd) or stat.S_ISFIFO(os.fstat(fd).st_mode)


def read_program(plan: "Plan") -> None:
    """The system calls that it may make, while the descriptor of that program is there."""
    place = plan.message.get("seccomp")
    if place is not None:
        plan.message["seccomp"] = os.pread(plan.fds[place], MAX_PROGRAM + 8, 0)


def drop_privileges(user: str, env: dict[str, str], plan: Mapping[str, Any]) -> None:
    """User, groups and all five capability sets, in the order in which each still may be changed; and the system calls.

    The plan says `capabilities`, as bits; `new_privileges`; `seccomp`, a program of bpf(4) that was read, None for none.
    Without them it is the default ones, no new ones, and a program that refuses keys(7).
    """
    uid, groups, home = users.lookup(user, plan.get("groups", ()))
    asked.set_limits(plan.get("ulimits", {}))
    kept: int = plan.get("capabilities", DEFAULT_CAPABILITIES)
    for capability in range(LAST_CAPABILITY + 1):
        if not kept >> capability & 1:
            prctl(PR_CAPBSET_DROP, capability)
    for fd in filter(
        is_own, (0, 1, 2)
    ):  # so that /dev/stdout can be opened again by this user; a terminal's group stays
        os.fchown(fd, uid, -1 if os.isatty(fd) else groups[0])
    os.setgroups(groups)
    os.setresgid(groups[0], groups[0], groups[0])
    gains = bool(plan.get("new_privileges"))
    if gains:  # without no_new_privs only who has CAP_SYS_ADMIN can restrict itself, whoever its user is; exec takes it
        # away, as it does with all that is not in the bounding set, and so a filter may refuse capset(2)
        prctl(PR_SET_KEEPCAPS, 1)
    os.setresuid(uid, uid, uid)
    # Another user may have made it what the host says of setuid programs (fs.suid_dumpable).
    prctl(PR_SET_DUMPABLE, 0)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    final = kept if uid == 0 else 0
    capset(final | gains * CAP_SYS_ADMIN)
    if not gains:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    program: bytes | None = plan["seccomp"] if "seccomp" in plan else without_keys()
    if program is not None:
        seccomp(program)
    env.setdefault("HOME", home)


def give_up(plan: "Plan") -> None:
    """What `drop_privileges` leaves to exec to take away, for a process that may be traced before it."""
    if plan.message.get("new_privileges"):
        capset(plan.message.get("capabilities", DEFAULT_CAPABILITIES) if os.getuid() == 0 else 0)


def check_options(options: str) -> None:
    """mount(2) cuts what does not fit into a page, in silence; the rest may name another container's folder."""
    if len(os.fsencode(options)) >= PAGE:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG), f"{len(options)} bytes of mount options")


def without_keys() -> bytes:
    """A filter in which the kernel has no keys(7): they have no namespace but the user's, so that root of a container
    could read root's of the host (user-keyring(7)). Instructions of bpf(4): code, jump if true, if false, value."""
    program = [(BPF_LOAD, 0, 0, 4)]  # struct seccomp_data: number, architecture
    for architecture, first in KEY_CALLS:
        program += [
            (BPF_JEQ, 0, 6, architecture),
            (BPF_LOAD, 0, 0, 0),
            (BPF_AND, 0, 0, 0xFFFFFFFF ^ X32),
            (BPF_JGE, 0, 1, first),
            (BPF_JGT, 0, 1, first + 2),
            (BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW),
            (BPF_RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.ENOSYS),
        ]
    program.append((BPF_RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.ENOSYS))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def stay_inside() -> None:
    """The working directory must be one that is found from the root (CVE-2024-21626)."""
    if not os.getcwd().startswith("/"):
        raise PermissionError(1, "working directory outside of the container", os.getcwd())


def default_signals() -> None:
    """The last ones: until exec, Python wants to ignore them."""
    for number in IGNORED:
        default_signal(number)


def default_signal(number: int) -> None:
    """rt_sigaction(2) with SIG_DFL; also for 32 and 33, which the C library keeps to itself."""
    sys.syscall(SYS_rt_sigaction, f"signal {number}", number, bytes(32), None, 8)


def prctl(option: int, *args: int) -> None:
    """prctl(2)."""
    sys.check(sys.libc.prctl(option, *args, *(0,) * (4 - len(args))), f"prctl {option}")


def capset(mask: int) -> None:
    """capset(2): permitted and effective become `mask`, inheritable nothing (CVE-2022-24769)."""
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header, data = struct.pack("2I", 0x20080522, 0), struct.pack("6I", low, low, 0, high, high, 0)
    sys.syscall(SYS_capset, "capset", header, data)


def seccomp(program: bytes) -> None:
    """seccomp(2) with a program of bpf(4), for good; after no_new_privs. It slows nothing down that it lets pass."""
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HQ", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
    sys.syscall(SYS_seccomp, "seccomp", SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, head)

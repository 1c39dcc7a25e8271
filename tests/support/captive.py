"""A process that confines itself as the unpacker does, and then attacks: what somebody could do who took it over.

    python -I captive.py ATTACK FOLDER VICTIM [WITHOUT]

ATTACK is a function below; FOLDER the layer's, with "outside" beside it; VICTIM a process. It prints a line for each
attempt: its name, and the name of the error or "done". WITHOUT is seccomp or landlock, a wall that is taken down
before, to see that the others hold.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any

from tinyo_runtime.unpack import calls, confine, landlock, libc

FOLDER, VICTIM = sys.argv[2], int(sys.argv[3])
ARM = os.uname().machine == "aarch64"
UP = "../" * 40
#: struct iovec: a byte of our own memory.
AREA = struct.pack("PN", ctypes.addressof(BYTE := ctypes.c_char()), 1)


def attempt(name: str, function: Callable[..., object], *arguments: Any, **options: Any) -> None:
    """Says how it went."""
    try:
        function(*arguments, **options)
        result = "done"
    except OSError as error:
        result = errno.errorcode[error.errno or 0]
    except MemoryError:
        result = "MemoryError"
    os.write(1, f"{name} {result}\n".encode())


def call(number: int, *arguments: int | bytes | None) -> int:
    """Any system call."""
    return libc.call("syscall", number, *arguments)


def any_call() -> None:
    """Every number that is not on the list, with arguments that no call takes; and once more by way of x32.

    Not uretprobe and uprobe of x86-64: they pass every filter, and end whoever is no probed program.
    """
    allowed = {pair[ARM] for pair in calls.ALLOWED.values()} | (set() if ARM else {335, 336})
    for number in [*range(600), *range(1 << 30, (1 << 30) + 600)]:
        if number not in allowed:
            attempt(str(number), call, number, *[-1] * 6)


def second_way() -> None:
    """x86-64 has int 0x80, which counts calls in another way: its 20 is getpid, and 39 is mkdir."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\0\0\0\xcd\x80\x48\x98\xc3")  # mov eax, 20; int 0x80; cdqe; ret
    function = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(code)))

    def enter() -> None:
        if (result := function()) < 0:
            raise OSError(-result, "int 0x80")

    attempt("getpid", enter)


def outside() -> None:
    """What is not in the folder: by name, by "..", by links, from the descriptor that there is, by a second chroot."""
    attempt("proc", os.open, "/proc/self/mem", os.O_RDWR)
    attempt("name", os.open, f"{FOLDER}/../outside", os.O_WRONLY)
    os.symlink("../../../outside", "link", dir_fd=folder)
    attempt("link", os.open, "link", os.O_WRONLY)
    attempt("up", os.open, UP + "etc/passwd", os.O_RDONLY)
    attempt("from", os.open, "../outside", os.O_WRONLY, dir_fd=folder)
    attempt("hard", os.link, "../outside", "hard", src_dir_fd=folder, dst_dir_fd=folder)
    attempt("remove", os.unlink, "../outside", dir_fd=folder)
    os.mkdir("jail", dir_fd=folder)
    attempt("chroot", os.chroot, "jail")
    attempt("again", os.open, UP + "etc/passwd", os.O_RDONLY)


def inside() -> None:
    """In the folder, what filling it does not need."""
    with open("file", "wb") as file:
        os.fchmod(file.fileno(), 0o755)
    attempt("read", os.open, "file", os.O_RDONLY)
    attempt("run", os.execv, "file", ["file"])
    attempt("socket", os.mknod, "socket", 0o140600, dir_fd=folder)
    attempt("block", os.mknod, "sda", 0o60600, os.makedev(8, 0), dir_fd=folder)
    attempt("memory", os.mknod, "mem", 0o20600, os.makedev(1, 1), dir_fd=folder)


def others() -> None:
    """Other processes: signals by all ways that there are, tracing, memory."""
    attempt("kill", os.kill, VICTIM, signal.SIGKILL)
    attempt("parent", os.kill, PARENT, 0)
    attempt("ptrace", call, 117 if ARM else 101, 16, VICTIM, 0, 0)  # PTRACE_ATTACH
    attempt("memory", call, 270 if ARM else 310, VICTIM, AREA, 1, AREA, 1, 0)  # process_vm_readv
    attempt("pidfd", lambda: signal.pidfd_send_signal(os.pidfd_open(VICTIM), signal.SIGKILL))
    attempt(
        "owner", fcntl.fcntl, 0, fcntl.F_SETOWN, VICTIM
    )  # of a pipe, which then sends signals when it is read from
    attempt("signal", fcntl.fcntl, 0, 10, signal.SIGKILL)  # F_SETSIG
    attempt("async", fcntl.fcntl, 0, fcntl.F_SETFL, os.O_ASYNC)
    attempt("priority", os.setpriority, os.PRIO_PROCESS, VICTIM, 19)


def network() -> None:
    """Sockets of all kinds."""

    def connect(family: int, kind: int, address: Any) -> None:
        with socket.socket(family, kind) as client:
            client.connect(address)

    attempt("tcp", connect, socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 22))
    attempt("udp", connect, socket.AF_INET, socket.SOCK_DGRAM, ("192.0.2.1", 53))
    attempt("unix", connect, socket.AF_UNIX, socket.SOCK_STREAM, "/run/systemd/notify")
    attempt("abstract", connect, socket.AF_UNIX, socket.SOCK_STREAM, f"\0{FOLDER}")
    attempt("packet", connect, socket.AF_PACKET, socket.SOCK_RAW, ("lo", 0))
    attempt("kernel", connect, 38, socket.SOCK_SEQPACKET, b"")  # AF_ALG


def mounts() -> None:
    """A file system with other files."""
    os.mkdir("mount", dir_fd=folder)
    attempt("mount", libc.call, "mount", b"proc", b"mount", b"proc", 0, None)
    attempt("bind", libc.call, "mount", b"/", b"mount", None, 4096, None)
    attempt("umount", libc.call, "umount2", b"/", 2)
    attempt("pivot", call, 41 if ARM else 155, b".", b".")


def privileges() -> None:
    """Namespaces, capabilities, programs, processes, limits."""
    attempt("user namespace", libc.call, "unshare", 0x10000000)
    attempt("mount namespace", libc.call, "unshare", 0x00020000)
    attempt("joining", libc.call, "setns", 0, 0)
    attempt("hostname", socket.sethostname, "captive")
    attempt("capabilities", confine.keep, (1 << 41) - 1)
    attempt("user", os.setresuid, 1, 1, 1)
    attempt("process", os.fork)
    attempt("thread", call, 220 if ARM else 56, 0x3D0F00 | 0x40000000, 0, 0, 0, 0)  # in a network namespace
    attempt("limits", resource.setrlimit, resource.RLIMIT_FSIZE, (-1, -1))
    attempt("terminal", fcntl.ioctl, 0, 0x5412, b"x")  # TIOCSTI


def limits() -> None:
    """More than a layer may take."""
    attempt("memory", bytearray, 3 << 30)
    fd = os.open("file", os.O_WRONLY | os.O_CREAT)
    attempt("file", os.ftruncate, fd, 3 << 40)
    attempt("hole", os.ftruncate, fd, 1 << 40)


def log() -> None:
    """What it says goes to a pipe; a file that it would write to could be given away or opened to all."""
    attempt("mode", os.fchmod, 2, 0o666)
    attempt("owner", os.fchown, 2, 5, 5)
    os.write(2, b"said done\n")


def work() -> None:
    """No attack: what the unpacker does itself still works."""

    def make_whiteout() -> None:
        os.mknod("gone", 0o20000, 0, dir_fd=folder)

    thread = threading.Thread(target=attempt, args=("thread", make_whiteout))
    thread.start()
    thread.join()
    attempt("opaque", os.setxattr, folder, "trusted.overlay.opaque", b"y")
    os.mkdir("a", dir_fd=folder)
    os.mkdir("b", dir_fd=folder)
    os.mkfifo("a/pipe", 0o600, dir_fd=folder)
    attempt("link", os.link, "a/pipe", "b/pipe", src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)


ATTACKS = (any_call, second_way, outside, inside, others, network, mounts, privileges, limits, log, work)

if __name__ == "__main__":
    PARENT = os.getppid()
    if "seccomp" in sys.argv:
        calls.only_needed = lambda: None
    if "landlock" in sys.argv:
        landlock.stay_in = lambda folder: None
    folder = os.open(FOLDER, os.O_RDONLY)
    confine.confine(FOLDER)
    next(attack for attack in ATTACKS if attack.__name__ == sys.argv[1])()
    os._exit(0)

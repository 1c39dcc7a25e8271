"""What a process gives up before it reads a layer: all but its standard files, one folder and six capabilities."""

import contextlib
import os
import resource
import signal
import struct
import sys

from tinyo_runtime.unpack import calls, landlock
from tinyo_runtime.unpack.libc import call

_CLONE_NEWIPC, _CLONE_NEWNET = 0x08000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
#: chown, dac_override, fowner, fsetid, sys_admin (trusted.overlay.opaque), setfcap.
_KEPT = sum(1 << number for number in (0, 1, 3, 4, 21, 31))
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}[os.uname().machine]
#: Bytes of memory; a zstd window takes up to 128 MiB of it, a million folders most of the rest.
_MEMORY = 2 << 30
#: Bytes of one file: lastlog with its holes has 292 for each of 2^32 users.
_FILE = 2 << 40
#: Seconds of processor time.
_TIME = 3600


def confine(folder: str) -> None:
    """Makes `folder` all that there is: no other file, process or network, no new privileges; ends with its parent.

    Nothing can be imported afterwards, because it would be imported from the folder. Raises OSError.
    """
    leave(folder, _KEPT)
    os.dup2(1, 2)  # no file of somebody else's, such as a log, whose owner and mode it could change
    os.umask(0)
    os.chmod("/", 0o755)  # whatever the caller's mask left of it
    landlock.stay_in("/")
    calls.only_needed()


def leave(folder: str, capabilities: int) -> None:
    """The part of it that is good for whoever works in one folder, with other capabilities: a mask of bits."""
    # The runtime's is not for it; one that is higher has to stay.
    with contextlib.suppress(PermissionError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("0")
    parent = os.getppid()
    call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    for limit, most in (
        (resource.RLIMIT_DATA, _MEMORY),
        (resource.RLIMIT_FSIZE, _FILE),
        (resource.RLIMIT_CPU, _TIME),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))
    call("unshare", _CLONE_NEWNET | _CLONE_NEWIPC)
    os.chroot(folder)
    os.chdir("/")
    sys.meta_path.clear()
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    keep(capabilities)


def keep(capabilities: int) -> None:
    """capset(2): permitted and effective become these, inheritable none. Raises OSError."""
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    header = struct.pack("2I", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    call("syscall", _SYS_CAPSET, header, struct.pack("6I", low, low, 0, high, high, 0), of="capset")

"""What a process gives up before it reads a layer: all but its standard files, one folder and seven capabilities."""

import ctypes
import os
import resource
import signal
import sys

_CLONE_NEWIPC, _CLONE_NEWNET = 0x08000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 1, 38, 24
#: chown, dac_override, fowner, fsetid, sys_admin (trusted.overlay.opaque), mknod (whiteouts), setfcap.
_KEPT = sum(1 << number for number in (0, 1, 3, 4, 21, 27, 31))
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}[os.uname().machine]
#: Bytes of memory; a zstd window takes up to 128 MiB of it, a million folders most of the rest.
_MEMORY = 2 << 30

_libc = ctypes.CDLL(None, use_errno=True)


def confine(folder: str) -> None:
    """Makes `folder` all that there is: no other file, no network, no new privileges; ends with its parent.

    Nothing can be imported afterwards, because it would be imported from the folder.
    """
    leave(folder, _KEPT)
    os.umask(0)
    os.chmod("/", 0o755)  # whatever the caller's mask left of it


def leave(folder: str, capabilities: int) -> None:
    """The same for whoever needs others of them, as a mask of bits; in the folder nothing changes."""
    parent = os.getppid()
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _call("unshare", _CLONE_NEWNET | _CLONE_NEWIPC)
    os.chroot(folder)
    os.chdir("/")
    sys.meta_path.clear()
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _call("syscall", _SYS_CAPSET, ctypes.byref(header), ctypes.byref(data))


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)

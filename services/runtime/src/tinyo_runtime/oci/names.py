"""Names of the specification, and the kernel's numbers for them."""

import resource

from tinyo_runtime.spawner import syscalls as sys
from tinyo_runtime.spawner import system

#: capabilities(7), in the order of their numbers.
CAPABILITIES = {
    f"CAP_{name}": number
    for number, name in enumerate(
        [
            "CHOWN",
            "DAC_OVERRIDE",
            "DAC_READ_SEARCH",
            "FOWNER",
            "FSETID",
            "KILL",
            "SETGID",
            "SETUID",
            "SETPCAP",
            "LINUX_IMMUTABLE",
            "NET_BIND_SERVICE",
            "NET_BROADCAST",
            "NET_ADMIN",
            "NET_RAW",
            "IPC_LOCK",
            "IPC_OWNER",
            "SYS_MODULE",
            "SYS_RAWIO",
            "SYS_CHROOT",
            "SYS_PTRACE",
            "SYS_PACCT",
            "SYS_ADMIN",
            "SYS_BOOT",
            "SYS_NICE",
            "SYS_RESOURCE",
            "SYS_TIME",
            "SYS_TTY_CONFIG",
            "MKNOD",
            "LEASE",
            "AUDIT_WRITE",
            "AUDIT_CONTROL",
            "SETFCAP",
            "MAC_OVERRIDE",
            "MAC_ADMIN",
            "SYSLOG",
            "WAKE_ALARM",
            "BLOCK_SUSPEND",
            "AUDIT_READ",
            "PERFMON",
            "BPF",
            "CHECKPOINT_RESTORE",
        ]
    )
}

#: getrlimit(2).
RLIMITS = {
    name: getattr(resource, name)
    for name in (
        "RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE",
        "RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_RSS", "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
        "RLIMIT_SIGPENDING", "RLIMIT_STACK",
    )
} | {"RLIMIT_LOCKS": 10}  # fmt: skip

RO, NOSUID, NODEV, NOEXEC = (
    sys.MOUNT_ATTR_RDONLY,
    system.MOUNT_ATTR_NOSUID,
    system.MOUNT_ATTR_NODEV,
    system.MOUNT_ATTR_NOEXEC,
)
NOATIME, STRICTATIME, NODIRATIME, NOSYMFOLLOW = 0x10, 0x20, 0x80, 0x00200000
#: Options of a mount that set an attribute (mount_setattr(2)); with an "r" before, for all mounts below as well.
ATTRIBUTES = {
    "ro": RO, "nosuid": NOSUID, "nodev": NODEV, "noexec": NOEXEC, "noatime": NOATIME, "strictatime": STRICTATIME,
    "nodiratime": NODIRATIME, "nosymfollow": NOSYMFOLLOW,
}  # fmt: skip
#: Those that take one away, as a later option does with an earlier one.
TAKEN = {
    "rw": RO, "suid": NOSUID, "dev": NODEV, "exec": NOEXEC, "atime": NOATIME, "nostrictatime": STRICTATIME,
    "diratime": NODIRATIME, "symfollow": NOSYMFOLLOW, "relatime": NOATIME | STRICTATIME, "norelatime": 0,
}  # fmt: skip
#: mount_setattr(2) and mount(2) alike; with an "r" before, for all mounts below as well.
PROPAGATIONS = {"private": 1 << 18, "slave": 1 << 19, "shared": 1 << 20, "unbindable": 1 << 17}

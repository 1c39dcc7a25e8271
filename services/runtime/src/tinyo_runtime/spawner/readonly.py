"""A root that nothing can be written to, once all that is mounted in it has its place."""

import struct
from typing import TYPE_CHECKING, Any

from tinyo_runtime.spawner import syscalls as sys

if TYPE_CHECKING:
    from tinyo_runtime.spawner.enter import Plan


def close_root(plan: "Plan") -> None:
    """Makes the root, which is the working directory, read-only when the plan says `read_only`."""
    close(plan.message)


def close(message: dict[str, Any]) -> None:
    """With `read_only` in what is said of the root; what is mounted in it stays as it is. mount_setattr(2)."""
    if message.get("read_only"):
        attributes = struct.pack("4Q", sys.MOUNT_ATTR_RDONLY, 0, 0, 0)
        sys.syscall(sys.SYS_mount_setattr, "/", sys.AT_FDCWD, b".", 0, attributes, len(attributes))

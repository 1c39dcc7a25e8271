"""What the process gives up before it reads a container's files: it can read that folder, and write nothing."""

import os
import struct

from tinyo_runtime.spawner import syscalls as sys
from tinyo_runtime.unpack import confine

#: dac_read_search (any file, whatever its mode), sys_admin (to read trusted.overlay.*).
_KEPT = 1 << 2 | 1 << 21
#: mount_setattr(2): read-only, nosuid, nodev, noexec, noatime; and private.
_ATTRIBUTES = struct.pack("4Q", 0x01 | 0x02 | 0x04 | 0x08 | 0x10, 0x70, sys.MS_PRIVATE, 0)


def enter(folder: str) -> None:
    """Makes a read-only copy of its mount all that there is. Opening a device there gives no device.

    The mount is attached nowhere, and goes with this process. Nothing can be imported afterwards.
    """
    mount = sys.open_tree(sys.AT_FDCWD, folder)
    flags = sys.AT_EMPTY_PATH | sys.AT_RECURSIVE
    sys.syscall(sys.SYS_mount_setattr, folder, mount, b"", flags, _ATTRIBUTES, len(_ATTRIBUTES))
    os.fchdir(mount)
    confine.leave(".", _KEPT)

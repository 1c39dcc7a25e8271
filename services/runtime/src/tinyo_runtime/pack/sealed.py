"""What the process gives up before it reads a container's files: it can read that folder, and write nothing."""

import os
import struct

from tinyo_runtime.spawner import syscalls as sys
from tinyo_runtime.spawner import userns
from tinyo_runtime.unpack import confine

#: dac_read_search (any file, whatever its mode), sys_admin (to read trusted.overlay.*).
_KEPT = 1 << 2 | 1 << 21
#: mount_setattr(2): read-only, nosuid, nodev, noexec, noatime.
_ATTRIBUTES, _CLEARED = 0x01 | 0x02 | 0x04 | 0x08 | 0x10, 0x70


def enter(folder: str) -> None:
    """Makes a read-only copy of its mount all that there is. Opening a device there gives no device.

    The mount is attached nowhere, and goes with this process. Nothing can be imported afterwards. What belongs to ids
    of the container's user namespace looks there as it does in the container: owners, access control lists and
    capabilities.
    """
    first, namespace, attributes = userns.recorded(folder), 0, _ATTRIBUTES
    if first:
        namespace = userns.make(inside=first, outside=0, ids=userns.IDS)
        attributes |= userns.MOUNT_ATTR_IDMAP
    mount = sys.open_tree(sys.AT_FDCWD, folder)
    flags = sys.AT_EMPTY_PATH | sys.AT_RECURSIVE
    wanted = struct.pack("4Q", attributes, _CLEARED, sys.MS_PRIVATE, namespace)
    sys.syscall(sys.SYS_mount_setattr, folder, mount, b"", flags, wanted, len(wanted))
    os.fchdir(mount)
    confine.leave(".", _KEPT)

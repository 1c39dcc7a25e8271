"""New file systems, mounted nowhere yet: fsopen(2), fsconfig(2), fsmount(2)."""

import os
from collections.abc import Mapping

from tinyo_runtime.spawner import syscalls as sys

NOSUID, NODEV, NOEXEC = 0x02, 0x04, 0x08
_CLOEXEC, _SET_STRING, _CREATE = 1, 1, 6
_SYS_fsopen, _SYS_fsconfig, _SYS_fsmount = 430, 431, 432


def new(kind: str, source: str, attributes: int, options: Mapping[str, str]) -> int:
    """Descriptor of a mount of a new file system. Raises OSError with the option that is wrong."""
    context = sys.syscall(_SYS_fsopen, kind, kind.encode(), _CLOEXEC)
    try:
        for key, value in {"source": source, **options}.items():
            sys.syscall(
                _SYS_fsconfig, f"{key}={value}", context, _SET_STRING, key.encode(), value.encode(), 0
            )
        sys.syscall(_SYS_fsconfig, kind, context, _CREATE, None, None, 0)
        return sys.syscall(_SYS_fsmount, kind, context, _CLOEXEC, attributes)
    finally:
        os.close(context)

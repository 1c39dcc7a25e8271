"""Landlock: the kernel opens and makes nothing for this process but in one folder (landlock(7), Linux 5.13)."""

import errno
import os
import struct

from tinyo_runtime.unpack.libc import call

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1

#: LANDLOCK_ACCESS_FS_*, which are bits: write_file, read_dir, remove_dir, remove_file, make_char (whiteouts), make_dir,
#: make_reg, make_fifo, make_sym, refer (hard links between folders), truncate. Not execute, read_file, make_sock,
#: make_block, ioctl_dev.
_NEEDED = sum(1 << bit for bit in (1, 3, 4, 5, 6, 7, 8, 10, 12, 13, 14))
#: Bits that each version of the interface knows; the first one has no hard links between folders and is of no use.
_KNOWN = {2: 14, 3: 15, 4: 15, 5: 16}
#: From these versions on: bind and connect of TCP; abstract Unix sockets and signals of others.
_NETWORK, _SCOPES = 4, 6


def version() -> int:
    """Of the kernel's interface; 0 where there is none. Raises OSError."""
    try:
        return call("syscall", _CREATE_RULESET, None, 0, _VERSION, of="landlock_create_ruleset")
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
            return 0
        raise


def stay_in(folder: str) -> None:
    """From now on only `folder` is there, and there only what filling it needs; after no_new_privs. Raises OSError."""
    here = version()
    if here < min(_KNOWN):
        return
    everything = (1 << _KNOWN[min(here, max(_KNOWN))]) - 1
    attributes = struct.pack("QQQ", everything, 3 * (here >= _NETWORK), 3 * (here >= _SCOPES))
    rules = call("syscall", _CREATE_RULESET, attributes, len(attributes), 0, of="landlock_create_ruleset")
    beneath = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    rule = struct.pack("=Qi", _NEEDED & everything, beneath)
    call("syscall", _ADD_RULE, rules, _PATH_BENEATH, rule, 0, of="landlock_add_rule")
    call("syscall", _RESTRICT_SELF, rules, 0, of="landlock_restrict_self")
    os.close(beneath)
    os.close(rules)

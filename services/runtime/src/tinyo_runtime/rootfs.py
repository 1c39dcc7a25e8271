"""The files of a container: its folder with the writable layer, and the mounts that it is given.

`containers/ID/` holds `upper/` and `work/` for overlayfs, `log`, and `etc/` with the files that say who
the container is. Nothing is mounted on the host: the overlay is mounted by the container's own
process, and everything else is opened here as a detached mount (open_tree(2)) and moved in there.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator

from tinyo.v1.container_pb2 import Mount

from tinyo_runtime.spawner import syscalls


@contextlib.contextmanager
def opened(mounts: Iterable[Mount]) -> Iterator[list[tuple[str, int, bool]]]:
    """(target, descriptor, is a folder) of each source as a detached mount, opened once; closed at the end."""
    with contextlib.ExitStack() as descriptors:
        result = []
        for mount in mounts:
            fd = syscalls.open_tree(-100, mount.source, syscalls.AT_RECURSIVE)
            descriptors.callback(os.close, fd)
            syscalls.make_private(fd, read_only=mount.read_only)
            result.append((mount.target, fd, stat.S_ISDIR(os.fstat(fd).st_mode)))
        yield result

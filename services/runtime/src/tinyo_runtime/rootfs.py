"""The files of a container: its folder with the writable layer, and the mounts that it is given.

`containers/ID/` holds `upper/` and `work/` for overlayfs, `log`, and `etc/` with the three files that
say who the container is. Nothing is mounted on the host: the overlay is mounted by the container's own
process, and everything else is opened here as a detached mount (open_tree(2)) and moved in there.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import grpc
from tinyo.v1.container_pb2 import ContainerSpec, Mount

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.spawner import syscalls

#: (target, descriptor of a detached mount, is a folder).
OpenMount = tuple[str, int, bool]


def make(folder: Path) -> None:
    """The container's folder; one that is there (from before a reboot, or a retry) is used as it is."""
    for name in ("upper", "work", "etc"):
        (folder / name).mkdir(parents=True, exist_ok=True)


def remove(folder: Path, trash: Path) -> None:
    """Undoes `make`: gone in one step, and deleted afterwards."""
    trash.mkdir(exist_ok=True)
    doomed = trash / folder.name
    with contextlib.suppress(FileNotFoundError):
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=False) if doomed.exists() else None


def describe(folder: Path, spec: ContainerSpec, address: str) -> list[Mount]:
    """Writes /etc/hostname, /etc/hosts and /etc/resolv.conf of a container; the mounts that show them."""
    resolvers = [
        line
        for line in Path("/etc/resolv.conf").read_text(errors="replace").splitlines()
        if not line.startswith(("nameserver 127.", "nameserver ::1"))  # the host's own, out of reach
    ]
    files = {
        "hostname": f"{spec.name}\n",
        "hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{address}\t{spec.name}\n",
        "resolv.conf": "\n".join(resolvers) + "\n",
    }
    for name, text in files.items():
        (folder / "etc" / name).write_text(text)
    return [Mount(source=str(folder / "etc" / name), target=f"/etc/{name}") for name in files]


@contextlib.contextmanager
def opened(mounts: list[Mount]) -> Iterator[list[OpenMount]]:
    """The sources of mounts as detached mounts, each opened once; closed at the end.

    Raises TinyoError MOUNT_SOURCE_MISSING for a source that is not there.
    """
    result: list[OpenMount] = []
    try:
        for index, mount in enumerate(mounts):
            if mount.create:
                os.makedirs(mount.source, exist_ok=True)
            result.append(_open(mount, f"mounts[{index}].source"))
        yield result
    finally:
        for _, fd, _ in result:
            os.close(fd)


def _open(mount: Mount, field: str) -> OpenMount:
    try:
        fd = syscalls.open_tree(-100, mount.source, syscalls.AT_RECURSIVE)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TinyoError(
            grpc.StatusCode.FAILED_PRECONDITION,
            "MOUNT_SOURCE_MISSING",
            f"mount source {mount.source} does not exist: make it, or say `create: true`",
            {"source": mount.source},
            field,
        ) from error
    syscalls.make_private(fd, read_only=mount.read_only)
    return mount.target, fd, stat.S_ISDIR(os.fstat(fd).st_mode)

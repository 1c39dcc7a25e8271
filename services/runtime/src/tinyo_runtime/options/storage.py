"""Volumes, file systems in memory, parts of sources, mounts that spread, a read-only root.

Each mount is made here, attached nowhere, and its descriptor goes into the plan: the spawner moves it to its place.
"""

import errno
import hashlib
import os
import stat
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyo.v1.container_pb2 import Mount
from tinyo.v1.storage_pb2 import PROPAGATION_SHARED, PROPAGATION_SLAVE, Tmpfs

from tinyo_runtime import failures, lookups, sources, volumes
from tinyo_runtime.spawner import syscalls as sys
from tinyo_runtime.spawner import system

if TYPE_CHECKING:
    from tinyo_runtime.containers import Container, Containers
    from tinyo_runtime.images import ImageStore
    from tinyo_runtime.options import Start

MS_SHARED = 1 << 20
SPREADS = {PROPAGATION_SLAVE: sys.MS_SLAVE, PROPAGATION_SHARED: MS_SHARED}
#: What nobody expects in data: set-user-id programs, devices; and for /dev/shm, programs.
DATA = system.MOUNT_ATTR_NOSUID | system.MOUNT_ATTR_NODEV
#: Volumes of an image that are made: more is no image that somebody wanted.
MAX_ANONYMOUS = 100
#: Volumes that an image says, by its digest, which never changes.
_of_images: dict[str, tuple[str, ...]] = {}


async def mounts(start: "Start") -> None:
    """Adds what of a container's mounts is more than a file or folder of the host; those that lie in others come
    after them."""
    if start.joins:
        return
    spec, plan = start.spec, start.plan
    added: list[tuple[str, int, bool]] = []
    for index, mount in enumerate(spec.mounts):
        if not sources.is_plain(mount):
            added.append(_handed(start, mount.target, await _opened(start, index, mount)))
    for tmpfs in spec.tmpfs:
        added.append(_handed(start, tmpfs.target, _memory(tmpfs)))
    if spec.shm_size_bytes:
        options = {"mode": "1777", "size": str(spec.shm_size_bytes)}
        shm = system.new_mount("tmpfs", DATA | system.MOUNT_ATTR_NOEXEC, source="shm", **options)
        added.append(_handed(start, "/dev/shm", shm))
    taken = {os.path.normpath(target) for target, _, _ in (*plan["mounts"], *added)}
    for target in _anonymous(start.containers.images, start.container.config.image_digest):
        if os.path.normpath(target) not in taken:
            volume = _own_volume(start.container, target)
            await _filled(start.containers, start.container, volume, target)
            added.append(_handed(start, target, _tree(os.open(volume / "data", os.O_PATH), Mount())))
    ours = len(plan["mounts"]) - sum(map(sources.is_plain, spec.mounts))  # which everything lies above
    plan["mounts"][ours:] = sorted((*plan["mounts"][ours:], *added), key=_depth)
    if spec.read_only:
        plan["read_only"] = True


def _depth(mount: tuple[str, int, bool]) -> int:
    return len(Path(os.path.normpath(mount[0])).parts)


def _handed(start: "Start", target: str, fd: int) -> tuple[str, int, bool]:
    """A mount in the plan's words; the descriptor is the spawner's from then on."""
    return target, start.hand(fd), stat.S_ISDIR(os.fstat(fd).st_mode)


def _memory(tmpfs: Tmpfs) -> int:
    mode = tmpfs.mode if tmpfs.HasField("mode") else 0o1777
    options = {"mode": f"{mode:o}"} | ({"size": str(tmpfs.size_bytes)} if tmpfs.size_bytes else {})
    return system.new_mount("tmpfs", DATA, source="tmpfs", **options)


async def _opened(start: "Start", index: int, mount: Mount) -> int:
    """A mount of the Statefile that is more than a file or folder of the host."""
    source = mount.source
    if mount.volume:
        state = start.containers.folder
        volume = volumes.folder(state, mount.volume)
        volumes.prepare(volume)
        if not (mount.no_copy or mount.sub_path):
            await _filled(start.containers, start.container, volume, mount.target)
        source = str(volume / "data")
    if mount.propagation in SPREADS and not _is_shared(source):
        message = f"{source} lies in a mount that does not spread: `mount --make-shared` it, or leave `propagation` out"
        raise failures.mount_failed(index, "propagation", message)
    fd = os.open(source, os.O_PATH | os.O_CLOEXEC)
    return _tree(_beneath(fd, index, mount) if mount.sub_path else fd, mount)


def _beneath(root: int, index: int, mount: Mount) -> int:
    """What `sub_path` names in there, made if that was asked for. No link leads out (CVE-2023-28642, CVE-2024-3154)."""
    try:
        if mount.create:
            _make(root, mount.sub_path)
        return lookups.beneath(root, mount.sub_path, os.O_PATH)
    except OSError as error:
        place = mount.volume or mount.source
        message = f"sub_path {mount.sub_path!r} of {place} cannot be mounted: {os.strerror(error.errno or 0)}"
        if error.errno == errno.EXDEV:
            message = f"sub_path {mount.sub_path!r} leads out of {place}"
        elif error.errno == errno.ENOENT:
            message = f"sub_path {mount.sub_path!r} does not exist in {place}: make it, or say `create: true`"
        raise failures.mount_failed(index, "sub_path", message) from None
    finally:
        os.close(root)


def _make(root: int, path: str) -> None:
    """Makes each folder of a path that is not there."""
    done = ""
    for part in Path(path).parts:
        above = lookups.beneath(root, done, os.O_PATH)
        try:
            os.mkdir(part, 0o755, dir_fd=above)
        except FileExistsError:
            pass
        finally:
            os.close(above)
        done = os.path.join(done, part)


def _tree(fd: int, mount: Mount) -> int:
    """A copy of the mounts at a descriptor, which is closed; with what was asked for, for all of them."""
    try:
        tree = sys.open_tree(fd, "", sys.AT_RECURSIVE)
    finally:
        os.close(fd)
    read_only = sys.MOUNT_ATTR_RDONLY if mount.read_only else 0
    attributes = struct.pack("4Q", read_only, 0, SPREADS.get(mount.propagation, sys.MS_PRIVATE), 0)
    flags = sys.AT_EMPTY_PATH | sys.AT_RECURSIVE
    sys.syscall(sys.SYS_mount_setattr, "mount_setattr", tree, b"", flags, attributes, len(attributes))
    return tree


def _is_shared(path: str) -> bool:
    """Whether the mount that a path lies in has peers or masters (proc_pid_mountinfo(5))."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        facts = dict(
            line.split(":\t", 1) for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
        )
    finally:
        os.close(fd)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[0] == facts["mnt_id"].strip():
            return any(tag.startswith(("shared:", "master:")) for tag in fields[6 : fields.index("-")])
    return False


async def _filled(containers: "Containers", container: "Container", volume: Path, target: str) -> None:
    """With what the image has there, as the container's root looks before anything is mounted."""
    image = containers.images.get(container.config.image_digest)
    names = [f"../containers/{container.config.id}/upper", *image.layers]
    await volumes.filled(volume, containers.folder / "layers", names, target)


def _own_volume(container: "Container", target: str) -> Path:
    """A volume that has no name, and goes with the container."""
    volume = container.folder / "volumes" / hashlib.sha256(target.encode()).hexdigest()[:16]
    volumes.prepare(volume)
    return volume


def _anonymous(images: "ImageStore", digest: str) -> Sequence[str]:
    """Where the image wants volumes; what is no absolute path is left out."""
    if digest not in _of_images:
        _, configuration = images.documents(digest)
        process: Any = configuration.get("config")
        said = process.get("Volumes") if isinstance(process, dict) else None
        paths = sorted(said)[:MAX_ANONYMOUS] if isinstance(said, dict) else []
        if len(_of_images) > 1000:
            _of_images.clear()
        _of_images[digest] = tuple(path for path in paths if _is_target(path))
    return _of_images[digest]


def _is_target(path: str) -> bool:
    return path.startswith("/") and ".." not in path.split("/") and "\0" not in path and bool(path.strip("/"))

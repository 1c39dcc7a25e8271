"""The sources of a container's mounts: those that were asked for, and the files that say who it is."""

import os
from pathlib import Path

from tinyo.v1.container_pb2 import ContainerSpec, Mount

from tinyo_runtime import failures


def prepare(folder: Path, spec: ContainerSpec, address: str) -> list[Mount]:
    """Makes what a mount says `create` of; writes /etc/hostname, /etc/hosts and /etc/resolv.conf, and gives
    the mounts that show them and what of the Statefile's is just a file or folder of the host. What the Statefile
    mounts there lies above.

    Raises TinyoError MOUNT_SOURCE_MISSING for a source that is not there.
    """
    for index, mount in enumerate(spec.mounts):
        if mount.volume:
            continue
        if mount.create:
            os.makedirs(mount.source, exist_ok=True)
        elif not os.path.exists(mount.source):
            raise failures.source_missing(index, mount.source)
    resolv = Path("/etc/resolv.conf")
    resolvers = [
        line
        for line in (resolv.read_text(errors="replace").splitlines() if resolv.exists() else [])
        if not line.startswith(("nameserver 127.", "nameserver ::1"))  # the host's own, out of reach
    ]
    files = {
        "hostname": f"{spec.name}\n",
        "hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{address}\t{spec.name}\n",
        "resolv.conf": "\n".join(resolvers) + "\n",
    }
    (folder / "etc").mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / "etc" / name).write_text(text)
    ours = [Mount(source=str(folder / "etc" / name), target=f"/etc/{name}") for name in files]
    return [*ours, *filter(is_plain, spec.mounts)]


def is_plain(mount: Mount) -> bool:
    """Whether nothing has to be known of a mount but its source; of the others, `options.storage` knows more."""
    return not (mount.volume or mount.sub_path or mount.propagation)

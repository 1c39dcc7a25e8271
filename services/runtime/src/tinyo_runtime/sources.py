"""The sources of a container's mounts: those that were asked for, and the files that say who it is."""

import contextlib
import os
from pathlib import Path

from tinyo.runtime.v1.runtime_pb2 import ContainerConfig
from tinyo.v1.container_pb2 import Mount

from tinyo_runtime import failures
from tinyo_runtime.network.names import files
from tinyo_runtime.network.veth import Endpoint


def prepare(folder: Path, config: ContainerConfig, endpoint: Endpoint) -> list[Mount]:
    """Makes what a mount says `create` of; writes /etc/hostname, /etc/hosts and /etc/resolv.conf, and gives
    the mounts that show them and what of the Statefile's is just a file or folder of the host. What the Statefile
    mounts there lies above.

    Raises TinyoError MOUNT_SOURCE_MISSING for a source that is not there.
    """
    spec = config.spec
    for index, mount in enumerate(spec.mounts):
        if mount.volume:
            continue
        if mount.create:
            os.makedirs(mount.source, exist_ok=True)
        elif not os.path.exists(mount.source):
            raise failures.source_missing(index, mount.source)
    texts = {
        "hostname": f"{spec.hostname or spec.name}\n",
        "hosts": files.hosts(spec, endpoint),
        "resolv.conf": files.resolv_conf(config),
    }
    with contextlib.suppress(FileExistsError):
        os.mkdir(f"{folder}/etc")
    for name, text in texts.items():
        with open(f"{folder}/etc/{name}", "wb", 0) as file:
            file.write(text.encode())
    ours = [Mount(source=f"{folder}/etc/{name}", target=f"/etc/{name}") for name in texts]
    return [*ours, *filter(is_plain, spec.mounts)]


def is_plain(mount: Mount) -> bool:
    """Whether nothing has to be known of a mount but its source; of the others, `options.storage` knows more."""
    return not (mount.volume or mount.sub_path or mount.propagation)

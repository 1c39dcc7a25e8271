"""The peers that TinyO is measured beside, each with folders of its own and away from the machine's network."""

import ctypes
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.engine import DOCKER, DOCKERD, engine

CLONE_NEWNS, MS_SLAVE, MS_REC = 0x20000, 1 << 19, 1 << 14
UNIFIED = "/sys/fs/cgroup/unified"


def hide_hybrid_cgroups() -> None:
    """A mount namespace of our own without the empty v2 tree of a hybrid machine, which crun refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_SLAVE, None)
    if not failed and os.path.ismount(UNIFIED):
        failed = libc.umount2(UNIFIED.encode(), 0)
    if failed:
        raise OSError(ctypes.get_errno(), "cannot make a mount namespace")


@contextmanager
def docker(folder: Path, tar: Path) -> Iterator[list[str]]:
    """An engine that has the image as "demo"; gives how to call its client."""
    with engine(folder) as address:
        client = [DOCKER, "--host", address]
        subprocess.run(
            [*client, "import", "--change", "ENV PATH=/bin", tar, "demo"], check=True, capture_output=True
        )
        yield client


def bundle(folder: Path, tar: Path, command: list[str]) -> Path:
    """A bundle for crun and runc (OCI runtime specification): the image unpacked, and runc's own template."""
    (folder / "rootfs").mkdir(parents=True)
    subprocess.run(["tar", "-xf", tar, "-C", folder / "rootfs"], check=True)
    subprocess.run(["runc", "spec"], cwd=folder, check=True)
    config = json.loads((folder / "config.json").read_text())
    config["process"].update(terminal=False, args=command, env=["PATH=/bin"])
    config["root"]["readonly"] = False
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def versions(*names: str) -> str:
    """What is compared, in one line."""
    found = []
    for name in names:
        command = [DOCKERD if name == "docker" else name, "--version"]
        words = subprocess.check_output(command, text=True).replace(",", " ").split()
        found.append(f"{name} {words[words.index('version') + 1]}")
    return ", ".join(found) + f"; Linux {os.uname().release}, {os.cpu_count()} cores"

"""A docker engine for a while: folders, socket and network of its own, and nothing left of it afterwards."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

#: Debian's client and engine; another client may stand earlier on PATH.
DOCKER, DOCKERD = "/usr/bin/docker", "/usr/sbin/dockerd"
#: Parent of its containers' cgroups.
CGROUP = "tinyo-engine"
#: Seconds for it to start.
PATIENCE = 60


@contextmanager
def engine(folder: Path, *, network: bool = True) -> Iterator[str]:
    """Runs dockerd in `folder`, which it makes; gives its address (DOCKER_HOST).

    It has a network namespace of its own, unless `network` says that the caller has one for it.
    """
    address = f"unix://{folder}/docker.sock"
    apart = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"] if network else []
    command = [*apart, DOCKERD, "--host", address]
    command += [
        "--data-root",
        f"{folder}/data",
        "--exec-root",
        f"{folder}/exec",
        "--pidfile",
        f"{folder}/pid",
    ]
    command += ["--cgroup-parent", f"/{CGROUP}"]
    folder.mkdir()
    with ExitStack() as undo:
        undo.callback(remove_cgroups)
        log = undo.enter_context((folder / "log").open("wb"))
        process = subprocess.Popen(command, stdout=log, stderr=log)
        undo.callback(process.wait)
        undo.callback(process.terminate)
        deadline = time.monotonic() + PATIENCE
        while subprocess.run([DOCKER, "--host", address, "version"], capture_output=True).returncode != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"dockerd does not start:\n{(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield address


def remove_cgroups() -> None:
    """It leaves its folders behind, in every hierarchy."""
    for parent in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
        for folder, _, _ in os.walk(parent / CGROUP, topdown=False):
            with suppress(OSError):  # one that is in use again belongs to another engine of ours
                os.rmdir(folder)

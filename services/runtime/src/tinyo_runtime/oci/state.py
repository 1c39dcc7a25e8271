"""What is remembered of a container between two commands: a folder `ROOT/ID`, which only root can look into.

state.json     who it is, and where
config.json    the bundle's, as it was when the container was created
gate           where `start` goes; it is there as long as the container waits for that
root           an empty folder, where the root is mounted in the container's own mount namespace
"""

import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tinyo_runtime.oci.errors import OciError

VERSION = "1.2.0"
ID = re.compile(r"[\w+.-]{1,255}", re.ASCII)


@dataclass
class Container:
    """One container. Times are RFC 3339, UTC."""

    id: str
    bundle: str
    created: str
    #: Paths below each hierarchy's mount point.
    cgroup: str
    annotations: dict[str, str] = field(default_factory=dict)
    pid: int = 0
    #: When that process began, in ticks of the kernel (proc_pid_stat(5)): another with its number is not it.
    began: int = 0

    def alive(self) -> bool:
        """Whether its first process is there, and has not ended."""
        with contextlib.suppress(OSError):
            fields = stat_fields(self.pid)
            return bool(self.pid) and fields[0] not in "ZX" and int(fields[19]) == self.began
        return False

    def signal(self, number: int) -> None:
        """To its first process, whose number may be another's by now. ProcessLookupError."""
        pidfd = os.pidfd_open(self.pid)
        try:
            if not self.alive():
                raise ProcessLookupError
            signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)


def stat_fields(pid: int) -> list[str]:
    """proc_pid_stat(5) from the state on. OSError."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def began(pid: int) -> int:
    """When a process began."""
    return int(stat_fields(pid)[19])


class Store:
    """The containers of one root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, id: str) -> Path:
        """Its folder, whether it is there or not. OciError for a name that is none."""
        if not ID.fullmatch(id) or id in (".", ".."):
            raise OciError(f"{id!r} cannot be a container's id: letters, digits, '_', '+', '-' and '.'")
        return self.root / id

    def make(self, container: Container, config: dict[str, Any]) -> None:
        """A new folder. OciError when somebody has that id."""
        folder = self.folder(container.id)
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            raise OciError(
                f"container {container.id} exists already: choose another id, or delete it"
            ) from None
        (folder / "root").mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        self.save(container)

    def save(self, container: Container) -> None:
        """Whole or not at all."""
        file = self.folder(container.id) / "state.json"
        new = file.with_suffix(".new")
        new.write_text(json.dumps(asdict(container)))
        new.rename(file)

    def load(self, id: str) -> Container:
        """OciError when there is none."""
        try:
            return Container(**json.loads((self.folder(id) / "state.json").read_text()))
        except FileNotFoundError:
            raise OciError(f"container {id} does not exist") from None

    def config(self, id: str) -> dict[str, Any]:
        """As it was when the container was created."""
        config: dict[str, Any] = json.loads((self.folder(id) / "config.json").read_text())
        return config

    def remove(self, id: str) -> None:
        """Undoes `make`."""
        shutil.rmtree(self.folder(id))

    def all(self) -> Iterator[Container]:
        """By id. One that is taken away meanwhile is left out."""
        for name in sorted(os.listdir(self.root) if self.root.exists() else []):
            with contextlib.suppress(OciError):
                yield self.load(name)

    def gate(self, id: str) -> Path:
        """Where its first process waits until it is started."""
        return self.folder(id) / "gate"

    def status(self, container: Container) -> str:
        """As the specification has it: creating, created, running or stopped."""
        if not container.pid:
            return "creating"
        if not container.alive():
            return "stopped"
        return "created" if self.gate(container.id).exists() else "running"

    def described(self, container: Container, status: str = "") -> dict[str, Any]:
        """The state as programs and hooks are told it."""
        status = status or self.status(container)
        told: dict[str, Any] = {"ociVersion": VERSION, "id": container.id, "status": status}
        if status in ("created", "running") or (status == "creating" and container.pid):
            told["pid"] = container.pid
        told["bundle"] = container.bundle
        if container.annotations:
            told["annotations"] = container.annotations
        return told

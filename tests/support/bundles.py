"""OCI bundles made on the spot, and `tinyo-oci` as others call it.

bundle = Bundle(tmp_path)
bundle.change(process={"args": ["id"]})
bundle.oci("run", "a").stdout
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.images import BUSYBOX

OCI = Path(sys.executable).with_name("tinyo-oci")
APPLETS = [
    "cat",
    "echo",
    "env",
    "grep",
    "hostname",
    "id",
    "ls",
    "mount",
    "ps",
    "readlink",
    "sh",
    "sleep",
    "stat",
    "stty",
    "touch",
    "true",
    "tty",
    "wc",
]


class Bundle:
    """A folder with config.json, as `tinyo-oci spec` writes it but without a terminal, and a busybox as its root."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder / "bundle", folder / "state"
        busybox(self.folder / "rootfs")
        self.oci("spec", "--bundle", str(self.folder))
        self.change(process={"terminal": False})

    @property
    def config(self) -> dict[str, Any]:
        """What config.json says."""
        found: dict[str, Any] = json.loads((self.folder / "config.json").read_text())
        return found

    def write(self, config: dict[str, Any]) -> None:
        """Another config.json."""
        (self.folder / "config.json").write_text(json.dumps(config))

    def change(self, **changes: Any) -> None:
        """Keys of config.json; those of an object are changed one by one."""
        self.write(merged(self.config, changes))

    def shell(self, script: str, **changes: Any) -> None:
        """What its program does."""
        self.change(**merged({"process": {"args": ["sh", "-c", script]}}, changes))

    def oci(self, *arguments: str, **how: Any) -> "subprocess.CompletedProcess[str]":
        """One command, from the bundle; its output is read unless `how` says otherwise."""
        pipes: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        command: list[str | Path] = [OCI, "--root", self.root, *arguments]
        return subprocess.run(command, cwd=self.folder, text=True, timeout=20, **pipes | how)

    def run(self, script: str, **changes: Any) -> str:
        """The output of a script in a container of its own, which ends well."""
        self.shell(script, **changes)
        done = self.oci("run", "once")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def create(self, id: str, output: Path | None = None) -> int:
        """The number of its process, which falls to us. What it writes goes to `output`, and never to a pipe of ours."""
        pid, errors = (self.folder / f"{id}.{name}" for name in ("pid", "errors"))
        with open(output or os.devnull, "wb") as out, open(errors, "wb") as err:
            done = self.oci("create", "--pid-file", str(pid), id, stdout=out, stderr=err)
        assert done.returncode == 0, errors.read_text()
        return int(pid.read_text())

    def state(self, id: str) -> dict[str, Any]:
        """What `state` says."""
        found: dict[str, Any] = json.loads(self.oci("state", id).stdout)
        return found

    def nothing_left(self) -> bool:
        """Whether no container is remembered."""
        return not self.root.exists() or not os.listdir(self.root)


def busybox(root: Path) -> None:
    """A root file system."""
    for name in ("bin", "etc", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "bin/busybox").write_bytes(BUSYBOX.read_bytes())
    (root / "bin/busybox").chmod(0o755)
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n")


def merged(before: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Objects are merged, everything else is replaced."""
    both = {
        key: merged(before[key], value)
        if isinstance(value, dict) and isinstance(before.get(key), dict)
        else value
        for key, value in changes.items()
    }
    return before | both

"""A podman of its own, with `tinyo-oci` as its runtime: nothing of it is outside of one folder, but cgroups."""

import os
import pty
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.bundles import OCI, Bundle


class Podman:
    """podman("run", "busybox", "true") -> what came of it."""

    #: podman would ask for more than a machine that is a container itself may have.
    limits = ("--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        runtime = folder / "tinyo-oci"
        runtime.write_text(f'#!/bin/sh\nexec {OCI} --root {folder}/oci "$@"\n')
        runtime.chmod(0o755)
        self._before = cgroups()
        self._command = [
            *(
                "podman",
                "--root",
                f"{folder}/root",
                "--runroot",
                f"{folder}/run",
                "--tmpdir",
                f"{folder}/tmp",
            ),
            *("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"),
            *("--runtime", str(runtime)),
        ]
        settings = folder / "containers.conf"
        settings.write_text('[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n')
        self._environment = {**os.environ, "CONTAINERS_CONF": str(settings)}
        archive = folder / "busybox.tar"
        subprocess.run(["tar", "-C", bundle.folder / "rootfs", "-cf", archive, "."], check=True)
        done = self("import", str(archive), "busybox:latest")
        assert done.returncode == 0, done.stderr

    def __call__(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """One command."""
        command = [*self._command, *arguments]
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            env=self._environment,
        )

    def typed(self, *arguments: str) -> tuple[int, str]:
        """The exit code and the output of one on a terminal."""
        pid, master = pty.fork()
        if pid == 0:
            os.execvpe("podman", [*self._command, *arguments], self._environment)
        out = b""
        with suppress(OSError):  # EIO: it has ended
            while data := os.read(master, 4096):
                out += data
        os.close(master)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), out.decode().strip()

    def take_away(self) -> None:
        """The cgroups that podman leaves."""
        for path in sorted(cgroups() - self._before, reverse=True):
            with suppress(OSError):
                path.rmdir()


@contextmanager
def made_for_a_test(bundle: Bundle) -> Iterator[Podman]:
    """One with an image of busybox; the test is skipped where there is no podman."""
    if missing := [name for name in ("podman", "conmon") if not shutil.which(name)]:
        pytest.skip(f"not installed: {' '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="p") as folder:  # podman wants its paths to be short
        made = Podman(Path(folder), bundle)
        yield made
        made("pod", "rm", "--all", "--force", "--time", "0")
        made("rm", "--all", "--force", "--time", "0")
        made.take_away()


def cgroups() -> set[Path]:
    """Those of podman."""
    return {path for path in Path("/sys/fs/cgroup").glob("**/*libpod*/**") if path.is_dir()}

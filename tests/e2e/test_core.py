"""What counts as the core is honest: with it alone, the first example comes up and goes away."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import core_alone, images
from tests.support.instance import PATIENCE, Instance
from tests.support.registry import free_port, registry

ANSWER = "cat /mnt/hosts /config/mine"


@pytest.fixture
def image(tmp_path: Path) -> Iterator[str]:
    """An image like alpine in a registry on loopback."""
    with registry(tmp_path / "registry") as address:
        yield images.busybox_image(address, "alpine")


def test_the_example_runs_on_the_core_alone(tmp_path: Path, image: str) -> None:
    """Pulled, isolated, networked, mounted; and nothing is left of it."""
    (tmp_path / "local-config").mkdir()
    (tmp_path / "local-config/mine").write_text("my own\n")
    port = free_port()
    statefile = tmp_path / "alpine-1.yml"
    serve = f"while :; do {ANSWER} | nc -l -p 8080; done"
    statefile.write_text(
        f'container: "{image}"\n'
        f'port: "{port}:8080"\n'
        f"command: {['sh', '-c', serve]}\n"
        "mounts:\n"
        '  - source: "/etc/hosts"\n'
        '    target: "/mnt/hosts"\n'
        f'  - source: "{tmp_path}/local-config"\n'
        '    target: "/config"\n'
    )
    with Instance(PYTHONPATH=str(core_alone.copy(tmp_path / "core"))) as instance:
        instance.cli("+", str(statefile))
        assert answered(port) == Path("/etc/hosts").read_bytes() + b"my own\n"
        (spawner,) = instance.spawners()
        (container,) = Path(f"/proc/{spawner}/task/{spawner}/children").read_text().split()
        for kind in ("mnt", "pid", "net", "ipc", "uts"):
            assert os.readlink(f"/proc/{container}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
        instance.cli("-", str(statefile))
        assert not running(serve)
        for service in ("tinyo-node", "tinyo-runtime"):
            instance.stop(service)
        if spawner in instance.spawners():
            os.kill(spawner, signal.SIGTERM)


def answered(port: int) -> bytes:
    """What somebody answers who connects, as soon as anybody does."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
                if data := b"".join(iter(lambda: connection.recv(4096), b"")):
                    return data
        except ConnectionError:
            assert time.monotonic() < deadline
        time.sleep(0.02)


def running(script: str) -> list[int]:
    """Processes that run this script."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if Path(f"/proc/{pid}/cmdline").read_bytes() == b"sh\0-c\0" + script.encode() + b"\0":
                found.append(int(pid))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found

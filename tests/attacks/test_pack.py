"""Attacks on the packer, which reads as root what a container made, by way of the container's files."""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

SECRET = b"the host's secret"


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    """A container's folder; beside it a file that is none of its business."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(SECRET)
    (tmp_path / "upper").mkdir()
    return tmp_path / "upper"


@contextmanager
def packer(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The program while it packs into a pipe, and the other end of that."""
    read, write = os.pipe()
    command = [sys.executable, "-I", "-m", "tinyo_runtime.pack", str(folder), "gzip", str(write)]
    with subprocess.Popen(command, pass_fds=[write], stdout=subprocess.PIPE, env={}) as process:
        os.close(write)
        try:
            yield process, read
        finally:
            os.close(read)
            process.kill()


def test_it_can_read_one_folder_and_nothing_else(upper: Path) -> None:
    """Whoever takes it over, by a bug in what parses the container's files, has this and no more."""
    (upper / "big").write_bytes(os.urandom(8 << 20))
    with packer(upper) as (process, layer):
        assert os.read(layer, 1)  # it has begun, and waits until somebody reads the rest
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        )
        # dac_read_search and sys_admin; and no thread has more
        for thread in Path(f"/proc/{process.pid}/task").iterdir():
            assert "CapEff:\t0000000000200004\n" in (thread / "status").read_text()
        assert status["CapPrm"] == "0000000000200004" and status["NoNewPrivs"] == "1"
        for kind in ("net", "ipc"):
            assert os.readlink(f"/proc/{process.pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
        root = f"/proc/{process.pid}/root"
        assert os.listdir(root) == ["big"]
        assert os.statvfs(root).f_flag & (os.ST_RDONLY | os.ST_NODEV | os.ST_NOSUID | os.ST_NOEXEC) == (
            os.ST_RDONLY | os.ST_NODEV | os.ST_NOSUID | os.ST_NOEXEC
        )
        with pytest.raises(OSError, match="Read-only"):
            Path(root, "new").touch()
        assert not os.environ.keys() & {Path(f"/proc/{process.pid}/environ").read_text().split("=")[0]}


def test_it_goes_with_who_started_it(upper: Path) -> None:
    (upper / "big").write_bytes(os.urandom(8 << 20))
    script = (
        "import os, subprocess, sys; r, w = os.pipe(); "
        "p = subprocess.Popen([sys.executable, '-I', '-m', 'tinyo_runtime.pack', sys.argv[1], 'gzip', str(w)],"
        " pass_fds=[w], stdout=-3); os.read(r, 1); print(p.pid, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(upper)]
    with subprocess.Popen(command, stdin=-1, stdout=-1) as starter:
        assert starter.stdout
        pidfd = os.pidfd_open(int(starter.stdout.readline()))
        starter.kill()
    status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)  # the tests are subreaper
    os.close(pidfd)
    assert status and status.si_status == signal.SIGKILL


def swap_folder(upper: Path) -> Callable[[], None]:
    """A folder and a link to somewhere else take turns under one name."""
    (upper / "d").mkdir()
    (upper / "d/secret").write_bytes(b"mine")

    def swap() -> None:
        os.rename(upper / "d", upper / "kept")
        os.symlink("../outside", upper / "d")
        os.unlink(upper / "d")
        os.rename(upper / "kept", upper / "d")

    return swap


def swap_file(upper: Path) -> Callable[[], None]:
    """A file, a link, a pipe and a device take turns."""
    (upper / "f").write_bytes(b"mine")

    def swap() -> None:
        for make in (
            lambda name: os.symlink("../outside/secret", name),
            lambda name: os.mkfifo(name),
            lambda name: os.mknod(name, 0o20600, os.makedev(1, 3)),
            lambda name: Path(name).write_bytes(b"mine"),
        ):
            with suppress(FileNotFoundError):
                os.unlink(upper / "new")
            make(upper / "new")
            os.rename(upper / "new", upper / "f")

    return swap


def breathe(upper: Path) -> Callable[[], None]:
    """A file grows and shrinks."""
    sizes = (0, 3 << 20, 1, 5 << 20, 511, 80 << 20)

    def swap() -> None:
        for size in sizes:
            os.truncate(upper / "f", size)

    (upper / "f").touch()
    return swap


def describe(upper: Path) -> Callable[[], None]:
    """Attributes come and go."""
    (upper / "f").touch()

    def swap() -> None:
        for number in range(9):
            os.setxattr(upper / "f", f"user.{number}", b"x" * number)
        for number in range(9):
            os.removexattr(upper / "f", f"user.{number}")

    return swap


def come_and_go(upper: Path) -> Callable[[], None]:
    """Names come and go, with what is in them."""

    def swap() -> None:
        for number in range(20):
            (upper / f"d{number}").mkdir()
            (upper / f"d{number}/f").write_bytes(b"x")
        for number in range(20):
            (upper / f"d{number}/f").unlink()
            (upper / f"d{number}").rmdir()

    return swap


@pytest.mark.parametrize("change", [swap_folder, swap_file, breathe, describe, come_and_go])
def test_files_that_change_meanwhile(upper: Path, change: Callable[[Path], Callable[[], None]]) -> None:
    """The archive is whole, and has nothing of what is outside, whatever is done to the folder meanwhile."""
    swap, stop = change(upper), threading.Event()

    def keep_on() -> None:
        while not stop.is_set():
            swap()

    attacker = threading.Thread(target=keep_on)
    attacker.start()
    try:
        for _ in range(8):
            with packer(upper) as (process, layer), open(os.dup(layer), "rb") as data:
                plain = gzip.decompress(data.read())
                assert process.stdout
                verdict = json.loads(process.stdout.read())
            assert "error" not in verdict, verdict
            assert verdict["size"] == len(plain) and SECRET not in plain
            with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
                for member in archive:
                    if member.isreg():
                        content = archive.extractfile(member)
                        assert content and len(content.read()) == member.size
            assert plain.endswith(bytes(1024))
    finally:
        stop.set()
        attacker.join()

"""The oracle finds every kind of thing that could be left behind."""

import gc
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.support.clean import assert_clean, snapshot

Leak = Callable[[Path], AbstractContextManager[object]]


def run(*command: str, stdin: str | None = None) -> None:
    subprocess.run(command, check=True, input=stdin, text=True, capture_output=True)


@contextmanager
def mount(folder: Path) -> Iterator[None]:
    run("mount", "-t", "tmpfs", "leak", str(folder))
    try:
        yield
    finally:
        run("umount", str(folder))


@contextmanager
def interface(folder: Path) -> Iterator[None]:
    run("ip", "link", "add", "leak0", "type", "veth", "peer", "leak1")
    try:
        yield
    finally:
        run("ip", "link", "del", "leak0")


@contextmanager
def route(folder: Path) -> Iterator[None]:
    run("ip", "route", "add", "blackhole", "198.51.100.7", "table", "1077")
    try:
        yield
    finally:
        run("ip", "route", "del", "blackhole", "198.51.100.7", "table", "1077")


@contextmanager
def table(folder: Path) -> Iterator[None]:
    run(
        "nft",
        "-f",
        "-",
        stdin="table ip leak { set s { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.2 }; }; }",
    )
    try:
        yield
    finally:
        run("nft", "delete", "table", "ip", "leak")


@contextmanager
def cgroup(folder: Path) -> Iterator[None]:
    lines = map(str.split, Path("/proc/self/mountinfo").read_text().splitlines())
    made = Path(
        next(fields[4] for fields in lines if fields[fields.index("-") + 1].startswith("cgroup")), "leak"
    )
    made.mkdir()
    try:
        yield
    finally:
        made.rmdir()


@contextmanager
def process(folder: Path) -> Iterator[None]:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE):  # ends with its input
        yield


@contextmanager
def orphan(folder: Path) -> Iterator[None]:
    read, write = os.pipe()
    subprocess.run(["sh", "-c", f"cat /dev/fd/{read} &"], pass_fds=[read], check=True)
    try:
        yield
    finally:
        os.close(read)
        os.close(write)


@contextmanager
def namespace(folder: Path) -> Iterator[None]:
    command = ["unshare", "-n", "sh", "-c", "echo; cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as inside:
        assert inside.stdout and inside.stdout.readline() == b"\n"
        yield


@contextmanager
def mounted_namespace(folder: Path) -> Iterator[None]:
    (folder / "ns").touch()
    run("unshare", f"--net={folder}/ns", "true")
    try:
        yield
    finally:
        run("umount", f"{folder}/ns")


def port(folder: Path) -> AbstractContextManager[object]:
    return socket.create_server(("127.0.0.1", 0))


def temporary(folder: Path) -> AbstractContextManager[object]:
    return tempfile.TemporaryDirectory()


@contextmanager
def loop_device(folder: Path) -> Iterator[None]:
    (folder / "disk").write_bytes(bytes(1 << 20))
    device = subprocess.check_output(["losetup", "--find", "--show", f"{folder}/disk"], text=True).strip()
    try:
        yield
    finally:
        run("losetup", "--detach", device)


def descriptor(folder: Path) -> AbstractContextManager[object]:
    return open("/dev/null", "rb")


def file(folder: Path) -> AbstractContextManager[object]:
    return tempfile.TemporaryDirectory(dir=folder)


LEAKS: dict[Leak, str] = {
    mount: "mount",
    interface: "interface leak0",
    route: "route blackhole 198.51.100.7",
    table: "nftables table ip leak / set s / 192.0.2.2",
    cgroup: "cgroup",
    process: "process",
    orphan: "process",
    namespace: "namespace net:",
    mounted_namespace: "namespace net:",
    port: "port tcp 0100007F",
    temporary: "temporary",
    loop_device: "loop device loop",
    descriptor: f"descriptor of pid {os.getpid()}: /dev/null",
    file: "file",
}


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.__name__)
def test_a_leak_is_found_and_its_end_is_seen(leak: Leak, tmp_path: Path) -> None:
    gc.collect()  # what earlier tests left to it holds descriptors
    baseline = snapshot(pids=[os.getpid()], folders=[tmp_path])
    with leak(tmp_path):
        with pytest.raises(AssertionError) as caught:
            assert_clean(baseline, within=0)
        assert f"left behind: {LEAKS[leak]}" in str(caught.value)
    for made in tmp_path.iterdir():
        made.unlink()
    assert_clean(baseline)


def test_what_is_gone_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    baseline = snapshot(folders=[tmp_path])
    (tmp_path / "file").unlink()
    with pytest.raises(AssertionError, match=r"gone: file .*/file"):
        assert_clean(baseline, within=0)


def test_what_goes_by_itself_in_time_is_no_leak(tmp_path: Path) -> None:
    baseline = snapshot(folders=[tmp_path])
    (tmp_path / "file").touch()
    timer = threading.Timer(0.1, (tmp_path / "file").unlink)
    timer.start()
    assert_clean(baseline)
    timer.join()

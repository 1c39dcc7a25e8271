"""The packer as a program: what it says of a folder, and that the unpacker makes the same folder of it."""

import gzip
import hashlib
import io
import json
import os
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tinyo_runtime.pack import content
from tinyo_runtime.spawner import made

from tests.support.trees import listing

OPAQUE = "trusted.overlay.opaque"


def pack(folder: Path, compression: str = "gzip") -> tuple[dict[str, Any], bytes]:
    """Runs the program; its verdict and the layer."""
    read, write = os.pipe()
    command = [sys.executable, "-I", "-m", "tinyo_runtime.pack", str(folder), compression, str(write)]
    with subprocess.Popen(command, pass_fds=[write], stdout=subprocess.PIPE, env={}) as process:
        os.close(write)
        with open(read, "rb") as layer:
            data = layer.read()
        assert process.stdout
        verdict: dict[str, Any] = json.loads(process.stdout.read())
    assert process.returncode == 0
    return verdict, data


def archive(folder: Path) -> tarfile.TarFile:
    verdict, data = pack(folder)
    plain = gzip.decompress(data)
    assert (verdict["diff_id"], verdict["size"]) == (
        f"sha256:{hashlib.sha256(plain).hexdigest()}",
        len(plain),
    )
    return tarfile.open(fileobj=io.BytesIO(plain), errors="surrogateescape")


def names(folder: Path) -> list[str]:
    return archive(folder).getnames()


def round_trip(folder: Path, target: Path) -> None:
    """What is packed, and unpacked again, is the same."""
    verdict, data = pack(folder)
    assert "error" not in verdict, verdict
    target.mkdir()
    media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
    command = [sys.executable, "-I", "-m", "tinyo_runtime.unpack", str(target), media_type]
    done = subprocess.run(command, input=data, capture_output=True, env={})
    assert json.loads(done.stdout)["diff_id"] == verdict["diff_id"], done.stdout
    assert listing(target) == listing(folder)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text("untouched")
    (tmp_path / "upper").mkdir()
    return tmp_path / "upper"


@pytest.fixture
def full(root: Path) -> Path:
    """A folder with one of everything that a container can make."""
    (root / "etc").mkdir(mode=0o750)
    (root / "etc/plain").write_bytes(b"x" * 1500)
    (root / "etc/empty").touch()
    os.link(root / "etc/plain", root / "etc/again")
    os.symlink("/" + "far/" * 60, root / "long-link")
    os.symlink("../outside", root / "out")
    os.link(root / "out", root / "out-too", follow_symlinks=False)
    os.mkfifo(root / "pipe", 0o640)
    (root / ("n" * 255)).write_text("long name")
    (root / "d1").mkdir()
    deep = root / "d1"
    for _ in range(10):
        deep = deep / ("d" * 60)
        deep.mkdir()
    (deep / "leaf").write_text("deep")
    odd = os.fsencode(root) + b"/not-utf8-\xff\n\x1b[2J"
    with open(odd, "wb") as file:
        file.write(b"odd")
    (root / "owned").write_text("x")
    os.chown(root / "owned", 4_000_000_000, 3_000_000)
    os.chown(root / "long-link", 7, 8, follow_symlinks=False)
    (root / "set-id").write_text("x")
    os.chown(root / "set-id", 5, 5)
    os.chmod(root / "set-id", 0o6755)
    os.chmod(root / "etc", 0o3770)
    (root / "old").touch()
    os.utime(root / "old", ns=(0, -1_500_000_000))
    os.utime(root / "etc/empty", ns=(0, 1_234_567_890_000_000_001))
    (root / "far-future").touch()
    os.utime(root / "far-future", ns=(0, 9_000_000_000 * 10**9))
    os.setxattr(root / "etc/plain", "user.note", b"a\0b=\n")
    os.setxattr(root / "etc", "user.folder", b"")
    capability = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
    os.setxattr(root / "etc/empty", "security.capability", capability)
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", *entry)
        for entry in (
            (1, 6, 2**32 - 1),
            (2, 4, 1000),
            (4, 4, 2**32 - 1),
            (16, 6, 2**32 - 1),
            (32, 0, 2**32 - 1),
        )
    )
    os.setxattr(root / "owned", "system.posix_acl_access", acl)
    os.setxattr(root / "etc", "system.posix_acl_default", acl)
    os.mknod(root / "gone", stat.S_IFCHR, os.makedev(0, 0))
    os.link(root / "gone", root / "d1/gone")  # overlayfs has one inode for all of them
    os.setxattr(root / "d1", OPAQUE, b"y")
    os.setxattr(root, "user.root", b"1")
    os.utime(root, ns=(0, 1_000_000_000_123_456_789))
    os.chmod(root, 0o751)
    return root


def test_what_is_packed_is_unpacked_the_same(full: Path, tmp_path: Path) -> None:
    round_trip(full, tmp_path / "again")


NAME = st.binary(min_size=1, max_size=255).filter(
    lambda name: not set(name) & {0, ord("/")} and name not in (b".", b"..") and not name.startswith(b".wh.")
)
IDS = st.integers(0, 2**32 - 2)
TIMES = st.integers(-(2**31) * 10**9, 2**33 * 10**9)
LEAF = st.one_of(
    st.tuples(st.just("file"), st.binary(max_size=2000)),
    st.tuples(st.just("link"), st.binary(min_size=1, max_size=1000).filter(lambda target: 0 not in target)),
    st.tuples(st.just("pipe"), st.none()),
    st.tuples(st.just("again"), st.none()),
    st.tuples(st.just("gone"), st.none()),
)
TREE = st.recursive(
    st.dictionaries(NAME, LEAF, max_size=4),
    lambda inner: st.dictionaries(NAME, st.one_of(LEAF, st.tuples(st.just("folder"), inner)), max_size=4),
    max_leaves=12,
)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(TREE, st.data())
def test_any_tree_is_unpacked_the_same(tree: Any, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "upper")
        root.mkdir()
        fd = os.open(root, os.O_RDONLY)
        grow(fd, tree, data)
        os.close(fd)
        round_trip(root, Path(folder, "again"))


def grow(fd: int, tree: dict[bytes, tuple[str, Any]], data: st.DataObject) -> None:
    """Makes what a tree says in a folder; "again" is a hard link to the file before it in the same folder."""
    before = None
    for name, (kind, what) in tree.items():
        if kind == "folder":
            os.mkdir(name, dir_fd=fd)
            inner = os.open(name, os.O_RDONLY, dir_fd=fd)
            grow(inner, what, data)
            os.close(inner)
        elif kind == "file" or (kind == "again" and before is None):
            file = os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=fd)
            os.write(file, what or b"")
            if data.draw(st.booleans()):
                os.setxattr(file, "user.note", data.draw(st.binary(max_size=300)))
            os.close(file)
            before = name
        elif kind == "again":
            assert before is not None
            os.link(before, name, src_dir_fd=fd, dst_dir_fd=fd)
            continue
        elif kind == "link":
            os.symlink(what, name, dir_fd=fd)
        elif kind == "pipe":
            os.mkfifo(name, dir_fd=fd)
        else:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=fd)
            continue
        os.chown(name, data.draw(IDS), data.draw(IDS), dir_fd=fd, follow_symlinks=False)
        if kind != "link":
            os.chmod(name, data.draw(st.integers(0, 0o7777)), dir_fd=fd)
        os.utime(name, ns=(0, data.draw(TIMES)), dir_fd=fd, follow_symlinks=False)


def test_the_same_folder_gives_the_same_bytes(full: Path) -> None:
    assert pack(full) == pack(full)


def test_zstd_holds_the_same_archive(full: Path) -> None:
    verdict, data = pack(full, "zstd")
    plain = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
    assert plain == gzip.decompress(pack(full)[1])
    assert verdict["diff_id"] == f"sha256:{hashlib.sha256(plain).hexdigest()}"


def test_what_overlayfs_notes_becomes_what_layers_say(root: Path) -> None:
    (root / "d").mkdir()
    os.setxattr(root / "d", OPAQUE, b"y")
    for note in ("origin", "impure", "nlink"):
        os.setxattr(root / "d", f"trusted.overlay.{note}", b"y")
    os.setxattr(root / "d", "user.overlay.opaque", b"y")
    os.mknod(root / "d/gone", stat.S_IFCHR, os.makedev(0, 0))
    with archive(root) as layer:
        assert layer.getnames() == [".", "d", "d/.wh..wh..opq", "d/.wh.gone"]
        assert all(not set(member.pax_headers) - {"mtime"} for member in layer)


@pytest.mark.parametrize("note", ["redirect", "metacopy"])
def test_files_that_are_elsewhere_are_refused(root: Path, note: str) -> None:
    (root / "moved").touch()
    os.setxattr(root / "moved", f"trusted.overlay.{note}", b"/etc")
    verdict, _ = pack(root)
    assert verdict["error"] == "corrupt" and "moved" in verdict["message"]


def test_what_tinyo_made_for_mounts_is_left_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)

    def make(path: str, kind: Callable[[Path], object]) -> None:
        kind(root / path)
        above, _, name = path.rpartition("/")
        fd = os.open(root / above, os.O_PATH)
        made.mark(fd, name)
        os.close(fd)

    for path in ("proc", "mnt", "mnt/a", "mnt/a/b", "srv", "srv/full"):
        make(path, Path.mkdir)
    (root / "etc").mkdir()
    for path in ("etc/hosts", "etc/kept"):
        make(path, Path.touch)
    (root / "srv/full/own").write_text("the container's")
    (root / "etc/kept").write_text("the container's")
    assert names(root) == [".", "etc", "etc/kept", "srv", "srv/full", "srv/full/own"]


def test_what_no_image_may_have_is_left_out_and_counted(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(root / "disk", stat.S_IFBLK | 0o666, os.makedev(254, 0))
        (root / ".wh.etc").touch()
        (root / ".wh..wh..opq").touch()
        (root / ".wh.folder").mkdir()
        (root / ".wh.folder/inside").touch()
        os.setxattr(root / ".wh.etc", "user.a", b"1")
        (root / "attributes").touch()
        os.setxattr(root / "attributes", "user.a=b", b"1")
        verdict, data = pack(root)
    assert verdict["left_out"] == {"sockets": 1, "devices": 2, "names": 3, "attributes": 1}
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data))) as layer:
        assert layer.getnames() == [".", "attributes"]


def test_holes_are_not_written(root: Path, tmp_path: Path) -> None:
    for name, size in (("huge", 1 << 40), ("tail", (1 << 40) + 777)):
        with (root / name).open("wb") as file:
            file.truncate(size)
    with (root / "tail").open("r+b") as file:
        file.seek(5 << 30)
        file.write(b"middle")
        file.seek((1 << 40) + 700)
        file.write(b"end")
    with (root / "zeros").open("wb") as file:  # not a hole, but as good as one
        for _ in range(300):
            file.write(bytes(1 << 20))
        file.write(b"x")
    verdict, data = pack(root)
    assert verdict["size"] < 1 << 20 and len(data) < 1 << 20
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data))) as layer:
        found = {member.name: member.size for member in layer if member.isfile()}
    assert found == {"huge": 1 << 40, "tail": (1 << 40) + 777, "zeros": (300 << 20) + 1}
    target = tmp_path / "again"
    target.mkdir()
    media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
    command = [sys.executable, "-I", "-m", "tinyo_runtime.unpack", str(target), media_type]
    done = subprocess.run(command, input=data, capture_output=True, env={})
    assert json.loads(done.stdout)["diff_id"] == verdict["diff_id"], done.stdout
    assert sum(path.stat().st_blocks for path in target.iterdir()) * 512 < 1 << 20
    with (target / "tail").open("rb") as file:
        file.seek(5 << 30)
        assert file.read(7) == b"middle\0"
        file.seek((1 << 40) + 700)
        assert file.read() == b"end" + bytes(74)
    with (target / "zeros").open("rb") as file:
        file.seek(300 << 20)
        assert file.read() == b"x"


def test_a_map_of_many_pieces_stays_small(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others hold it in memory: pieces that are near to each other become one."""
    monkeypatch.setattr(content, "_PIECES", 40)
    spots = [number << 17 for number in range(100)] + [number << 26 for number in range(1, 11)]
    with (root / "f").open("w+b") as file:
        for spot in spots:
            os.pwrite(file.fileno(), b"x", spot)
        found = content.pieces(file.fileno(), (10 << 26) + 1)
    assert len(found) == 11 and sum(length for _, length in found) < 16 << 20
    assert all(any(start <= spot < start + length for start, length in found) for spot in spots)


def test_too_deep_is_said(root: Path) -> None:
    fd = os.open(root, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=fd)
        fd, above = os.open("d", os.O_RDONLY, dir_fd=fd), fd
        os.close(above)
    os.close(fd)
    verdict, _ = pack(root)
    assert verdict == {"error": "corrupt", "message": "257 folders deep is more than 256"}
    subprocess.run(["rm", "-r", root], check=True)


def test_what_nobody_would_unpack_is_refused(root: Path) -> None:
    for number in range(5):  # each too small for a sparse file; gzip would make more of them
        with (root / f"zeros{number}").open("wb") as file:
            file.truncate(60 << 20)
    verdict, _ = pack(root, "zstd")
    assert verdict["error"] == "corrupt" and "unpacks to more than" in verdict["message"]


def test_a_full_disk_is_said_with_its_number(root: Path) -> None:
    (root / "f").write_bytes(os.urandom(4 << 20))
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-I", "-m", "tinyo_runtime.pack", str(root), "gzip", str(full.fileno())]
        done = subprocess.run(command, pass_fds=[full.fileno()], capture_output=True, env={})
    assert json.loads(done.stdout)["errno"] == 28

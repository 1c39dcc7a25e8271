"""`tinyo image import` and `export` as people meet them, against a node in memory."""

import io
import os
import pty
import signal
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1.image_pb2 import ImportSpec

from tests.support.archives import members, oci_archive
from tests.support.fake_node import FakeNode
from tests.support.images import file, folder, image, layer, member, symlink, write_layout

TINYO = str(Path(sys.executable).with_name("tinyo"))
PATIENCE = 60
Run = Callable[..., subprocess.CompletedProcess[bytes]]
BUILT = image([layer(file("etc/motd", b"hello"))])
SAID = "✓ a:1  sha256:00  5 B\n".encode()


@pytest.fixture
def tinyo(environment: dict[str, str]) -> Run:
    def run(
        *arguments: str | Path, stdin: bytes = b"", limit: int | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """With `limit`, no file may become larger."""

        command = ["prlimit", f"--fsize={limit}"] if limit is not None else []
        return subprocess.run(
            [*command, TINYO, "image", *arguments],
            env=environment,
            input=stdin,
            capture_output=True,
            timeout=PATIENCE,
        )

    return run


def at_terminal(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Exit code, and what is said when input and output are a terminal."""
    master, slave = pty.openpty()
    command = [TINYO, "image", *arguments]
    done = subprocess.run(
        command, env=environment, stdin=slave, stdout=slave, stderr=subprocess.PIPE, timeout=PATIENCE
    )
    os.close(slave)
    os.close(master)
    return done.returncode, done.stderr.decode()


def test_a_file_and_standard_input(tinyo: Run, node: FakeNode, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "a.tar").write_bytes(data)
    assert tinyo("import", tmp_path / "a.tar").stdout == SAID
    assert node.archive == data and node.requests == [pb.ImportImagesRequest(start=ImportSpec())]
    words = ["-c", "CMD ls", "--change", "ENV A=b", "--name", "n", "--platform", "linux/arm64"]
    done = tinyo("import", *words, "-", "x:1", "y", stdin=data[:5])
    assert done.stdout == SAID and node.archive == data[:5]
    spec = ImportSpec(
        references=["x:1", "y"], name="n", platform="linux/arm64", changes=["CMD ls", "ENV A=b"]
    )
    assert node.requests[-1] == pb.ImportImagesRequest(start=spec)


def test_a_folder_goes_as_a_tar(tinyo: Run, node: FakeNode, tmp_path: Path) -> None:
    write_layout(BUILT, tmp_path / "layout", "x:1")
    (tmp_path / "layout/README").write_text("not of the layout")
    (tmp_path / "layout/blobs/.tmp").mkdir()
    assert tinyo("import", tmp_path / "layout").stdout == SAID
    sent = members(node.archive)
    assert set(sent) == {"oci-layout", "index.json", *members(oci_archive(BUILT))}
    assert sent["index.json"] == (tmp_path / "layout/index.json").read_bytes()
    key, blob = next(iter(BUILT.blobs.items()))
    path = tmp_path / "layout/blobs" / key.replace(":", "/")
    path.unlink()
    path.symlink_to("/etc/passwd")
    done = tinyo("import", tmp_path / "layout")
    assert done.returncode == 1 and b"cannot be read: Too many levels of symbolic links" in done.stderr
    path.unlink()
    os.mkfifo(path)
    done = tinyo("import", tmp_path / "layout")
    assert done.returncode == 1 and b"is not a file" in done.stderr and blob


def test_what_cannot_be_read(tinyo: Run, node: FakeNode, environment: dict[str, str], tmp_path: Path) -> None:
    done = tinyo("import", tmp_path / "nothing.tar")
    assert done.returncode == 1
    assert done.stderr.endswith(b"nothing.tar cannot be read: No such file or directory\n")
    done = tinyo("import", tmp_path)
    assert (
        done.returncode == 1
        and b"is no OCI layout" in done.stderr
        and b"| tinyo image import -" in done.stderr
    )
    done = tinyo("import", "/proc/self/mem")  # can be opened, but not read
    assert (
        done.returncode == 1 and done.stderr == b"tinyo: /proc/self/mem cannot be read: Input/output error\n"
    )
    assert at_terminal(environment, "import", "-")[0] == 2
    (tmp_path / "oci-layout").write_text("{}")
    done = tinyo("import", tmp_path)
    assert done.returncode == 1 and done.stderr.endswith(
        b"/blobs cannot be read: No such file or directory\n"
    )
    assert b"Traceback" not in done.stderr
    assert tinyo("import").returncode == 2


def test_export_to_a_file(tinyo: Run, node: FakeNode, tmp_path: Path) -> None:
    """Whole or not at all, with the modes that a new file has; what was there before is replaced in the end only."""
    node.archive = os.urandom(1_500_000)
    out = tmp_path / "out.tar"
    old = os.umask(0o027)
    try:
        assert tinyo("export", "a:1", "-o", out).stdout == SAID
    finally:
        os.umask(old)
    assert out.read_bytes() == node.archive and stat.S_IMODE(out.stat().st_mode) == 0o640
    assert node.requests == [pb.ExportImagesRequest(references=["a:1"])]
    node.archive = b"new"
    (tmp_path / "link.tar").symlink_to("out.tar")
    assert tinyo("export", "a:1", "-o", tmp_path / "link.tar").returncode == 0
    assert out.read_bytes() == b"new" and (tmp_path / "link.tar").is_symlink()
    node.gate.clear()
    before = sorted(os.listdir(tmp_path))
    done = tinyo("export", "a:1", "-o", out)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"tinyo: a blob is damaged\n")
    assert out.read_bytes() == b"new" and sorted(os.listdir(tmp_path)) == before
    node.gate.set()
    node.archive = bytes(500_000)
    done = tinyo("export", "a:1", "-o", out, limit=300_000)
    assert done.returncode == 1 and done.stderr.endswith(b"out.tar cannot be written: File too large\n")
    assert out.read_bytes() == b"new" and sorted(os.listdir(tmp_path)) == before
    done = tinyo("export", "a:1", "-o", tmp_path / "no/out.tar")
    assert done.returncode == 1 and done.stderr.endswith(b"cannot be written: No such file or directory\n")
    assert tinyo("export", "a:1", "-o", tmp_path).stderr.endswith(b"cannot be written: Is a directory\n")
    assert tinyo("export", "a:1", "-o", "/dev/null").stdout == SAID


def test_export_to_standard_output(tinyo: Run, node: FakeNode, environment: dict[str, str]) -> None:
    node.archive = os.urandom(1_500_000)
    assert tinyo("export", "a:1").stdout == node.archive == tinyo("export", "a:1", "-o", "-").stdout
    code, said = at_terminal(environment, "export", "a:1")
    assert code == 2 and "standard output is a terminal: use -o FILE" in said
    shell = f"{TINYO} image export a:1 | head -c 10"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shell}"], env=environment, capture_output=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, node.archive[:10], b"")
    node.gate.clear()
    done = tinyo("export", "a:1")
    assert done.returncode == 1 and done.stderr == b"tinyo: a blob is damaged\n"


def test_export_as_a_folder(tinyo: Run, node: FakeNode, tmp_path: Path) -> None:
    node.archive = oci_archive(BUILT, "x:1", extra=[file("manifest.json", b"[]"), folder("blobs")])
    for target in ("new", "empty/"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        done = tinyo("export", "a:1", "--layout", f"{tmp_path}/{target}")
        assert (done.stdout, done.stderr) == (SAID, b"")
        made = tmp_path / target
        there = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
        assert there == set(members(oci_archive(BUILT)))
        assert stat.S_IMODE(made.stat().st_mode) == 0o755
    done = tinyo("export", "a:1", "--layout", tmp_path / "new")
    assert done.returncode == 1 and b"is there already" in done.stderr
    assert tinyo("export", "a:1", "--layout", tmp_path / "x", "-o", "y").returncode == 2
    before = sorted(os.listdir(tmp_path))
    node.gate.clear()
    done = tinyo("export", "a:1", "--layout", tmp_path / "x")
    assert done.returncode == 1 and sorted(os.listdir(tmp_path)) == before


def test_a_node_writes_nothing_but_a_layout(tinyo: Run, node: FakeNode, tmp_path: Path) -> None:
    node.archive = layer(
        file("../outside", b"x"),
        file("/tmp/outside", b"x"),
        file("blobs/../../outside", b"x"),
        file("blobs/sha256/..", b"x"),
        symlink("blobs", "/tmp"),
        symlink("index.json", "/tmp/outside"),
        member("blobs/sha256/00", tarfile.FIFOTYPE),
        file("oci-layout", b"{}"),
        format=tarfile.GNU_FORMAT,
    )
    assert tinyo("export", "a:1", "--layout", tmp_path / "x").returncode == 0
    assert [str(path.relative_to(tmp_path)) for path in (tmp_path / "x").rglob("*")] == ["x/oci-layout"]
    node.archive = b"no archive" * 100
    done = tinyo("export", "a:1", "--layout", tmp_path / "y")
    assert done.returncode == 1 and b"Traceback" not in done.stderr and not (tmp_path / "y").exists()
    assert io.BytesIO(done.stderr).readlines()[0].startswith(b"tinyo: ")


def test_ctrl_c_leaves_nothing(node: FakeNode, environment: dict[str, str], tmp_path: Path) -> None:
    """While a program that never ends sends, and while a reader that never reads is sent to."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [TINYO, "image", "import", fifo], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with fifo.open("wb") as writer:
        writer.write(bytes(100))
        writer.flush()
        node.heard.wait(PATIENCE)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (130, b"", b"")

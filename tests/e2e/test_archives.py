"""Images on their way between files and real services: whole or not at all, whoever is killed on the way."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.archives import oci_archive, saved
from tests.support.clean import links
from tests.support.images import BUSYBOX, busybox, busybox_layer, file, image, layer, skopeo
from tests.support.instance import PATIENCE, PROGRAMS, Instance

TAR = "application/vnd.oci.image.layer.v1.tar"
TINYO = str(PROGRAMS / "tinyo")


def piped(instance: Instance, data: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Runs `tinyo image …` with bytes as standard input."""
    return subprocess.run(
        [TINYO, "image", *arguments],
        env=instance.environment,
        input=data,
        capture_output=True,
        timeout=PATIENCE,
    )


def eventually(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def unfinished(instance: Instance) -> list[str]:
    return os.listdir(instance.state / "pulling")


def test_images_go_round(instance: Instance, tmp_path: Path) -> None:
    """docker's archive comes in, runs, goes out as a file, a stream and a folder, and comes back."""
    done = piped(instance, saved([busybox_layer()], ["web:1"], {"Cmd": ["/bin/sh"]}), "import", "-")
    assert done.returncode == 0 and "✓ docker.io/library/web:1  sha256:" in done.stdout.decode()
    (tmp_path / "web.yml").write_text("container: web:1\n")
    instance.cli("+", str(tmp_path / "web.yml"))
    assert instance.cli("exec", "web", "--", "echo", "alive").stdout == "alive\n"
    out = tmp_path / "out.tar"
    instance.cli("image", "export", "web:1", "-o", str(out))
    assert piped(instance, b"", "export", "web:1").stdout == out.read_bytes()
    instance.cli("image", "export", "web:1", "--layout", str(tmp_path / "layout"))
    skopeo("inspect", f"oci-archive:{out}:docker.io/library/web:1")
    skopeo("inspect", f"docker-archive:{out}:docker.io/library/web:1")
    subprocess.run(["umoci", "stat", "--image", f"{tmp_path}/layout:docker.io/library/web:1"], check=True)
    digest = json.loads(instance.cli("image", "inspect", "web:1").stdout)["digest"]
    instance.cli("-", "web")
    for source in (out, tmp_path / "layout"):
        instance.cli("image", "rm", "web:1")
        said = instance.cli("image", "import", str(source)).stdout
        assert f"✓ docker.io/library/web:1  {digest}  " in said
    assert instance.cli("image", "verify").returncode == 0


def test_a_root_file_system_runs(instance: Instance, tmp_path: Path) -> None:
    subprocess.run(["mkdir", "-p", tmp_path / "root/bin"], check=True)
    (tmp_path / "root/bin/busybox").write_bytes(BUSYBOX.read_bytes())
    (tmp_path / "root/bin/busybox").chmod(0o755)
    pack = f"tar -C {tmp_path}/root -c . | gzip"
    packed = subprocess.run(["bash", "-c", pack], check=True, capture_output=True).stdout
    change = 'CMD ["/bin/busybox", "sh"]'
    done = piped(instance, packed, "import", "--name", "base", "-c", change, "-c", "ENV WHO=me", "-")
    assert done.returncode == 0, done.stderr
    (tmp_path / "base.yml").write_text("container: base\n")
    instance.cli("+", str(tmp_path / "base.yml"))
    script = ["/bin/busybox", "sh", "-c", "echo $WHO"]
    assert instance.cli("exec", "base", "--", *script).stdout == "me\n"
    assert "CMD" in instance.cli("image", "history", "base").stdout


def test_whoever_is_killed_nothing_is_left(instance: Instance) -> None:
    """The command by Ctrl-C, or without a word; the runtime itself. An archive that is half there is no image."""
    archive = oci_archive(busybox([layer(file("big", os.urandom(8_000_000)))]), "x")
    command = [TINYO, "image", "import", "-"]
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9), (None, 3)):
        sender = subprocess.Popen(
            command, env=instance.environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert sender.stdin and sender.stderr
        sender.stdin.write(archive[:4_000_000])
        sender.stdin.flush()
        eventually(lambda: unfinished(instance))
        if number:
            sender.send_signal(number)
        else:
            instance.kill("tinyo-runtime")
        said = sender.stderr.read()
        assert sender.wait(PATIENCE) == code, said
        assert b"Traceback" not in said
        sender.stderr.close()
        sender.stdin.close()
        if not number:
            instance.start("tinyo-runtime")
        eventually(lambda: not unfinished(instance))
    assert os.listdir(instance.state / "layers") == []
    eventually(lambda: piped(instance, archive, "import", "-").returncode == 0)


def test_an_export_that_fails_leaves_the_old_file(instance: Instance, tmp_path: Path) -> None:
    piped(instance, oci_archive(busybox([layer(file("big", os.urandom(3_000_000)))]), "x"), "import", "-")
    out = tmp_path / "out.tar"
    out.write_bytes(b"old")
    layers = json.loads(instance.cli("image", "inspect", "x").stdout)["layers"]
    blob = instance.state / "images/blobs" / layers[1]["digest"].replace(":", "/")
    blob.write_bytes(bytes(len(blob.read_bytes())))
    failed = instance.cli("image", "export", "x", "-o", str(out), check=False)
    assert failed.returncode == 1 and f"blob {layers[1]['digest']} is missing or damaged" in failed.stderr
    assert out.read_bytes() == b"old" and os.listdir(tmp_path) == ["out.tar"]
    assert instance.cli("image", "export", "nothing", check=False).returncode == 1


def test_a_reader_that_stops_and_goes(instance: Instance) -> None:
    """An export waits for who does not read, and ends with who has gone."""
    big = image([layer(file("big", os.urandom(60_000_000)))], media_type=TAR)
    assert piped(instance, oci_archive(big, "x"), "import", "-").returncode == 0
    runtime = instance.pid("tinyo-runtime")

    def opened() -> list[str]:
        return [link for link in links(f"/proc/{runtime}/fd") if "/blobs/" in link]

    reader = subprocess.Popen(
        [TINYO, "image", "export", "x"], env=instance.environment, stdout=subprocess.PIPE
    )
    assert reader.stdout
    reader.stdout.read(1)
    assert len(opened()) == 3
    reader.kill()
    reader.wait(PATIENCE)
    eventually(lambda: not opened())
    assert resident(runtime) < 200 << 20
    reader.stdout.close()


def resident(pid: int) -> int:
    """Bytes of memory that a process had at most (proc_pid_status(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def test_one_error_for_what_is_no_archive(instance: Instance) -> None:
    """Also when most of it was not sent yet."""
    done = piped(instance, b"no archive" * 5_000_000, "import", "-", "--name", "x")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert (
        b"tinyo: the archive cannot be used: a number in a header is malformed: this is not a tar archive"
        in done.stderr
    )
    assert unfinished(instance) == []

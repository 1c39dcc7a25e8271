"""`make bench`: pulls of TinyO beside docker and podman, from one registry on loopback, until a container could start.

Everything is in a network namespace of its own, where dockerd may do what it likes, and on a file system of its
own, an ext4 as Debian makes it: without a journal, ext4 needs seconds to find inodes after others were freed.
Before each run the disk is in sync, and what the last one left is gone: nobody pays for others.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench import peers, pull_costs, pull_images
from bench.contest import Contender, Table, run
from scripts.engine import DOCKER, engine
from tests.support.registry import registry

INSTANCE = "tinyo-pulls"
TINYO = str(Path(sys.executable).with_name("tinyo"))
RUNS, WARM_UP = 5, 1
MIB = 1 << 20
#: Bytes that the file system may grow to.
SIZE = 16 << 30
#: What an image is called: how many layers, bytes in each, its largest file, and how it is compressed.
IMAGES = {
    "four": (4, 118 * MIB, 1 << 40, "gzip"),
    "one": (1, 250 * MIB, MIB, "gzip"),
    "forty": (40, 1_100_000, 1 << 40, "gzip"),
    "zstd": (1, 250 * MIB, MIB, "zstd"),
}


def main() -> None:
    """Sets everybody up, measures image by image, prints the table, takes everything away."""
    if os.geteuid() != 0:
        sys.exit("make bench needs root: it starts container engines")
    if "--apart" not in sys.argv:
        apart = 'ip link set lo up; exec "$@"'
        again = [sys.executable, "-m", "bench.pull", "--apart"]
        os.execvp("unshare", ["unshare", "--net", "--mount", "sh", "-c", apart, "sh", *again])
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody's installation compiles itself at every start
    os.environ["TINYO_INSTANCE"] = INSTANCE
    with ExitStack() as undo:
        kept = os.environ.get("BENCH_FOLDER")
        folder = undo.enter_context(disk())
        host = undo.enter_context(registry(folder / "registry"))
        names = images(Path(kept) if kept else folder, host)
        run(TINYO, "services", "start")
        undo.callback(run, TINYO, "services", "stop")
        address = undo.enter_context(engine(folder / "docker", network=False))
        docker = [DOCKER, "--host", address]
        state = [f"--root={folder}/podman", f"--runroot={folder}/podman-run"]
        podman = ["podman", *state, "--storage-driver=overlay"]
        undo.callback(run, *podman, "system", "reset", "--force")
        table = Table("pull", peers.versions("docker", "podman"), runs=RUNS, warm_up=WARM_UP)
        contest = Contest(table, docker, podman)
        for name, (reference, compressed, unpacked) in names.items():
            count = IMAGES[name][0]
            title = f"{count} layer{'s'[: count - 1]}, {compressed / 1e6:.0f} MB of {IMAGES[name][3]}"
            contest.pull(f"{title}, {unpacked / 1e6:.0f} MB unpacked", reference, zstd=name == "zstd")
        one, *_ = names["one"]
        contest.again("the same again, unchanged", one)
        contest.forget("remove one layer of 17,000 entries", one)
        pull_costs.measure(table, INSTANCE, folder, names["four"], one)
        pull_costs.limits(table, (Path(kept) if kept else folder) / "one", folder)
        table.keep()


@contextmanager
def disk() -> Iterator[Path]:
    """A new file system; the instance's state folder is on it too. Only this process and its children see it."""
    state = Path("/var/lib", INSTANCE)
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as outside, ExitStack() as undo:
        file, folder = Path(outside, "ext4"), Path(outside, "disk")
        with file.open("wb") as empty:
            empty.truncate(SIZE)
        run("mkfs.ext4", "-q", str(file))
        folder.mkdir()
        run("mount", "-o", "loop", str(file), str(folder))
        undo.callback(run, "umount", "--recursive", str(folder))
        (folder / "state").mkdir()
        state.mkdir(0o700)
        undo.callback(state.rmdir)
        run("mount", "--bind", str(folder / "state"), str(state))
        undo.callback(run, "umount", str(state))
        for device in Path("/sys/block").glob("loop*/loop/backing_file"):
            if device.read_text().strip() == str(file):
                run("losetup", "--direct-io=on", f"/dev/{device.parts[3]}")
        yield folder


def images(folder: Path, host: str) -> dict[str, tuple[str, int, int]]:
    """Puts the images into the registry: reference, compressed and unpacked bytes of each."""
    tree = pull_images.tree(folder)
    found = {}
    for name, (count, size, largest, compression) in IMAGES.items():
        layout, reference = folder / name, f"{host}/{name}:latest"
        if not layout.exists():
            pull_images.layout(layout, pull_images.layers(tree, count, size, largest), compression)
        run("skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{reference}")
        found[name] = (reference, *pull_images.sizes(layout))
    return found


class Contest:
    """How each of them pulls, and forgets what it pulled."""

    def __init__(self, table: Table, docker: list[str], podman: list[str]) -> None:
        self._table = table
        #: Name, command for pulling, command for forgetting.
        self._contenders = [
            ("tinyo image", [TINYO, "image", "pull"], [TINYO, "image", "rm"]),
            ("docker", [*docker, "pull"], [*docker, "rmi"]),
            ("podman", [*podman, "pull", "--tls-verify=false"], [*podman, "rmi"]),
        ]

    def pull(self, title: str, reference: str, *, zstd: bool) -> None:
        """From nothing until a container could start."""
        contenders = [
            Contender(
                f"{name} pull", partial(run, *pull, reference), partial(run, *forget, reference), settled
            )
            for name, pull, forget in self._contenders
            if not (zstd and name == "docker")  # Debian's does not know it
        ]
        self._table.compare(title, *contenders)

    def again(self, title: str, reference: str) -> None:
        """All is here, and the registry has nothing new."""
        for _, pull, _ in self._contenders:
            run(*pull, reference)
        contenders = [
            Contender(f"{name} pull", partial(run, *pull, reference)) for name, pull, _ in self._contenders
        ]
        self._table.compare(title, *contenders)

    def forget(self, title: str, reference: str) -> None:
        """Until the command has ended."""
        contenders = [
            Contender(f"{name} rm", partial(run, *forget, reference), partial(run, *pull, reference), settled)
            for name, pull, forget in self._contenders
        ]
        self._table.compare(title, *contenders)
        for _, _, forget in self._contenders:
            run(*forget, reference)


def settled() -> None:
    """Returns when nobody deletes anything any more, and everything has reached the disk."""
    while any(Path("/var/lib", INSTANCE, "pulling").iterdir()):
        time.sleep(0.05)
    os.sync()


if __name__ == "__main__":
    main()

"""`make bench`: TinyO beside docker, crun and runc; the same image, taking turns, on this machine.

Machines differ and are noisy: what means something is the ratio of two medians of one run.
"""

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import grpc
from tinyo.runtime.v1.runtime_pb2 import (
    ContainerConfig,
    CreateRequest,
    DeleteRequest,
    ListRequest,
    PullImageRequest,
    WatchRequest,
)
from tinyo.runtime.v1.runtime_pb2_grpc import RuntimeServiceStub
from tinyo.v1.container_pb2 import PHASE_EXITED, ContainerSpec
from tinyo.v1.userns_pb2 import USER_NAMESPACE_OFF, USER_NAMESPACE_ON, UserNamespace

from bench import peers
from bench.contest import Contender, Table, run
from scripts.demo_image import layer, registry

INSTANCE = "tinyo-bench"
TINYO = str(Path(sys.executable).with_name("tinyo"))
#: Measurements of each contender, after so many that do not count.
RUNS, WARM_UP = 30, 3
PORT = 18080


def main() -> None:
    """Sets everybody up, measures row by row, prints the table, takes everything away."""
    if os.geteuid() != 0:
        sys.exit("make bench needs root: it starts container engines")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody's installation compiles itself at every start
    os.environ["TINYO_INSTANCE"] = INSTANCE
    with ExitStack() as undo:
        folder = Path(tempfile.mkdtemp(prefix="bench-", dir="/var/tmp"))
        undo.callback(shutil.rmtree, folder)
        tar = folder / "image.tar"
        tar.write_bytes(layer())
        bundle = peers.bundle(folder / "bundle", tar, ["true"])

        undo.callback(shutil.rmtree, Path("/var/lib", INSTANCE))
        run(TINYO, "services", "start")
        undo.callback(run, TINYO, "services", "stop")
        image = undo.enter_context(registry())
        channel = undo.enter_context(grpc.insecure_channel(f"unix:/run/{INSTANCE}/runtime.sock"))
        peers.hide_hybrid_cgroups()
        docker = undo.enter_context(peers.docker(folder / "docker", tar))

        table = Table("start", peers.versions("docker", "crun", "runc"), runs=RUNS, warm_up=WARM_UP)
        plain, full = statefiles(folder, image)
        apply_and_run(table, "apply until running", docker, plain, [])
        apply_and_run(
            table, "with a port and a mount", docker, full, [f"-p{PORT}:8080", "-v/etc/hosts:/mnt/hosts"]
        )
        start_until_exit(table, channel, image, bundle)
        list_containers(table, docker, plain)
        table.keep()


def statefiles(folder: Path, image: str) -> tuple[Path, Path]:
    """What docker is told by flags: a shell that stays; and the same with a port and a mount."""
    plain, full = folder / "bench-plain.yml", folder / "bench-full.yml"
    text = f'container: "{image}"\ncommand: ["sleep", "1000"]\n'
    plain.write_text(text)
    full.write_text(f'{text}port: "{PORT}:8080"\nmounts:\n  - source: /etc/hosts\n    target: /mnt/hosts\n')
    return plain, full


def apply_and_run(table: Table, title: str, docker: list[str], statefile: Path, flags: list[str]) -> None:
    """From the command until the container runs."""
    name = statefile.stem
    detached = [*docker, "run", "--detach", "--name", name, *flags, "demo", "sleep", "1000"]
    table.compare(
        title,
        Contender("tinyo +", lambda: run(TINYO, "+", str(statefile)), lambda: run(TINYO, "-", name)),
        Contender("docker run -d", lambda: run(*detached), lambda: run(*docker, "rm", "--force", name)),
    )


def start_until_exit(table: Table, channel: grpc.Channel, image: str, bundle: Path) -> None:
    """`true` in a new container, until it has ended and has given back its cgroup, mounts, network and process.

    Its writable layer is deleted afterwards, and that is not measured: crun and runc have none, and leave the root where
    it was.
    """
    runtime = RuntimeServiceStub(channel)
    *_, last = runtime.PullImage(PullImageRequest(reference=image))
    digest = last.image.digest

    # As the node does: one stream for everything that happens.
    changes = runtime.Watch(WatchRequest(after_sequence=runtime.List(ListRequest()).sequence))

    ids: list[str] = []

    def through_the_service(userns: UserNamespace.ValueType = USER_NAMESPACE_OFF) -> None:
        id = secrets.token_hex(8)
        spec = ContainerSpec(name=id, image=image, command=["true"], userns=userns)
        config = ContainerConfig(id=id, cluster="default", image_digest=digest, spec=spec)
        (result,) = runtime.Create(CreateRequest(containers=[config], start=True)).results
        if result.HasField("error"):
            raise SystemExit(result.error.message)
        for change in changes:
            if change.state.config.id == id and change.state.phase == PHASE_EXITED:
                break
        ids.append(id)

    def delete() -> None:
        runtime.Delete(DeleteRequest(ids=ids))
        ids.clear()

    def by(program: str) -> Callable[[], None]:
        return lambda: run(program, "run", "--bundle", str(bundle), f"bench-{secrets.token_hex(4)}")

    table.compare(
        "start until exit, of `true`",
        Contender("RuntimeService", through_the_service, delete),
        Contender("with a user namespace", lambda: through_the_service(USER_NAMESPACE_ON), delete),
        Contender("crun run", by("crun")),
        Contender("runc run", by("runc")),
    )
    changes.cancel()


def list_containers(table: Table, docker: list[str], statefile: Path) -> None:
    """One container is there."""
    run(TINYO, "+", str(statefile))
    run(*docker, "run", "--detach", "--name", "one", "demo", "sleep", "1000")
    table.compare(
        "list",
        Contender("tinyo ls", lambda: run(TINYO, "ls")),
        Contender("docker ps", lambda: run(*docker, "ps")),
    )
    run(TINYO, "-", statefile.stem)
    run(*docker, "rm", "--force", "one")


if __name__ == "__main__":
    main()

"""Where attacks are tried: an image made on the spot of this machine's busybox and of the programs of `calls`, containers of it in
clusters of their own, and a folder on the host that shows what got out. All of it goes at the end."""

import fcntl
import io
import os
import shutil
import signal
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from tinyo.node.v1 import node_pb2 as api
from tinyo.node.v1.node_pb2_grpc import NodeServiceStub
from tinyo.v1.container_pb2 import Container, ContainerSpec, Phase
from tinyo.v1.image_pb2 import ImportSpec
from tinyo.v1.stream_pb2 import ExecInput, ExecSpec

from tinyo_ctl.attacks import calls
from tinyo_ctl.client import correlation_id
from tinyo_ctl.failures import Failure
from tinyo_ctl.refusals import NodeError
from tinyo_ctl.services import RUN

BUSYBOX = Path("/bin/busybox")
#: Nobody else's; containers of one reach those of the other as little as any.
CLUSTERS = ("doctor", "doctor-other")
ORIGIN = "tinyo doctor --attack"
IMAGE, HOSTILE = "localhost/doctor", "localhost/doctor-hostile"
#: Seconds that one attack may take, and after which a container ends by itself, whatever became of us.
PATIENCE, LIFE = 30, 600
CHUNK = 512 << 10
FOLDERS = ("gift", "trap", "shared", "layer")


class Refused(Exception):
    """A container, or a program in one, does not start; the text says why."""


class Lost(Exception):
    """Nobody answers any more: whether an attack succeeded is not known."""


#: Codes of calls that came to nothing for a reason that has nothing to do with what they were about.
LOST = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@contextmanager
def answered() -> Iterator[None]:
    """Refused or Lost, for whatever a call fails with."""
    try:
        yield
    except grpc.RpcError as error:
        failed = NodeError.of(error)
        if error.code() in LOST:
            raise Lost(str(failed)) from None
        raise Refused(str(failed)) from None


class Ground:
    """As long as it is entered. Failure when there cannot be one."""

    def __init__(self, node: NodeServiceStub) -> None:
        self._node = node
        self._home = RUN / "doctor"
        self._end = ExitStack()
        self.main = Container()
        #: A file of the host that no container has.
        self.outside = f"{self._home}/outside"

    def __enter__(self) -> Self:
        if not BUSYBOX.exists():
            raise Failure(f"{BUSYBOX} is missing, of which attacks are made: apt install busybox-static")
        lock = self._end.enter_context(open(RUN / "doctor.lock", "w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure("another `tinyo doctor --attack` runs: wait for it") from None
        try:
            self._clear()  # whatever one before us left that was killed
            for name in FOLDERS:
                os.makedirs(f"{self._home}/{name}", 0o700)
            Path(self.outside).touch()
            self._import(IMAGE, self._layer())
            self.main = self.up("main")
            self._control()
        except (Refused, Lost) as error:
            self.close()
            raise Failure(
                f"there is nothing to attack from, because no container starts here: {error}"
            ) from None
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Takes all of it away, which takes a moment, and is not interrupted."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        with self._end:
            self._clear()

    def folder(self, name: str) -> str:
        """One of FOLDERS on the host."""
        return f"{self._home}/{name}"

    def up(self, name: str, *, other_cluster: bool = False, **spec: Any) -> Container:
        """Starts a container. Refused when it does not run."""
        cluster = CLUSTERS[other_cluster]
        command = spec.pop("command", ["sleep", str(LIFE)])
        container = ContainerSpec(name=f"doctor-{name}", image=IMAGE, command=command, **spec)
        request = api.ApplyRequest(
            cluster=cluster, containers=[container], origin=ORIGIN, correlation_id=correlation_id()
        )
        with answered():
            settled = [answer.settled for answer in self._node.Apply(request, timeout=PATIENCE)][-1]
        (made,) = settled.containers
        if made.status.phase != Phase.PHASE_RUNNING:
            raise Refused(made.status.error.message)
        return made

    def down(self, name: str) -> None:
        """Takes one away."""
        request = api.RemoveRequest(cluster=CLUSTERS[0], names=[f"doctor-{name}"], grace_ms=0)
        list(self._node.Remove(request, timeout=PATIENCE))

    def run(
        self, *command: str, user: str = "", workdir: str = "", container: Container | None = None
    ) -> tuple[int, str]:
        """Exit code and output of a program in a container: in the one that all have, unless another is said. Raises
        Refused when it cannot be started there, and Lost."""
        where, said = container or self.main, b""
        spec = ExecSpec(command=command, user=user, workdir=workdir)
        start = api.ExecStart(cluster=where.cluster, name=where.spec.name, exec=spec)

        def requests() -> Iterator[api.ExecRequest]:
            yield api.ExecRequest(start=start)
            yield api.ExecRequest(input=ExecInput(end_of_input=True))

        with answered():
            for answer in self._node.Exec(requests(), timeout=PATIENCE):
                said += answer.output.stdout + answer.output.stderr
                if answer.output.HasField("exit"):
                    return answer.output.exit.code, said[-4096:].decode(errors="replace")
        raise Lost("it ended without an exit code")

    def import_hostile(self, target: str) -> None:
        """An image with a layer that wants to write into a folder of the host. Whether it is taken does not matter."""
        above = "../" * 12 + target.lstrip("/")
        entries = [
            entry(f"{above}/above", content=b"hit"),
            entry("way", tarfile.SYMTYPE, to=target),
            entry("way/behind", content=b"hit"),
            entry("hard", tarfile.LNKTYPE, to=f"{above}/hard"),
        ]
        for one in entries:  # each by itself, with the link: the first that is refused would hide the others
            with suppress(Refused), answered():
                self._import(HOSTILE, archive([entries[1], one] if one is not entries[1] else [one]))

    def _layer(self) -> bytes:
        """The root file system: busybox by all its names, the programs, and a link to a folder of the host."""
        import subprocess  # only here

        applets = subprocess.check_output([BUSYBOX, "--list"], text=True).split()
        entries = [entry(name, tarfile.DIRTYPE, mode=0o755) for name in ("bin", "etc", "attack", "mnt")]
        entries += [
            entry("tmp", tarfile.DIRTYPE, mode=0o1777),
            entry("escape", tarfile.SYMTYPE, to=self.folder("trap")),
        ]
        entries.append(entry("bin/busybox", mode=0o755, content=BUSYBOX.read_bytes()))
        entries += [
            entry(f"bin/{name}", tarfile.SYMTYPE, to="busybox") for name in applets if name != "busybox"
        ]
        entries += [
            entry(f"attack/{name}", mode=0o4755 if name in calls.AS_NOBODY else 0o755, content=code)
            for name, code in calls.programs(self.outside).items()
        ]
        return archive(entries)

    def _import(self, name: str, content: bytes) -> None:
        spec = ImportSpec(name=name, changes=['CMD ["sleep"]', "ENV PATH=/bin"])

        def requests() -> Iterator[api.ImportImagesRequest]:
            yield api.ImportImagesRequest(start=spec)
            for at in range(0, len(content), CHUNK):
                yield api.ImportImagesRequest(data=content[at : at + CHUNK])

        list(self._node.ImportImages(requests(), timeout=PATIENCE))

    def _control(self) -> None:
        """What is refused means something only where the same program works. Failure when it does not."""
        for name, (_, wanted) in calls.CONTROLS.items():
            code, said = self.run(f"/attack/{name}")
            if code != wanted:
                raise Failure(f"no program of ours runs in a container (exit code {code}): {said}")
        code, said = self.run("sh", "-c", "true")
        if code:
            raise Failure(f"{BUSYBOX} does not run in a container: apt install busybox-static ({said})")

    def _clear(self) -> None:
        """Takes containers, images and files away, as far as they are there."""
        for cluster in CLUSTERS:
            there = self._node.List(
                api.ListRequest(cluster=cluster, origin=ORIGIN), timeout=PATIENCE
            ).containers
            if names := [one.spec.name for one in there]:
                list(
                    self._node.Remove(
                        api.RemoveRequest(cluster=cluster, names=names, grace_ms=0), timeout=PATIENCE
                    )
                )
        for image in self._node.ListImages(api.ListImagesRequest(), timeout=PATIENCE).images:
            for reference in image.references:
                if reference.rpartition(":")[0] in (IMAGE, HOSTILE):
                    self._node.RemoveImage(api.RemoveImageRequest(reference=reference), timeout=PATIENCE)
        shutil.rmtree(self._home, ignore_errors=True)


#: A member of an archive, and its content.
Entry = tuple[tarfile.TarInfo, bytes]


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, *, mode: int = 0o644, to: str = "", content: bytes = b""
) -> Entry:
    """A file, folder or link, root's."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.size = kind, mode, to, len(content)
    return info, content


def archive(entries: Sequence[Entry]) -> bytes:
    """A tar."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return written.getvalue()

"""A NodeService in memory: real gRPC on a real socket, with containers that only exist on paper.

An Apply runs its containers at once, unless their image says otherwise (`outcomes`); a test decides when it goes
on by `gate`. What was asked for is kept in `requests`.
"""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from tinyo.node.v1 import node_pb2 as pb
from tinyo.node.v1 import node_pb2_grpc
from tinyo.node.v1 import verbs_pb2 as verbs
from tinyo.v1 import container_pb2 as v1
from tinyo.v1.diagnosis_pb2 import Finding
from tinyo.v1.error_pb2 import Error
from tinyo.v1.event_pb2 import Event, EventReason
from tinyo.v1.image_pb2 import ExportContent, Image, ImageDetails, ImageUsage, PullProgress
from tinyo.v1.inspect_pb2 import Inspection
from tinyo.v1.push_pb2 import PushedImage, PushProgress
from tinyo.v1.stats_pb2 import ContainerStats
from tinyo.v1.storage_pb2 import Volume
from tinyo.v1.stream_pb2 import ExecOutput, LogEntry, OutputStream
from tinyo.v1.top_pb2 import ContainerProcess
from tinyo.v1.version_pb2 import Version

#: What becomes of a container, by its image; every other image runs, unless a test adds to `outcomes`.
IMAGES = {
    "exits:0": v1.ContainerStatus(phase=v1.PHASE_EXITED, exit=v1.ExitStatus(code=0)),
    "exits:3": v1.ContainerStatus(phase=v1.PHASE_EXITED, exit=v1.ExitStatus(code=3)),
    "fails": v1.ContainerStatus(
        phase=v1.PHASE_FAILED,
        error=Error(code=9, reason="PORT_IN_USE", message="port 80 is held by \x1b[2Jnginx"),
    ),
    "unmounted": v1.ContainerStatus(
        phase=v1.PHASE_FAILED,
        error=Error(
            code=9,
            reason="MOUNT_SOURCE_MISSING",
            message="there is no /nowhere: make it, or say create: true",
            field="containers[0].mounts[0].source",
        ),
    ),
}


class FakeNode(node_pb2_grpc.NodeServiceServicer):
    """Serves on a socket in `folder` as long as it is entered."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix:{folder}/node.sock"
        self.containers: dict[str, v1.Container] = {}
        self.requests: list[Message] = []
        self.outcomes = dict(IMAGES)
        #: An Apply waits here once it is accepted.
        self.gate = threading.Event()
        self.gate.set()
        self.entries: list[LogEntry] = []
        self.archive = b""
        self.diagnosis: list[Finding] = []
        self.runtime: Version | None = None
        #: A part of an archive has come.
        self.heard = threading.Event()
        self.details = ImageDetails()
        #: How far pushes are said to be, until it is there.
        self.uploads: Iterable[PushProgress] = ()
        self.prunable: list[Image] = []
        self.samples: list[list[ContainerStats]] = []
        #: What the kernel says of containers that run, by name.
        self.inspections: dict[str, Inspection] = {}
        self.volumes: list[Volume] = []
        self.findings: list[pb.VerifyImagesResponse] = []
        #: How far images are said to be, by reference, until they are there.
        self.pulls: dict[str, Iterable[PullProgress]] = {}
        #: What is said of who is in a container; names of those that do not hear a signal.
        self.processes: list[ContainerProcess] = []
        self.unheard: list[str] = []
        self.refusal: status_pb2.Status | None = None

    def __enter__(self) -> Self:
        self.server = grpc.server(ThreadPoolExecutor(8))
        node_pb2_grpc.add_NodeServiceServicer_to_server(self, self.server)
        self.server.add_insecure_port(self.address)
        self.server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gate.set()
        self.server.stop(None).wait()

    def refuse(self, code: int, reason: str, message: str, **fields: str) -> None:
        """Makes every call fail from now on; `fields` are violations, by path (with "__" for "[0].")."""
        self.refusal = status_pb2.Status(code=code, message=message)
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=field.replace("__", "[0]."), description=text)
            for field, text in fields.items()
        ]
        for detail in (
            error_details_pb2.ErrorInfo(reason=reason, domain="tinyo"),
            error_details_pb2.BadRequest(field_violations=violations),
        ):
            packed = AnyMessage()
            packed.Pack(detail)
            self.refusal.details.append(packed)

    def note(self, request: Message, context: grpc.ServicerContext) -> None:
        """Keeps a request, or refuses it."""
        self.requests.append(request)
        if self.refusal:
            context.abort_with_status(rpc_status.to_status(self.refusal))

    def Login(self, request: pb.LoginRequest, context: Any) -> pb.LoginResponse:
        self.note(request, context)
        return pb.LoginResponse(registry=request.registry)

    def Logout(self, request: pb.LogoutRequest, context: Any) -> pb.LogoutResponse:
        self.note(request, context)
        return pb.LogoutResponse(registry=request.registry, was_logged_in=True)

    def Apply(self, request: pb.ApplyRequest, context: Any) -> Iterator[pb.ApplyResponse]:
        self.note(request, context)
        changes, settled = [], []
        for spec in request.containers:
            old = self.containers.get(spec.name)
            status = self.outcomes.get(spec.image) or v1.ContainerStatus(
                phase=v1.PHASE_RUNNING, address="10.77.0.2"
            )
            container = v1.Container(spec=spec, origin=request.origin, status=status)
            action, fields = pb.CHANGE_ACTION_CREATE, list[str]()
            if old:
                fields = [field.name for field, _ in spec.ListFields() if differ(old.spec, spec, field.name)]
                action = pb.CHANGE_ACTION_REPLACE if fields else pb.CHANGE_ACTION_NONE
            self.containers[spec.name] = container
            changes.append(pb.Change(name=spec.name, action=action, fields=fields))
            settled.append(container)
        yield pb.ApplyResponse(accepted=pb.ApplyAccepted(revision=1, changes=changes))
        for spec, change in zip(request.containers, changes, strict=True):
            if change.action == pb.CHANGE_ACTION_CREATE:
                reason = EventReason.EVENT_REASON_PULLING
                yield pb.ApplyResponse(event=Event(name=spec.name, reason=reason))
                for progress in self.pulls.get(spec.image, ()):
                    yield pb.ApplyResponse(progress=progress)
        self.gate.wait()
        yield pb.ApplyResponse(settled=pb.ApplySettled(containers=settled))

    def _known(self, names: Iterable[str], context: Any) -> list[v1.Container]:
        for name in names:
            if name not in self.containers:
                context.abort(grpc.StatusCode.NOT_FOUND, f"there is no container {name!r}")
        return [self.containers[name] for name in names]

    def Kill(self, request: verbs.KillRequest, context: Any) -> verbs.KillResponse:
        self.note(request, context)
        return verbs.KillResponse(containers=self._known(request.names, context), unheard=self.unheard)

    def Pause(self, request: verbs.PauseRequest, context: Any) -> verbs.PauseResponse:
        self.note(request, context)
        return verbs.PauseResponse(containers=self._known(request.names, context))

    def Unpause(self, request: verbs.UnpauseRequest, context: Any) -> verbs.UnpauseResponse:
        self.note(request, context)
        return verbs.UnpauseResponse(containers=self._known(request.names, context))

    def Restart(self, request: verbs.RestartRequest, context: Any) -> verbs.RestartResponse:
        self.note(request, context)
        return verbs.RestartResponse(containers=self._known(request.names, context))

    def Rename(self, request: verbs.RenameRequest, context: Any) -> verbs.RenameResponse:
        self.note(request, context)
        (container,) = self._known([request.name], context)
        container.spec.name = request.new_name
        return verbs.RenameResponse(container=container)

    def Top(self, request: verbs.TopRequest, context: Any) -> verbs.TopResponse:
        self.note(request, context)
        return verbs.TopResponse(processes=self.processes)

    def Remove(self, request: pb.RemoveRequest, context: Any) -> Iterator[pb.RemoveResponse]:
        self.note(request, context)
        owned = [name for name, one in self.containers.items() if one.origin == request.origin != ""]
        gone = [name for name in (*request.names, *owned) if self.containers.pop(name, None)]
        for name in gone:
            event = Event(name=name, reason=EventReason.EVENT_REASON_REMOVED)
            yield pb.RemoveResponse(event=event)
        yield pb.RemoveResponse(settled=pb.RemoveSettled(names=gone))

    def List(self, request: pb.ListRequest, context: Any) -> pb.ListResponse:
        self.note(request, context)
        return pb.ListResponse(containers=[self.containers[name] for name in sorted(self.containers)])

    def Get(self, request: pb.GetRequest, context: Any) -> pb.GetResponse:
        self.note(request, context)
        return pb.GetResponse(container=self.containers[request.name])

    def Inspect(self, request: pb.InspectRequest, context: Any) -> pb.InspectResponse:
        self.note(request, context)
        found = self.Get(pb.GetRequest(name=request.name), context).container
        return pb.InspectResponse(container=found, inspection=self.inspections.get(request.name))

    def Stop(self, request: pb.StopRequest, context: Any) -> pb.StopResponse:
        self.note(request, context)
        for name in request.names:
            one = self.containers[name]
            one.desired = v1.DESIRED_STATE_STOPPED
            one.status.CopyFrom(v1.ContainerStatus(phase=v1.PHASE_EXITED, exit=v1.ExitStatus(code=143)))
        return pb.StopResponse(containers=[self.containers[name] for name in request.names])

    def Start(self, request: pb.StartRequest, context: Any) -> pb.StartResponse:
        self.note(request, context)
        for name in request.names:
            one = self.containers[name]
            one.desired = v1.DESIRED_STATE_RUNNING
            one.status.CopyFrom(v1.ContainerStatus(phase=v1.PHASE_RUNNING, address="10.77.0.3"))
        return pb.StartResponse(containers=[self.containers[name] for name in request.names])

    def Update(self, request: pb.UpdateRequest, context: Any) -> pb.UpdateResponse:
        self.note(request, context)
        return pb.UpdateResponse(containers=[self.containers[name] for name in request.names])

    def Stats(self, request: pb.StatsRequest, context: Any) -> Iterator[pb.StatsResponse]:
        self.note(request, context)
        for sample in self.samples:
            yield pb.StatsResponse(stats=sample)

    def Watch(self, request: pb.WatchRequest, context: Any) -> Iterator[pb.WatchResponse]:
        self.note(request, context)
        for sequence, name in enumerate(self.containers, 1):
            event = Event(sequence=sequence, name=name, reason=EventReason.EVENT_REASON_RUNNING)
            yield pb.WatchResponse(event=event)

    def Logs(self, request: pb.LogsRequest, context: Any) -> Iterator[pb.LogsResponse]:
        self.note(request, context)
        yield pb.LogsResponse(entries=self.entries)

    def Exec(self, requests: Iterator[pb.ExecRequest], context: Any) -> Iterator[pb.ExecResponse]:
        """Gives input back on both ways out; ends with 7, or with 128 + the signal that it gets."""
        self.note(next(requests), context)
        code = 7
        yield pb.ExecResponse(output=ExecOutput(stderr=b"ready\n"))
        for request in requests:
            match request.input.WhichOneof("input"):
                case "stdin":
                    yield pb.ExecResponse(output=ExecOutput(stdout=request.input.stdin))
                case "signal":
                    code = 128 + request.input.signal
                    break
                case "end_of_input":
                    break
        yield pb.ExecResponse(output=ExecOutput(exit=v1.ExitStatus(code=code)))

    def Attach(self, requests: Iterator[pb.AttachRequest], context: Any) -> Iterator[pb.AttachResponse]:
        """Gives input back; ends with 7, or with 128 + the signal that it gets."""
        self.note(next(requests), context)
        code = 7
        for request in requests:
            match request.input.WhichOneof("input"):
                case "stdin":
                    yield pb.AttachResponse(output=ExecOutput(stdout=request.input.stdin))
                case "signal":
                    code = 128 + request.input.signal
                    break
                case "end_of_input":
                    break
        yield pb.AttachResponse(output=ExecOutput(exit=v1.ExitStatus(code=code)))

    def GetVersion(self, request: pb.GetVersionRequest, context: Any) -> pb.GetVersionResponse:
        version = Version(program="9.8.7", contract="v1.0")
        return pb.GetVersionResponse(version=version, runtime=self.runtime, node_id="abc")

    def ListImages(self, request: pb.ListImagesRequest, context: Any) -> pb.ListImagesResponse:
        image = Image(references=["docker.io/library/alpine:latest"], digest="sha256:" + "ab" * 32)
        image.platform, image.size_bytes = "linux/amd64", 3_400_000
        return pb.ListImagesResponse(images=[image])

    def PullImage(self, request: pb.PullImageRequest, context: Any) -> Iterator[pb.PullImageResponse]:
        self.note(request, context)
        for progress in self.pulls.get(request.reference, ()):
            yield pb.PullImageResponse(progress=progress)
        yield pb.PullImageResponse(
            image=Image(references=[request.reference], digest="sha256:00", size_bytes=5)
        )

    def PushImage(self, request: pb.PushImageRequest, context: Any) -> Iterator[pb.PushImageResponse]:
        self.note(request, context)
        for progress in self.uploads:
            yield pb.PushImageResponse(progress=progress)
        pushed = PushedImage(reference=f"r.test/{request.reference}", digest="sha256:00", size_bytes=5)
        yield pb.PushImageResponse(pushed=pushed)

    def RemoveImage(self, request: pb.RemoveImageRequest, context: Any) -> pb.RemoveImageResponse:
        self.note(request, context)
        return pb.RemoveImageResponse(removed=[request.reference])

    def InspectImage(self, request: pb.InspectImageRequest, context: Any) -> pb.InspectImageResponse:
        self.note(request, context)
        return pb.InspectImageResponse(details=self.details)

    def TagImage(self, request: pb.TagImageRequest, context: Any) -> pb.TagImageResponse:
        self.note(request, context)
        return pb.TagImageResponse(
            image=Image(digest="sha256:00"), reference=f"x.test/{request.new_reference}"
        )

    def CommitContainer(self, request: pb.CommitContainerRequest, context: Any) -> pb.CommitContainerResponse:
        self.note(request, context)
        return pb.CommitContainerResponse(
            image=Image(digest="sha256:00"),
            reference=f"x.test/{request.reference}",
            notes=["it\x1b[2J is new"],
        )

    def PruneImages(self, request: pb.PruneImagesRequest, context: Any) -> pb.PruneImagesResponse:
        self.note(request, context)
        return pb.PruneImagesResponse(removed=self.prunable, freed_bytes=2500 * len(self.prunable))

    def MeasureImages(self, request: pb.MeasureImagesRequest, context: Any) -> pb.MeasureImagesResponse:
        self.note(request, context)
        usage = ImageUsage(image=Image(references=["a:1"], digest="sha256:00"), own_bytes=1000, in_use=True)
        return pb.MeasureImagesResponse(images=[usage], blob_bytes=400, layer_bytes=600, prunable_bytes=7)

    def VerifyImages(
        self, request: pb.VerifyImagesRequest, context: Any
    ) -> Iterator[pb.VerifyImagesResponse]:
        self.note(request, context)
        yield from self.findings

    def ImportImages(
        self, requests: Iterator[pb.ImportImagesRequest], context: Any
    ) -> Iterator[pb.ImportImagesResponse]:
        """Keeps what it gets in `archive`."""
        self.note(next(requests), context)
        self.archive = b""
        for request in requests:
            self.archive += request.data
            self.heard.set()
        yield pb.ImportImagesResponse(image=Image(references=["a:1"], digest="sha256:00", size_bytes=5))

    def ExportImages(
        self, request: pb.ExportImagesRequest, context: Any
    ) -> Iterator[pb.ExportImagesResponse]:
        """Sends `archive`; with `gate` closed, it fails after that."""
        self.note(request, context)
        image = Image(references=request.references, digest="sha256:00", size_bytes=5)
        yield pb.ExportImagesResponse(content=ExportContent(images=[image], size_bytes=len(self.archive)))
        for at in range(0, len(self.archive), 100_000):
            yield pb.ExportImagesResponse(data=self.archive[at : at + 100_000])
        if not self.gate.is_set():
            context.abort(grpc.StatusCode.DATA_LOSS, "a blob is damaged")

    def ListVolumes(self, request: pb.ListVolumesRequest, context: Any) -> pb.ListVolumesResponse:
        self.note(request, context)
        return pb.ListVolumesResponse(volumes=self.volumes)

    def CreateVolume(self, request: pb.CreateVolumeRequest, context: Any) -> pb.CreateVolumeResponse:
        self.note(request, context)
        return pb.CreateVolumeResponse(volume=Volume(name=request.name), created=not self.volumes)

    def RemoveVolumes(self, request: pb.RemoveVolumesRequest, context: Any) -> pb.RemoveVolumesResponse:
        self.note(request, context)
        return pb.RemoveVolumesResponse(removed=request.names)

    def InspectVolume(self, request: pb.InspectVolumeRequest, context: Any) -> pb.InspectVolumeResponse:
        self.note(request, context)
        return pb.InspectVolumeResponse(volume=self.volumes[0])

    def PruneVolumes(self, request: pb.PruneVolumesRequest, context: Any) -> pb.PruneVolumesResponse:
        self.note(request, context)
        return pb.PruneVolumesResponse(removed=self.volumes)

    def CopyOut(self, request: pb.CopyOutRequest, context: Any) -> Iterator[pb.CopyOutResponse]:
        self.note(request, context)
        yield pb.CopyOutResponse(data=self.archive)

    def CopyIn(self, requests: Iterator[pb.CopyInRequest], context: Any) -> pb.CopyInResponse:
        self.note(next(requests), context)
        self.archive = b"".join(request.data for request in requests)
        return pb.CopyInResponse()

    def Diagnose(self, request: pb.DiagnoseRequest, context: Any) -> Iterator[pb.DiagnoseResponse]:
        self.note(request, context)
        for finding in self.diagnosis:
            yield pb.DiagnoseResponse(finding=finding)


def differ(one: Message, other: Message, field: str) -> bool:
    """Whether a field has another value in both."""
    return bool(getattr(one, field) != getattr(other, field))


def entry(data: bytes, error: bool = False) -> LogEntry:
    """A piece of a log."""
    stream = OutputStream.OUTPUT_STREAM_STDERR if error else OutputStream.OUTPUT_STREAM_STDOUT
    return LogEntry(stream=stream, data=data)

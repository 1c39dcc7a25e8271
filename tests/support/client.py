"""A client of NodeService for tests: short calls, answers as lists."""

import uuid
from collections.abc import Iterator
from typing import Self

import grpc
from tinyo.node.v1 import node_pb2 as pb
from tinyo.node.v1.node_pb2_grpc import NodeServiceStub
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import event_pb2 as ev
from tinyo.v1.stream_pb2 import ExecInput, ExecSpec

PATIENCE = 60


class Client:
    """Calls a node, each within a bounded time."""

    def __init__(self, address: str) -> None:
        options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
        self.channel = grpc.insecure_channel(address, options=options)
        self.node = NodeServiceStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def apply(self, *specs: v1.ContainerSpec, origin: str = "/test.yml") -> list[pb.ApplyResponse]:
        """Everything that an Apply answers."""
        request = pb.ApplyRequest(containers=specs, origin=origin, correlation_id=uuid.uuid4().hex)
        return list(self.node.Apply(request, timeout=PATIENCE, wait_for_ready=True))

    def up(self, *specs: v1.ContainerSpec, origin: str = "/test.yml") -> list[v1.Container]:
        """Applies, and says what the containers came to; all of them must run."""
        containers = list(self.apply(*specs, origin=origin)[-1].settled.containers)
        assert all(c.status.phase == v1.PHASE_RUNNING for c in containers), containers
        return containers

    def down(self, *names: str) -> list[ev.Event]:
        """Removes, and says what happened on the way."""
        request = pb.RemoveRequest(names=names)
        answers = list(self.node.Remove(request, timeout=PATIENCE, wait_for_ready=True))
        assert sorted(answers[-1].settled.names) == sorted(names)
        return [answer.event for answer in answers[:-1]]

    def get(self, name: str) -> v1.Container:
        """One container."""
        return self.node.Get(pb.GetRequest(name=name), timeout=PATIENCE, wait_for_ready=True).container

    def ls(self) -> list[v1.Container]:
        """All containers."""
        return list(self.node.List(pb.ListRequest(), timeout=PATIENCE, wait_for_ready=True).containers)

    def until(self, name: str, reason: ev.EventReason.ValueType, after: int = 0) -> ev.Event:
        """Waits for an event about a container."""
        request = pb.WatchRequest(after_sequence=after, follow=True, names=[name])
        stream = self.node.Watch(request, timeout=PATIENCE, wait_for_ready=True)
        event = next(answer.event for answer in stream if answer.event.reason == reason)
        stream.cancel()
        return event

    def events(self, after: int = 0) -> list[ev.Event]:
        """The event log as it is."""
        answers = self.node.Watch(pb.WatchRequest(after_sequence=after), timeout=PATIENCE)
        return [answer.event for answer in answers]

    def run(self, name: str, *command: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        """Exit code, output and errors of a program in a container."""

        def requests() -> Iterator[pb.ExecRequest]:
            yield pb.ExecRequest(start=pb.ExecStart(name=name, exec=ExecSpec(command=command)))
            for at in range(0, len(stdin), 32768):
                yield pb.ExecRequest(input=ExecInput(stdin=stdin[at : at + 32768]))
            yield pb.ExecRequest(input=ExecInput(end_of_input=True))

        out, err, code = b"", b"", None
        for answer in self.node.Exec(requests(), timeout=PATIENCE):
            out += answer.output.stdout
            err += answer.output.stderr
            if answer.output.HasField("exit"):
                code = answer.output.exit.code
        assert code is not None
        return code, out, err

    def logs(self, name: str, *, follow: bool = False, tail: int | None = None) -> bytes:
        """What a container wrote, both streams."""
        request = pb.LogsRequest(name=name, follow=follow, tail=tail)
        answers = self.node.Logs(request, timeout=PATIENCE)
        return b"".join(entry.data for answer in answers for entry in answer.entries)

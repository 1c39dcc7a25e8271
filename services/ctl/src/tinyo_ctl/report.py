"""What people see of an Apply: what it does, what came of it, and which line of the Statefile is to blame."""

import sys
import time
from types import TracebackType
from typing import Self

import grpc
from tinyo.node.v1.node_pb2 import ApplyResponse, Change, ChangeAction
from tinyo.v1.container_pb2 import Container, ContainerSpec, Phase
from tinyo.v1.error_pb2 import Error
from tinyo.v1.event_pb2 import EventReason

from tinyo_ctl.client import NodeError
from tinyo_ctl.diagnose import describe
from tinyo_ctl.progress import Progress
from tinyo_ctl.render import fail, phase, ports, safe, say, succeed
from tinyo_ctl.statefile import Statefile


class Report:
    """Tells about one Apply; entered as long as it is followed, it also tells why it could not be."""

    def __init__(self, statefile: Statefile) -> None:
        self.statefile, self.began = statefile, time.monotonic()
        self.progress = Progress()
        self.changes: dict[str, Change] = {}
        #: Exit code when something did not come up.
        self.code = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.progress.close()
        if isinstance(error, KeyboardInterrupt):
            what = "the apply goes on in the node" if self.changes else "the node had not answered yet"
            print(f"interrupted: {what}; `tinyo ls` shows how far it is", file=sys.stderr)
        if isinstance(error, grpc.RpcError):
            refused = NodeError.of(error)
            self.code = refused.exit_code
            for one in sorted(refused.errors, key=lambda error: self.statefile.place(error.field)):
                self.blame(one, safe(self.statefile.path))
            return True
        return False

    def show(self, answer: ApplyResponse) -> None:
        """Tells what an answer brings that people want to know."""
        match answer.WhichOneof("result"):
            case "accepted":
                self.changes = {change.name: change for change in answer.accepted.changes}
                for change in self.changes.values():
                    if change.action == ChangeAction.CHANGE_ACTION_REPLACE:
                        say(f"{safe(change.name)}  replacing: {safe(', '.join(change.fields))} changed")
            case "event" if answer.event.reason == EventReason.EVENT_REASON_PULLING:
                say(f"{safe(answer.event.name)}  pulling {safe(self.statefile.spec.image)}")
            case "progress":
                self.progress.show(answer.progress)
            case "settled":
                self.progress.close()
                for container in answer.settled.containers:
                    self.settled(container)

    def settled(self, container: Container) -> None:
        """Tells what a container came to."""
        name, status = safe(container.spec.name), container.status
        seconds = f"({time.monotonic() - self.began:.1f} s)"
        if status.phase == Phase.PHASE_RUNNING:
            if self.changes[container.spec.name].action == ChangeAction.CHANGE_ACTION_NONE:
                say(f"{name} is up to date")
            else:
                facts = ("running", status.address, ports(container.spec.ports), seconds)
                succeed(name, *filter(None, facts))
        elif status.HasField("error"):
            self.blame(status.error, name)
        elif status.phase == Phase.PHASE_EXITED and status.exit.code == 0:
            succeed(name, "exited with code 0", seconds)
        elif status.phase == Phase.PHASE_EXITED:
            fail(name, f"exited with code {status.exit.code}: `tinyo logs {name}` shows what it said")
        else:
            fail(name, phase(container))

    def blame(self, error: Error, name: str) -> None:
        """Shows an error, with the line of the Statefile that is to blame, where one is."""
        place = self.statefile.place(error.field or blamed(self.statefile.spec, error))
        if place.line:
            print(describe(self.statefile.path, self.statefile.text, place, error.message), file=sys.stderr)
        else:
            fail(name, safe(error.message))


def blamed(spec: ContainerSpec, error: Error) -> str:
    """The field of a spec that an error is about which happened long after the request; "" when none is."""
    match error.reason.split("_"):
        case ["IMAGE" | "REGISTRY", *_]:
            return "image"
        case ["COMMAND", *_]:
            return "command"
        case ["MOUNT", *_]:
            sources = [mount.source for mount in spec.mounts]
            if (source := error.metadata.get("source", "")) in sources:
                return f"mounts[{sources.index(source)}].source"
        case ["PORT", *_]:
            ports = [str(port.host_port) for port in spec.ports]
            if (port := error.metadata.get("port", "")) in ports:
                return f"ports[{ports.index(port)}]"
    return ""

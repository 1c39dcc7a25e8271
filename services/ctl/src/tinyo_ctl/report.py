"""What people see of an Apply: what it does, what came of it, and which line of the Statefile is to blame."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc
from tinyo.node.v1.node_pb2 import ApplyRequest, ApplyResponse, Change, ChangeAction
from tinyo.v1.container_pb2 import Container, ContainerSpec, Phase
from tinyo.v1.error_pb2 import Error
from tinyo.v1.event_pb2 import EventReason

from tinyo_ctl.diagnose import describe
from tinyo_ctl.progress import showing
from tinyo_ctl.refusals import NodeError
from tinyo_ctl.render import fail, phase, ports, succeed
from tinyo_ctl.tell import safe, say

if TYPE_CHECKING:
    from tinyo_ctl.mistakes import Place


class Report:
    """Tells about one Apply; entered as long as it is followed, it also tells why it could not be."""

    def __init__(self, path: str, request: ApplyRequest) -> None:
        self.path, self.request = path, request
        self.changes: dict[str, Change] = {}
        #: Exit code of a refusal; 0 when there was none.
        self.code = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error:
            showing.close()
        if isinstance(error, KeyboardInterrupt):
            what = "the apply goes on in the node" if self.changes else "the node had not answered yet"
            print(f"interrupted: {what}; `tinyo ls` shows how far it is", file=sys.stderr)
        if isinstance(error, grpc.RpcError):
            refused = NodeError.of(error)
            self.code = refused.exit_code
            for one in sorted(refused.errors, key=lambda error: self.place(error.field)):
                self.blame(one, safe(self.path))
            return True
        return False

    def show(self, answer: ApplyResponse) -> None:
        """Tells what an answer brings that people want to know."""
        match answer.WhichOneof("result"):
            case "accepted":
                self.changes = {change.name: change for change in answer.accepted.changes}
                for change in self.changes.values():
                    if change.action == ChangeAction.CHANGE_ACTION_REPLACE:
                        say(change.name, f"replacing: {', '.join(change.fields)} changed")
                    elif change.action == ChangeAction.CHANGE_ACTION_UPDATE:
                        say(change.name, f"updating: {', '.join(change.fields)} changed")
            case "event" if answer.event.reason == EventReason.EVENT_REASON_UPDATE_REFUSED:
                self.blame(answer.event.error, safe(answer.event.name))
                self.code = 1
            case "progress":
                if facts := showing.news(answer.progress.reference):
                    succeed(safe(answer.progress.reference), "pulled", facts)
            case "settled":
                for container in answer.settled.containers:
                    self.settled(container)

    def is_done(self, container: Container) -> bool:
        """Whether a container has already ended because it has done what it had to."""
        return container.status.phase == Phase.PHASE_EXITED and container.status.exit.code == 0

    def settled(self, container: Container) -> None:
        """Tells what a container came to."""
        name, status = safe(container.spec.name), container.status
        seconds = f"({time.monotonic() - showing.began:.1f} s)"
        if status.phase == Phase.PHASE_RUNNING:
            if self.changes[container.spec.name].action == ChangeAction.CHANGE_ACTION_NONE:
                say(f"{name} is up to date")
            else:
                facts = ("running", status.address, ports(container.spec.ports), seconds)
                succeed(name, *filter(None, facts))
                if status.userns.missing:
                    why = f"note: {name} has no user namespace: {safe(status.userns.missing)}"
                    print(why, file=sys.stderr)
        elif status.HasField("error"):
            self.blame(status.error, name)
        elif self.is_done(container):
            succeed(name, "exited with code 0", seconds)
        elif status.phase == Phase.PHASE_EXITED:
            why = ", out of memory" if status.exit.oom_killed else ""
            fail(name, f"exited with code {status.exit.code}{why}: `tinyo logs {name}` shows what it said")
        else:
            fail(name, phase(container))

    def blame(self, error: Error, name: str) -> None:
        """Shows an error, with the line of the Statefile that is to blame, where one is."""
        place = self.place(error.field or blamed(self.request.containers[0], error))
        if place.line:
            print(describe(self.path, self.request.statefile, place, error.message), file=sys.stderr)
        else:
            fail(name, safe(error.message))

    def place(self, field: str) -> "Place":
        """Where a field of the request stands in the Statefile."""
        # Only when something is to blame.
        from tinyo_ctl import mistakes

        return mistakes.place(self.request.statefile, field)


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

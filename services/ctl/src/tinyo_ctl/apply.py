"""`tinyo + FILE…`: brings up what Statefiles say, and shows how it goes."""

import argparse
import secrets
import sys
import time
from collections.abc import Iterator

from tinyo.node.v1.node_pb2 import ApplyRequest, ApplyResponse, Change, ChangeAction
from tinyo.node.v1.node_pb2_grpc import NodeServiceStub
from tinyo.v1.container_pb2 import Container, Phase
from tinyo.v1.error_pb2 import Error
from tinyo.v1.event_pb2 import EventReason

from tinyo_ctl.client import NodeError, node_errors
from tinyo_ctl.diagnose import describe
from tinyo_ctl.progress import Progress
from tinyo_ctl.render import fail, phase, ports, safe, say, succeed
from tinyo_ctl.services import node
from tinyo_ctl.statefile import Statefile, load


def apply(options: argparse.Namespace) -> int:
    """Applies all files side by side, and shows them one after the other; nothing is sent unless all can be read."""
    statefiles = [load(path) for path in options.files]
    with node(options.host) as calls:
        applies = [Apply(calls, statefile) for statefile in statefiles]
        return max([one.follow() for one in applies])


class Apply:
    """One Apply on its way. It began with the request; nothing that happens here can stop it."""

    def __init__(self, node: NodeServiceStub, statefile: Statefile) -> None:
        self.statefile, self.began = statefile, time.monotonic()
        self.changes: dict[str, Change] = {}
        request = ApplyRequest(
            containers=[statefile.spec],
            origin=statefile.origin,
            statefile=statefile.text,
            correlation_id=secrets.token_hex(8),
        )
        self.answers: Iterator[ApplyResponse] = node.Apply(request)

    def follow(self) -> int:
        """Shows what happens until all is settled; gives the exit code."""
        code = 1
        try:
            with node_errors(), Progress() as progress:
                for answer in self.answers:
                    if answer.HasField("accepted"):
                        self.accepted(list(answer.accepted.changes))
                    elif answer.HasField("progress"):
                        progress.show(answer.progress)
                    elif answer.HasField("settled"):
                        progress.close()
                        code = max(map(self.settled, answer.settled.containers), default=0)
                    elif answer.event.reason == EventReason.EVENT_REASON_PULLING:
                        say(f"{safe(answer.event.name)}  pulling {safe(self.statefile.spec.image)}")
        except NodeError as error:
            for one in error.errors:
                self.blame(one)
            return max(error.exit_code, code)
        except KeyboardInterrupt:
            if self.changes:
                print(
                    "interrupted: the apply goes on in the node; `tinyo ls` shows how far it is",
                    file=sys.stderr,
                )
            raise
        return code

    def accepted(self, changes: list[Change]) -> None:
        """Remembers what changes, and says what is replaced."""
        self.changes = {change.name: change for change in changes}
        for change in changes:
            if change.action == ChangeAction.CHANGE_ACTION_REPLACE:
                say(f"{safe(change.name)}  replacing: {safe(', '.join(change.fields))} changed")

    def settled(self, container: Container) -> int:
        """Says what a container came to; 0 when it runs, or has done what it had to."""
        name, status = safe(container.spec.name), container.status
        if status.phase == Phase.PHASE_RUNNING:
            if self.changes[container.spec.name].action == ChangeAction.CHANGE_ACTION_NONE:
                say(f"{name} is up to date")
                return 0
            facts = ["running", status.address, ports(container.spec.ports)]
            succeed(name, *filter(None, facts), f"({time.monotonic() - self.began:.1f} s)")
            return 0
        if status.phase == Phase.PHASE_EXITED and status.exit.code == 0:
            succeed(name, "exited with code 0")
            return 0
        if status.HasField("error"):
            self.blame(status.error, name)
        else:
            fail(name, f"{phase(container)}: `tinyo logs {name}` shows what it said")
        return 1

    def blame(self, error: Error, name: str = "") -> None:
        """Shows an error, with the line of the Statefile where a field is to blame."""
        if error.field:
            place = self.statefile.place(error.field)
            print(describe(self.statefile.path, self.statefile.text, place, error.message), file=sys.stderr)
        else:
            fail(name or safe(self.statefile.path), safe(error.message))

"""`tinyo + FILE…`: brings up what Statefiles say."""

import argparse
from collections.abc import Iterator

from tinyo.node.v1.node_pb2 import ApplyRequest, ApplyResponse
from tinyo.v1.container_pb2 import Container, Phase

from tinyo_ctl.client import correlation_id
from tinyo_ctl.report import Report
from tinyo_ctl.services import node
from tinyo_ctl.statefile import Statefile, load


def apply(options: argparse.Namespace) -> int:
    """Applies all files side by side, and shows them one after the other; nothing is sent unless all can be read."""
    statefiles = [load(path) for path in options.files]
    with node(options.host) as calls:
        begun = [(statefile, calls.Apply(request(statefile))) for statefile in statefiles]
        return max([follow(statefile, answers) for statefile, answers in begun])


def request(statefile: Statefile) -> ApplyRequest:
    """What is sent for a Statefile. The node goes on with it whatever becomes of this program."""
    return ApplyRequest(
        containers=[statefile.spec],
        origin=statefile.origin,
        statefile=statefile.text,
        correlation_id=correlation_id(),
    )


def follow(statefile: Statefile, answers: Iterator[ApplyResponse]) -> int:
    """Shows what happens until all is settled; 0 when everything came up."""
    with Report(statefile) as report:
        for answer in answers:
            report.show(answer)
            if answer.HasField("settled") and all(map(came_up, answer.settled.containers)):
                return 0
    return report.code


def came_up(container: Container) -> bool:
    """Whether a container runs, or has already done what it had to."""
    status = container.status
    return status.phase == Phase.PHASE_RUNNING or (
        status.phase == Phase.PHASE_EXITED and status.exit.code == 0
    )

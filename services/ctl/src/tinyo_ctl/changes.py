"""`tinyo + FILE…` and `tinyo - FILE|NAME…`: what should be here, and what should not. The node sees to it."""

import os
from collections.abc import Iterable, Iterator

from tinyo.node.v1.node_pb2 import ApplyRequest, ApplyResponse, ListRequest, RemoveRequest
from tinyo.v1.container_pb2 import Container, Phase
from tinyo.v1.event_pb2 import EventReason

from tinyo_ctl import failures, render, targets, together
from tinyo_ctl.client import correlation_id
from tinyo_ctl.report import Report
from tinyo_ctl.services import node
from tinyo_ctl.tell import say


def apply(paths: list[str], host: str) -> int:
    """Applies all files side by side, and shows them one after the other; nothing is sent unless all can be read."""
    # Only here: `tinyo -` does without YAML.
    from tinyo_ctl.statefile import load

    requests = [(path, load(path)) for path in paths]
    with node(host) as calls:
        begun = [(path, request, calls.Apply(request)) for path, request in requests]
        return max([follow(*one) for one in together.applies(begun) or begun])


def follow(path: str, request: ApplyRequest, answers: Iterator[ApplyResponse]) -> int:
    """Shows what becomes of a Statefile's container until that is settled; 0 when it came up."""
    with Report(path, request) as report:
        for answer in answers:
            report.show(answer)
            if answer.event.reason == EventReason.EVENT_REASON_PULLING:
                say(answer.event.name, f"pulling {request.containers[0].image}")
            for container in answer.settled.containers:
                if container.status.phase == Phase.PHASE_RUNNING or report.is_done(container):
                    return report.code or 0
    return report.code or 1


def remove(names: list[str], host: str, grace_ms: int | None = None) -> int:
    """Removes nothing unless every name is known, and says of each container when it is gone."""
    with failures.goes_on("removal"), node(host) as calls:
        present = calls.List(ListRequest()).containers
        found = dict.fromkeys(one.spec.name for name in names for one in find(name, present))
        request = RemoveRequest(names=found, correlation_id=correlation_id(), grace_ms=grace_ms)
        for answer in calls.Remove(request):
            if answer.event.reason == EventReason.EVENT_REASON_REMOVED:
                render.tick()
                say(answer.event.name, "removed")
    return 0


def find(target: str, present: Iterable[Container]) -> list[Container]:
    """The container with that name or id, or those that came from that Statefile. Failure when there is none."""
    origin = os.path.realpath(target)
    return (
        [one for one in present if one.spec.name == target]
        or targets.find(target, present)
        or [one for one in present if one.origin == origin]
    )

"""`tinyo wait`: exit codes of containers as they end. The node tells; nobody asks again and again."""

import argparse
import sys
from collections.abc import Iterator

import grpc
from tinyo.node.v1 import node_pb2 as api
from tinyo.node.v1.node_pb2_grpc import NodeServiceStub
from tinyo.v1.container_pb2 import Container, ExitStatus, Phase
from tinyo.v1.event_pb2 import Event, EventReason

from tinyo_ctl.render import fail
from tinyo_ctl.services import node
from tinyo_ctl.tell import safe, say

#: What a call ends with when the node is stopped or dies; those who wait wait for the next one.
GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def wait(options: argparse.Namespace) -> int:
    """Of one container the code alone, of several each with its name; those that ended before are told at once."""
    code, names = 0, list(dict.fromkeys(options.names))
    with node(options.host) as calls:
        found = [(name, calls.Get(api.GetRequest(name=name))) for name in names]
        waiting = {answer.container.id: name for name, answer in found}
        for id, ended in endings(calls, [answer for _, answer in found]):
            name = waiting.pop(id, None)
            if name is None:
                continue
            if isinstance(ended, str):
                fail(safe(name), safe(ended))
                code = 1
            elif len(names) > 1:
                say(name, str(ended.code))
            else:
                say(str(ended.code))
            if not waiting:
                break
    return code


def endings(calls: NodeServiceStub, found: list[api.GetResponse]) -> Iterator[tuple[str, ExitStatus | str]]:
    """Ids with how they ended, or why that will never be known."""
    since = dict[str, int]()
    for answer in found:
        since[answer.container.id] = answer.sequence
        if ended := before(answer.container):
            yield answer.container.id, ended
    for event in follow(calls, min(since.values())):
        if event.sequence > since.get(event.container_id, sys.maxsize) and (ended := after(event)):
            yield event.container_id, ended


def before(container: Container) -> ExitStatus | str | None:
    """How a container has ended, if it has."""
    if container.status.phase == Phase.PHASE_FAILED:
        return container.status.error.message
    return container.status.exit if container.status.phase == Phase.PHASE_EXITED else None


def after(event: Event) -> ExitStatus | str | None:
    """How the container of an event ended with it, if it did."""
    if event.reason == EventReason.EVENT_REASON_REMOVED:
        return "was removed meanwhile"
    if event.reason == EventReason.EVENT_REASON_FAILED:
        return event.error.message
    return event.exit if event.reason == EventReason.EVENT_REASON_EXITED else None


def follow(calls: NodeServiceStub, after: int) -> Iterator[Event]:
    """Events after a number, without end, whatever becomes of the node meanwhile."""
    again = False
    while True:
        try:
            request = api.WatchRequest(after_sequence=after, follow=True)
            for answer in calls.Watch(request, wait_for_ready=again):
                again, after = False, answer.event.sequence
                yield answer.event
        except grpc.RpcError as error:
            if error.code() not in GONE:
                raise
        if not again:  # else it was said
            print("the node has gone; waiting until it is back", file=sys.stderr)
        again = True

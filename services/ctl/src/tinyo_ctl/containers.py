"""`tinyo ls`, `stop`, `start` and `events`."""

import argparse
import sys

from tinyo.node.v1 import node_pb2 as api
from tinyo.v1.container_pb2 import Container, DesiredState, Phase
from tinyo.v1.event_pb2 import EventReason

from tinyo_ctl.client import correlation_id
from tinyo_ctl.failures import goes_on
from tinyo_ctl.render import age, clock, fail, phase, ports, succeed, table
from tinyo_ctl.services import node
from tinyo_ctl.tell import safe, say


def show(options: argparse.Namespace) -> int:
    """`tinyo ls`: those that should run; with -a all."""
    with node(options.host) as calls:
        everything = calls.List(api.ListRequest()).containers
    containers = [one for one in everything if options.all or not is_stopped(one)]
    if options.output == "name":
        sys.stdout.writelines(f"{safe(one.spec.name)}\n" for one in containers)
    elif options.output in ("json", "yaml"):
        print_data(containers, options.output)
    elif containers:
        wide = options.output == "wide"
        print(table([HEADING + WIDE * wide, *(row(one) + more(one) * wide for one in containers)]))
        for one in containers:
            if one.status.HasField("error"):
                fail(safe(one.spec.name), safe(one.status.error.message))
    elif everything:
        print("nothing runs; `tinyo ls -a` shows what was stopped", file=sys.stderr)
    else:
        print("nothing is here; `tinyo + FILE` brings up what a Statefile says", file=sys.stderr)
    return 0


def is_stopped(container: Container) -> bool:
    """Whether it does not run because somebody wanted it so."""
    done = (Phase.PHASE_EXITED, Phase.PHASE_CREATED)
    return container.desired == DesiredState.DESIRED_STATE_STOPPED and container.status.phase in done


HEADING = ("NAME", "STATUS", "SINCE", "ADDRESS", "PORTS", "IMAGE")
WIDE = ("ID", "PID", "ADDRESS6", "STATEFILE")


def row(container: Container) -> tuple[str, ...]:
    """A container as a line of the table."""
    status, spec = container.status, container.spec
    since = status.finished_at if status.phase == Phase.PHASE_EXITED else status.started_at
    return (spec.name, phase(container), age(since), status.address, ports(spec.ports), spec.image)


def more(container: Container) -> tuple[str, ...]:
    """What a wide table shows besides."""
    return (container.id, str(container.status.pid or ""), container.status.address6, container.origin)


def print_data(containers: list[Container], form: str) -> None:
    """Everything that is known, for programs."""
    # Only here: most calls of `tinyo ls` are read by people, who wait for them.
    from google.protobuf.json_format import MessageToDict

    data = [MessageToDict(one, preserving_proto_field_name=True) for one in containers]
    if form == "json":
        import json

        print(json.dumps(data, indent=2))
    else:
        import yaml

        print(yaml.safe_dump(data, sort_keys=False), end="")


def stop(options: argparse.Namespace) -> int:
    """`tinyo stop`: they stay, and can be started again."""
    request = api.StopRequest(names=options.names, correlation_id=correlation_id(), grace_ms=options.time)
    with goes_on("stop"), node(options.host) as calls:
        for one in calls.Stop(request).containers:
            succeed(safe(one.spec.name), f"stopped, {phase(one)}")
    return 0


def start(options: argparse.Namespace) -> int:
    """`tinyo start`: runs what was stopped."""
    request = api.StartRequest(names=options.names, correlation_id=correlation_id())
    code = 0
    with goes_on("start"), node(options.host) as calls:
        for one in calls.Start(request).containers:
            if one.status.phase == Phase.PHASE_RUNNING:
                succeed(safe(one.spec.name), "running", one.status.address)
            else:
                fail(safe(one.spec.name), safe(one.status.error.message) or phase(one))
                code = 1
    return code


def events(options: argparse.Namespace) -> int:
    """`tinyo events`: what happened, oldest first."""
    with node(options.host) as calls:
        request = api.WatchRequest(follow=options.follow, names=options.names, after_sequence=options.after)
        for answer in calls.Watch(request):
            event = answer.event
            reason = EventReason.Name(event.reason).removeprefix("EVENT_REASON_").lower()
            said = event.error.message or event.message
            name = safe(event.name) or "-"
            line = f"{event.sequence:>6}  {clock(event.time)}  {name}  {reason}  {safe(said)}"
            say(line.rstrip())
    return 0

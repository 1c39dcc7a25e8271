"""Every command that there is, and what the simple ones do."""

import argparse
import os
import sys
from typing import Any

from tinyo.node.v1 import node_pb2 as api
from tinyo.v1.container_pb2 import Container, DesiredState, Phase
from tinyo.v1.event_pb2 import EventReason
from tinyo.v1.version_pb2 import Version

from tinyo_ctl import services, supervise, systemd
from tinyo_ctl.arguments import Command
from tinyo_ctl.client import NodeError, connect, correlation_id, node_errors
from tinyo_ctl.render import age, clock, fail, phase, ports, safe, say, size, succeed, table
from tinyo_ctl.services import node
from tinyo_ctl.streams import execute, logs

#: Seconds for a node to say what runs before it is stopped.
STOP_PATIENCE = 5


def apply(options: argparse.Namespace) -> int:
    """`tinyo +`: brings up what Statefiles say."""
    # Only here: nothing else needs YAML, and `tinyo ls` has no time for it.
    from tinyo_ctl.apply import apply

    return apply(options)


def remove(options: argparse.Namespace) -> int:
    """`tinyo -`: takes away what Statefiles own, and containers by name."""
    names = [one for one in options.targets if not is_file(one)]
    requests = [api.RemoveRequest(names=names)] if names else []
    requests += [api.RemoveRequest(origin=os.path.realpath(one)) for one in options.targets if is_file(one)]
    code = 0
    with node(options.host) as calls:
        streams = []
        for request in requests:
            request.correlation_id = correlation_id()
            if options.time is not None:
                request.grace_ms = options.time * 1000
            streams.append((request, calls.Remove(request)))
        try:
            for request, stream in streams:
                code = max(code, follow_removal(request, stream))
        except KeyboardInterrupt:
            print(
                "interrupted: the removal goes on in the node; `tinyo ls` shows how far it is",
                file=sys.stderr,
            )
            raise
    return code


def follow_removal(request: api.RemoveRequest, stream: Any) -> int:
    """Shows what is gone; exit code."""
    try:
        with node_errors():
            gone = [name for answer in stream for name in answer.settled.names]
    except NodeError as error:
        for one in error.errors:
            fail(safe(request.origin or one.metadata.get("name", "")), safe(one.message))
        return error.exit_code
    for name in gone:
        succeed(safe(name), "removed")
    if not gone:
        say(f"nothing of {safe(request.origin)} is here")
    return 0


def is_file(target: str) -> bool:
    """Whether what somebody wants removed is a Statefile (which need not exist any more) or a name."""
    return "/" in target or target.endswith((".yml", ".yaml"))


def list_containers(options: argparse.Namespace) -> int:
    """`tinyo ls`: those that should run; with -a all."""
    with node(options.host) as calls:
        everything = calls.List(api.ListRequest()).containers
    containers = [one for one in everything if options.all or not is_stopped(one)]
    if options.output == "name":
        sys.stdout.writelines(f"{safe(one.spec.name)}\n" for one in containers)
    elif options.output:
        print_data(containers, options.output)
    elif containers:
        print(table([("NAME", "STATUS", "SINCE", "ADDRESS", "PORTS", "IMAGE"), *map(row, containers)]))
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


def row(container: Container) -> tuple[str, ...]:
    """A container as a line of the table."""
    status, spec = container.status, container.spec
    since = status.finished_at if status.phase == Phase.PHASE_EXITED else status.started_at
    return (spec.name, phase(container), age(since), status.address, ports(spec.ports), spec.image)


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
    request = api.StopRequest(names=options.names, correlation_id=correlation_id())
    if options.time is not None:
        request.grace_ms = options.time * 1000
    with node(options.host) as calls:
        for one in calls.Stop(request).containers:
            succeed(safe(one.spec.name), f"stopped, {phase(one)}")
    return 0


def start(options: argparse.Namespace) -> int:
    """`tinyo start`: runs what was stopped."""
    request = api.StartRequest(names=options.names, correlation_id=correlation_id())
    code = 0
    with node(options.host) as calls:
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
            say(
                f"{event.sequence:>6}  {clock(event.time)}  {safe(event.name)}  {reason}  {safe(said)}".rstrip()
            )
    return 0


def list_images(options: argparse.Namespace) -> int:
    """`tinyo image ls`."""
    with node(options.host) as calls:
        images = calls.ListImages(api.ListImagesRequest()).images
    rows = [
        (reference, one.digest[:19], one.platform, size(one.size_bytes))
        for one in images
        for reference in (one.references or ["<none>"])
    ]
    if options.output == "name":
        sys.stdout.writelines(f"{safe(reference)}\n" for reference, *_ in rows)
    else:
        print(table([("REFERENCE", "DIGEST", "PLATFORM", "SIZE"), *rows]))
    return 0


def pull_image(options: argparse.Namespace) -> int:
    """`tinyo image pull`."""
    from tinyo_ctl.progress import Progress

    with node(options.host) as calls, Progress() as progress:
        request = api.PullImageRequest(reference=options.reference, platform=options.platform)
        for answer in calls.PullImage(request):
            if answer.HasField("progress"):
                progress.show(answer.progress)
            else:
                progress.close()
                succeed(safe(options.reference), safe(answer.image.digest), size(answer.image.size_bytes))
    return 0


def remove_images(options: argparse.Namespace) -> int:
    """`tinyo image rm`: each by itself, so that one that is in use does not keep the others."""
    code = 0
    with node(options.host) as calls:
        for reference in options.references:
            try:
                with node_errors():
                    removed = calls.RemoveImage(api.RemoveImageRequest(reference=reference)).removed
            except NodeError as error:
                fail(safe(reference), safe(str(error)))
                code = max(code, error.exit_code)
            else:
                for name in removed or [reference]:
                    succeed(safe(name), "removed")
    return code


def start_services(options: argparse.Namespace) -> int:
    """`tinyo services start`."""
    services.need_root()
    started = services.ensure()
    for service in services.SERVICES:
        say(f"tinyo-{service} {'started' if service in started else 'runs already'}")
    return 0


def stop_services(options: argparse.Namespace) -> int:
    """`tinyo services stop`: containers go on."""
    services.need_root()
    running = running_containers()
    for service in (stopped := supervise.stop()):
        say(f"tinyo-{service} stopped")
    if not stopped:
        say("no service runs")
    elif running:
        say(f"{running} {'container goes' if running == 1 else 'containers go'} on")
    return 0


def running_containers() -> int:
    """How many containers run; 0 when no node says so in time, which must not keep it from being stopped."""
    if not services.answers("node"):
        return 0
    try:
        with connect(services.address()) as calls:
            containers = calls.List(api.ListRequest(), timeout=STOP_PATIENCE).containers
    except NodeError as error:
        fail("tinyo-node", f"cannot say what runs: {error}")
        return 0
    return sum(one.status.phase == Phase.PHASE_RUNNING for one in containers)


def services_status(options: argparse.Namespace) -> int:
    """`tinyo services status`; 0 when all of them answer, else 3."""
    services.need_root()
    answering = {service: services.answers(service) for service in services.SERVICES}
    rows = [
        (
            f"tinyo-{service}",
            "running" if answering[service] else "not answering" if supervise.process(service) else "stopped",
            str(supervise.process(service) or ""),
            services.address(service),
        )
        for service in services.SERVICES
    ]
    print(table([("SERVICE", "STATUS", "PID", "SOCKET"), *rows]))
    return 0 if all(answering.values()) else 3


def services_logs(options: argparse.Namespace) -> int:
    """`tinyo services logs`: what they said lately."""
    services.need_root()
    if systemd.has_units(services.INSTANCE):
        units = [f"--unit=tinyo-{service}" for service in services.SERVICES]
        os.execvp("journalctl", ["journalctl", "--no-pager", f"--lines={options.lines}", *units])
    for service in services.SERVICES:
        log = services.RUN / f"{service}.log"
        if log.exists():
            said = log.read_text(errors="replace").splitlines()
            sys.stdout.writelines(f"{service}: {safe(line)}\n" for line in said[-options.lines :])
    return 0


def version(options: argparse.Namespace) -> int:
    """`tinyo version`: of this program, and of the services when they can be asked without starting them."""
    # Only here: it is slow to import.
    from importlib import metadata

    say(f"tinyo          {metadata.version('tinyo-ctl')}")
    address = options.host or services.address()
    if options.host or (os.geteuid() == 0 and services.answers("node")):
        with connect(address) as calls:
            answer = calls.GetVersion(api.GetVersionRequest())
        say(f"tinyo-node     {told(answer.version)}  {safe(answer.node_id)}")
        say(f"tinyo-runtime  {told(answer.runtime) if answer.HasField('runtime') else 'cannot be reached'}")
    return 0


def told(of: Version) -> str:
    """A service's version and its contract's."""
    return f"{safe(of.program)}  contract {safe(of.contract)}"


def flag(*names: str, **settings: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """One argument of a command, as `ArgumentParser.add_argument` takes it."""
    return names, settings


def count(text: str) -> int:
    """A number from 0 to 2³¹ on the command line."""
    if not (text.isascii() and text.isdigit() and int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 upwards")
    return int(text)


NAMES = flag("names", nargs="+", metavar="NAME", help="name or id")
GRACE = flag("-t", "--time", type=count, metavar="SECONDS", help="before it is killed (default: 10)")
FOLLOW = flag("-f", "--follow", action="store_true", help="go on with what comes")

COMMANDS = (
    Command(
        ("+", "apply"),
        "bring up what Statefiles say",
        apply,
        [flag("files", nargs="+", metavar="FILE", help="a Statefile, or - for standard input")],
        "examples:\n  tinyo + web.yml db.yml\n  sed s/1.0/1.1/ web.yml | tinyo + -",
    ),
    Command(
        ("-", "rm"),
        "take away what Statefiles own, or containers",
        remove,
        [
            flag(
                "targets", nargs="+", metavar="FILE|NAME", help="with a / or ending in .yml or .yaml: a file"
            ),
            GRACE,
        ],
        "examples:\n  tinyo - web.yml      everything that came from this file\n  tinyo - web db       by name",
    ),
    Command(
        ("ls", "ps"),
        "list containers",
        list_containers,
        [
            flag("-a", "--all", action="store_true", help="those that were stopped, too"),
            flag("-o", "--output", choices=("json", "yaml", "name"), help="for programs"),
        ],
        "examples:\n  tinyo ls -a\n  tinyo ls -o json | jq '.[].status.address'",
    ),
    Command(
        ("logs",),
        "show what a container writes",
        logs,
        [
            flag("name", metavar="NAME", help="name or id"),
            FOLLOW,
            flag("-n", "--lines", type=count, metavar="N", help="only the last N lines"),
        ],
        "examples:\n  tinyo logs -f web\n  tinyo logs -n 20 web",
    ),
    Command(
        ("exec",),
        "run a program in a container",
        execute,
        [
            flag("-e", "--env", action="append", default=[], metavar="NAME=VALUE", help="a variable to add"),
            flag("-w", "--workdir", default="", metavar="PATH", help="working directory"),
            flag("-u", "--user", default="", metavar="USER", help="user, or user:group"),
            flag("name", metavar="NAME", help="name or id"),
            flag("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="program and arguments"),
        ],
        "examples:\n  tinyo exec web -- ls -l /\n  tinyo exec -u 1000 db -- pg_dump app > app.sql",
    ),
    Command(("stop",), "stop containers; they stay", stop, [NAMES, GRACE]),
    Command(("start",), "start stopped containers", start, [NAMES]),
    Command(
        ("events",),
        "show what happened",
        events,
        [
            flag("names", nargs="*", metavar="NAME", help="only about these"),
            FOLLOW,
            flag("--after", type=count, default=0, metavar="N", help="only after event number N"),
        ],
    ),
    Command(
        ("image ls",),
        "list images",
        list_images,
        [flag("-o", "--output", choices=("name",), help="for programs")],
    ),
    Command(
        ("image pull",),
        "fetch an image",
        pull_image,
        [
            flag("reference", metavar="IMAGE"),
            flag("--platform", default="", metavar="OS/ARCH", help="default: this machine's"),
        ],
    ),
    Command(
        ("image rm",),
        "remove images",
        remove_images,
        [flag("references", nargs="+", metavar="IMAGE")],
    ),
    Command(("services start",), "start the services", start_services),
    Command(("services stop",), "stop the services; containers go on", stop_services),
    Command(("services status",), "show which services run", services_status),
    Command(
        ("services logs",),
        "show what the services said",
        services_logs,
        [flag("-n", "--lines", type=count, default=50, metavar="N", help="of each (default: 50)")],
    ),
    Command(("version",), "show versions", version),
)

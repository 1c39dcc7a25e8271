"""`tinyo kill`, `pause`, `unpause`, `restart`, `rename` and `port`."""

import argparse
import os
import re
import signal
import sys

from tinyo.node.v1 import node_pb2, verbs_pb2
from tinyo.v1.container_pb2 import Container, Phase, Port, Protocol

from tinyo_ctl.client import correlation_id
from tinyo_ctl.failures import Failure, UsageError, goes_on
from tinyo_ctl.render import fail, phase, succeed
from tinyo_ctl.services import node
from tinyo_ctl.tell import safe

#: Those of the kernel that have numbers instead of names (signal(7)); a C library takes some of the first for itself.
RTMIN, RTMAX = 34, 64
REALTIME = re.compile(r"RTMIN(?:\+(\d{1,2}))?|RTMAX(?:-(\d{1,2}))?")
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
PORT = re.compile(r"(\d{1,5})(?:/(tcp|udp))?")


def signal_number(text: str) -> int:
    """Of "KILL", "SIGKILL", "9", "RTMIN+3". UsageError."""
    name = text.upper().removeprefix("SIG")
    if name.isascii() and name.isdecimal() and 1 <= int(name) <= RTMAX and text == name:
        return int(name)
    if match := REALTIME.fullmatch(name):
        above, below = match.groups()
        number = RTMAX - int(below or 0) if name.startswith("RTMAX") else RTMIN + int(above or 0)
        if RTMIN <= number <= RTMAX:
            return number
    elif name.isalnum() and (known := getattr(signal.Signals, f"SIG{name}", None)):
        return int(known)
    raise UsageError(f"{text!r} is no signal: write HUP, SIGHUP, 1, or RTMIN+1; `kill -l` lists them")


def signal_name(number: int) -> str:
    """As people write it."""
    if RTMIN <= number <= RTMAX:
        return f"SIGRTMIN+{number - RTMIN}"
    return signal.Signals(number).name if number in {*signal.Signals} else f"signal {number}"


def kill(options: argparse.Namespace) -> int:
    """`tinyo kill`: a signal for the first process of each."""
    number = signal_number(options.signal)
    request = verbs_pb2.KillRequest(names=options.names, signal=number, correlation_id=correlation_id())
    with node(options.host) as calls:
        answer = calls.Kill(request)
    for one in answer.containers:
        name = safe(one.spec.name)
        if one.spec.name in answer.unheard:
            print(f"{name}  has no handler for {signal_name(number)}: it did not hear it", file=sys.stderr)
        elif number == signal.SIGKILL:
            succeed(name, f"killed, {phase(one)}")
        else:
            succeed(name, f"{signal_name(number)} sent")
    return 0


def pause(options: argparse.Namespace) -> int:
    """`tinyo pause`: none of their processes runs."""
    request = verbs_pb2.PauseRequest(names=options.names, correlation_id=correlation_id())
    with node(options.host) as calls:
        for one in calls.Pause(request).containers:
            succeed(safe(one.spec.name), phase(one))
    return 0


def unpause(options: argparse.Namespace) -> int:
    """`tinyo unpause`: they go on."""
    request = verbs_pb2.UnpauseRequest(names=options.names, correlation_id=correlation_id())
    with node(options.host) as calls:
        for one in calls.Unpause(request).containers:
            succeed(safe(one.spec.name), phase(one))
    return 0


def restart(options: argparse.Namespace) -> int:
    """`tinyo restart`: another process in place of the one that runs."""
    request = verbs_pb2.RestartRequest(
        names=options.names, correlation_id=correlation_id(), grace_ms=options.time
    )
    code = 0
    with goes_on("restart"), node(options.host) as calls:
        for one in calls.Restart(request).containers:
            if one.status.phase == Phase.PHASE_RUNNING:
                succeed(safe(one.spec.name), "running", one.status.address)
            else:
                fail(safe(one.spec.name), safe(one.status.error.message) or phase(one))
                code = 1
    return code


def rename(options: argparse.Namespace) -> int:
    """`tinyo rename`: refused when its Statefile would bring up another one under the name before."""
    with goes_on("change of name"), node(options.host) as calls:
        container = calls.Get(node_pb2.GetRequest(name=options.name)).container
        if options.new == container.spec.name:
            raise Failure(f"{safe(options.new)!r} is its name already")
        present = [one.spec.name for one in calls.List(node_pb2.ListRequest()).containers]
        if NAME.fullmatch(options.new) and options.new not in present:  # else the node says what is wrong
            agree(container, options.new)
        request = verbs_pb2.RenameRequest(
            name=options.name, new_name=options.new, correlation_id=correlation_id()
        )
        renamed = calls.Rename(request).container
    succeed(safe(renamed.spec.name), f"was {container.spec.name}")
    return 0


def agree(container: Container, new: str) -> None:
    """Failure unless the Statefile that a container came from, if it is still there, says the new name."""
    if not (container.origin.startswith("/") and os.path.exists(container.origin)):
        return
    # Only here: the other commands do without YAML.
    from tinyo_ctl.statefile import load

    try:
        said = [spec.name for spec in load(container.origin).containers]
    except Failure as error:
        raise Failure(f"the Statefile of {container.spec.name!r} cannot be read:\n{error}") from None
    if new not in said:
        raise Failure(
            safe(
                f"{container.spec.name!r} came from {container.origin}, which would bring up another "
                f"{said[0]!r} with the next `tinyo +`: write `name: {new}` there first, then rename"
            )
        )


def port(options: argparse.Namespace) -> int:
    """`tinyo port`: as docker writes it, for scripts that read that."""
    wanted = asked(options.port) if options.port else None
    with node(options.host) as calls:
        container = calls.Get(node_pb2.GetRequest(name=options.name)).container
    name, ports = container.spec.name, container.spec.ports
    if container.status.phase not in (Phase.PHASE_RUNNING, Phase.PHASE_STOPPING):
        raise Failure(safe(f"{name!r} does not run ({phase(container)}), so nothing of it is published"))
    found = [one for one in ports if wanted in (None, (one.container_port, protocol(one)))]
    if wanted and not found:
        there = ", ".join(f"{one.container_port}/{protocol(one)}" for one in ports) or "none"
        raise Failure(
            f"port {wanted[0]}/{wanted[1]} of {safe(name)!r} is not published; published are: {there}"
        )
    for one in found:
        place = f"{one.host_ip or '0.0.0.0'}:{one.host_port}"
        print(place if wanted else f"{one.container_port}/{protocol(one)} -> {place}")
    if not found:
        print(f"{safe(name)} publishes nothing", file=sys.stderr)
    return 0


def asked(text: str) -> tuple[int, str]:
    """A port of a container: "80", "53/udp". UsageError."""
    match = PORT.fullmatch(text)
    if not match or not 1 <= int(match[1]) <= 65535:
        raise UsageError(f"{text!r} is no port: write 80 or 53/udp")
    return int(match[1]), match[2] or "tcp"


def protocol(published: Port) -> str:
    """ "tcp" or "udp"."""
    return "udp" if published.protocol == Protocol.PROTOCOL_UDP else "tcp"

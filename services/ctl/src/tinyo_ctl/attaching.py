"""`tinyo attach`: our streams become those of a container."""

import argparse
import signal
import sys
from contextlib import nullcontext
from itertools import chain
from types import FrameType

import grpc
from tinyo.node.v1 import node_pb2 as api
from tinyo.node.v1.node_pb2_grpc import NodeServiceStub
from tinyo.v1.attach_pb2 import AttachSpec
from tinyo.v1.container_pb2 import Container

from tinyo_ctl import terminal
from tinyo_ctl.services import node
from tinyo_ctl.streams import Line, shown
from tinyo_ctl.tell import safe

#: Signals that are passed on.
PROXIED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
#: How often Ctrl-C is the container's; the next one is ours: a first process may not care.
ENOUGH = 2


def attach(options: argparse.Namespace) -> int:
    """The exit code of the container when it ends meanwhile, 0 after the keys to detach."""
    with node(options.host) as calls:
        container = calls.Get(api.GetRequest(name=options.name)).container
        spec = AttachSpec(no_stdin=options.no_stdin)
        return follow(calls, container, spec, keys=options.detach_keys, proxy=options.sig_proxy) or 0


def follow(
    calls: NodeServiceStub, container: Container, spec: AttachSpec, *, keys: bytes, proxy: bool
) -> int | None:
    """Attaches, until the container has ended, with its exit code; None when the keys to detach were typed."""
    name = safe(container.spec.name)
    seated = container.spec.tty and not spec.no_stdin and terminal.is_there()
    line = Line(stdin=not spec.no_stdin, keys=keys if seated else b"")
    with terminal.lent(line.said) if seated else nullcontext() as size:
        if size:
            spec.size.CopyFrom(size)
        elif proxy:
            line.hear(*PROXIED)
            signal.signal(signal.SIGINT, Patience(line))
        start = api.AttachRequest(start=api.AttachStart(name=container.id, attach=spec))
        requests = chain([start], (api.AttachRequest(input=one) for one in line.inputs()))
        answers = calls.Attach(requests)
        line.hang_up = answers.cancel
        try:
            return shown((answer.output for answer in answers), lent=seated)
        except grpc.RpcError:
            if not line.detached:
                raise
        except KeyboardInterrupt:
            print(f"interrupted: {name} goes on; `tinyo attach {name}` comes back to it", file=sys.stderr)
            raise
    print(f"\ndetached: {name} goes on; `tinyo attach {name}` comes back to it", file=sys.stderr)
    return None


class Patience:
    """Passes Ctrl-C on, until it was pressed once more than helps."""

    def __init__(self, line: Line) -> None:
        self._line, self._left = line, ENOUGH

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        self._line.tell(number)

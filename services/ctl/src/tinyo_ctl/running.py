"""`tinyo run`: one container that no Statefile says anything of, with our streams as its own."""

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import grpc
from tinyo.node.v1 import node_pb2 as api
from tinyo.node.v1.node_pb2_grpc import NodeServiceStub
from tinyo.v1.attach_pb2 import AttachSpec
from tinyo.v1.container_pb2 import Container, ContainerSpec
from tinyo.v1.error_pb2 import Error
from tinyo.v1.policy_pb2 import RESTART_KIND_REMOVE
from tinyo.v1.stdin_pb2 import STANDARD_INPUT_CLOSED, STANDARD_INPUT_ONCE, STANDARD_INPUT_OPEN

from tinyo_ctl import attaching, shorthand, terminal
from tinyo_ctl import options as more
from tinyo_ctl.client import correlation_id
from tinyo_ctl.failures import Failure, UsageError
from tinyo_ctl.keys import envfile, ports
from tinyo_ctl.refusals import NodeError
from tinyo_ctl.services import node
from tinyo_ctl.tell import safe

Made = TypeVar("Made")
#: Exit codes as docker has them: TinyO failed; the command cannot be executed; there is none.
FAILED = 125
REASONS: Mapping[str, int] = {"COMMAND_NOT_EXECUTABLE": 126, "COMMAND_NOT_FOUND": 127}
#: Seconds that somebody who pressed Ctrl-C waits for us at most.
MOMENT = 1.0


class RunError(Failure):
    """The container could not be run."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.exit_code = code


def run(options: argparse.Namespace) -> int:
    """The exit code of the container; 125, 126 and 127 when there is none."""
    try:
        return _run(options)
    except RunError:
        raise
    except NodeError as error:
        raise RunError(str(error), code_of(error.errors[0])) from None
    except Failure as error:
        raise RunError(str(error)) from None


def _run(options: argparse.Namespace) -> int:
    spec = specified(options)
    if options.interactive and options.tty and not options.detach:
        terminal.need()
    with node(options.host) as calls:
        container = started(calls, spec)
        if options.detach:
            print(safe(container.spec.name))
            return 0
        attach = AttachSpec(from_start=True, no_stdin=not options.interactive)
        keys, proxy = options.detach_keys, options.sig_proxy
        try:
            code = attaching.follow(calls, container, attach, keys=keys, proxy=proxy)
        except BrokenPipeError:  # nobody reads any more, or ever will
            if options.rm:
                take_away(calls, container)
            raise
        if options.rm and code is not None:
            take_away(calls, container)
        return code or 0


def specified(options: argparse.Namespace) -> ContainerSpec:
    """What the command line asks for, in the words of a Statefile. UsageError."""
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    stdin = STANDARD_INPUT_OPEN if options.detach else STANDARD_INPUT_ONCE
    env: dict[str, str] = {}
    for file in options.env_file:
        env |= parsed("--env-file", lambda name: envfile.read(os.getcwd(), name), file)
    env |= dict(pair for text in options.env if (pair := parsed("-e", variable, text)))
    spec = ContainerSpec(
        name=options.name or made_up(options.image),
        image=options.image,
        command=command,
        env=env,
        ports=[port for text in options.publish for port in parsed("-p", ports.parsed, text)],
        mounts=[_mount(text) for text in options.volume],
        workdir=options.workdir,
        user=options.user,
        tty=options.tty,
        stdin=stdin if options.interactive else STANDARD_INPUT_CLOSED,
        **more.fields(options),
    )
    if options.rm and spec.HasField("restart"):
        raise UsageError("--rm and --restart do not go together: what is started again is not taken away")
    if options.rm:
        spec.restart.kind = RESTART_KIND_REMOVE
    return spec


def parsed(option: str, parse: Callable[[str], Made], text: str) -> Made:
    """A value as in a Statefile. UsageError."""
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def variable(text: str) -> tuple[str, str] | None:
    """ "NAME=value", or "NAME" for our own variable of that name, if there is one."""
    if "=" in text or not text:
        return shorthand.variable(text)
    return (text, os.environ[text]) if text in os.environ else None


def _mount(text: str) -> Any:
    return parsed("-v", lambda text: shorthand.mount(text, os.getcwd()), text)


def made_up(image: str) -> str:
    """A name: that of the image, and something of its own."""
    base = re.split("[@:]", image.rpartition("/")[2])[0].lower()
    return f"{re.sub('[^a-z0-9_.-]+', '-', base).strip('_.-')[:48] or 'run'}-{os.urandom(3).hex()}"


def started(calls: NodeServiceStub, spec: ContainerSpec) -> Container:
    """The container, which runs, or has run. RunError when it could not be started. Ctrl-C takes it back."""
    id = correlation_id()
    # An origin of its own: a name that is taken is never replaced.
    request = api.ApplyRequest(containers=[spec], origin=f"run {id}", correlation_id=id)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output is the container's
            container = settled(calls.Apply(request))
    except KeyboardInterrupt:
        print(f"interrupted: {safe(spec.name)} is taken back", file=sys.stderr)
        take_away(calls, Container(spec=spec, origin=request.origin), patience=MOMENT)
        raise
    if container.status.HasField("error"):
        error = container.status.error
        if spec.restart.kind == RESTART_KIND_REMOVE:
            take_away(calls, container)
        raise RunError(safe(error.message), code_of(error))
    return container


def settled(answers: Iterator[api.ApplyResponse]) -> Container:
    """What became of the one container of an Apply; how far its image is, is shown meanwhile."""
    for answer in answers:
        if answer.HasField("progress"):
            # Only then, and on standard error.
            from tinyo_ctl.progress import showing
            from tinyo_ctl.together import Stream

            with showing:
                showing.show(answer.progress)
                for later in Stream(answers, showing):
                    if later.HasField("settled"):
                        return later.settled.containers[0]
        if answer.HasField("settled"):
            return answer.settled.containers[0]
    raise RunError("the node did not say what became of the container: `tinyo ls -a` shows it")


def code_of(error: Error) -> int:
    """The exit code for what a node says."""
    return REASONS.get(error.reason, FAILED)


def take_away(calls: NodeServiceStub, container: Container, *, patience: float | None = None) -> None:
    """Removes it, if it is still there; after so many seconds the node goes on with that alone."""
    request = api.RemoveRequest(origin=container.origin, correlation_id=correlation_id(), grace_ms=0)
    try:
        for _ in calls.Remove(request, timeout=patience):
            pass
    except grpc.RpcError as error:
        if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise

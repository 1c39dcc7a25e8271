"""`tinyo doctor`: each defence of this machine and each thing that is needed of it, as it is found to be.

With services that run, they say it; without, the program that the runtime would have run is run from here, so that
there is an answer when nothing starts.
"""

import argparse
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
from google.protobuf.json_format import Parse, ParseError
from tinyo.node.v1 import node_pb2 as api
from tinyo.v1.diagnosis_pb2 import Finding, FindingState

from tinyo_ctl import services
from tinyo_ctl.client import connect
from tinyo_ctl.refusals import NodeError
from tinyo_ctl.render import styled
from tinyo_ctl.tell import safe

#: Seconds that the services may take to answer.
PATIENCE = 30
PROGRAM = "tinyo_runtime.doctor"
ON, OFF, IMPOSSIBLE = (
    FindingState.FINDING_STATE_ON,
    FindingState.FINDING_STATE_OFF,
    FindingState.FINDING_STATE_IMPOSSIBLE,
)
WORDS = {ON: "on", OFF: "off", IMPOSSIBLE: "impossible"}
#: Characters of the names of most rows.
WIDTH = 26


def doctor(options: argparse.Namespace) -> int:
    """Exit code 0 when nothing is off that should be on, else 1."""
    if options.attack:
        from tinyo_ctl import attacking

        return attacking.attack(options.host, options.output)
    wrong = 0
    for finding in findings(options.host):
        wrong += finding.state == OFF and not finding.optional
        if options.output == "json":
            print(as_json(finding), flush=True)
        else:
            show(finding)
    if options.output != "json":
        print(
            f"\n{styled('red', 'Not all is well')}: {wrong} of these should be on, and can be."
            if wrong
            else f"\n{styled('green', 'All is well')}: nothing is off that should be on."
        )
    return 1 if wrong else 0


def findings(host: str) -> Iterator[Finding]:
    """What the services say, or without them what can be seen from here; and of the services themselves."""
    if host or services.answers("node"):
        yield from told(host or services.NODE)
    else:
        yield from silent()
        yield from seen()


def told(address: str) -> Iterator[Finding]:
    """By the node, which asks the runtime. Raises NodeError when nobody answers at all."""
    with connect(address) as calls:
        version = calls.GetVersion(api.GetVersionRequest(), timeout=PATIENCE)
        yield from compared(version)
        if not version.HasField("runtime"):
            yield from seen()
            return
        names = set[str]()
        try:
            for answer in calls.Diagnose(api.DiagnoseRequest(), timeout=PATIENCE):
                names.add(answer.finding.name)
                yield answer.finding
            return
        except grpc.RpcError as error:
            failed = NodeError.of(error)
    yield off("diagnosis", f"the services cannot look: {failed}", "tinyo services logs")
    yield from (finding for finding in seen() if finding.name not in names)


def compared(version: api.GetVersionResponse) -> Iterator[Finding]:
    """Whether this program and both services are of one version, or understand each other at least."""
    from importlib.metadata import version as installed

    programs = {"tinyo": installed("tinyo-ctl"), "tinyo-node": version.version.program}
    if version.HasField("runtime"):
        programs["tinyo-runtime"] = version.runtime.program
    else:
        why = "tinyo-node runs, but cannot reach tinyo-runtime"
        yield off("services", why, "tinyo services start; tinyo services logs")
        return
    shown = ", ".join(f"{name} {program}" for name, program in programs.items())
    if len(set(programs.values())) > 1:
        yield off(
            "services", f"of different versions: {shown}", "tinyo services stop && tinyo services start"
        )
    else:
        yield Finding(name="services", state=ON, why=shown)


def silent() -> Iterator[Finding]:
    """Of services that do not run: that, and what they said last."""
    missing = [f"tinyo-{name}" for name in services.SERVICES if not services.answers(name)]
    said = [line for name in services.SERVICES if (line := last(services.RUN / f"{name}.log"))]
    why = f"{' and '.join(missing)} {'do' if len(missing) > 1 else 'does'} not run"
    why += f"; said last: {said[-1]}" if said else ""
    yield Finding(name="services", state=OFF, optional=not said, why=why, remedy="tinyo services start")


def last(log: Path) -> str:
    """The last line of a log, if there is one."""
    if not log.exists() or not stat.S_ISREG(log.stat().st_mode):
        return ""
    lines = log.read_bytes()[-4096:].decode(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")


def seen() -> Iterator[Finding]:
    """What the runtime's own program finds, run from here."""
    command = [sys.executable, "-P", "-m", PROGRAM]  # not what lies in the working directory
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd="/")
    except subprocess.TimeoutExpired:
        yield off("diagnosis", f"it took longer than {PATIENCE} s, and was ended", "")
        return
    for line in done.stdout.splitlines():
        try:
            yield Parse(line, Finding())
        except ParseError:
            yield off("diagnosis", f"said what is not understood: {line}", "install all of one version")
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        remedy = "install tinyo-runtime beside this program" if os.geteuid() == 0 else "run it with sudo"
        yield off("diagnosis", lines[-1] if lines else f"it ended with {done.returncode}", remedy)


def off(name: str, why: str, remedy: str) -> Finding:
    """What should be on."""
    return Finding(name=name, state=OFF, why=why, remedy=remedy)


def show(finding: Finding) -> None:
    """A row, and below it what to do."""
    optional = finding.optional and finding.state == OFF
    mark, style = {ON: ("✓", "green"), IMPOSSIBLE: ("-", "dim")}.get(finding.state, ("✗", "red"))
    if optional:
        mark, style = "·", "yellow"
    name = safe(finding.name).ljust(WIDTH)
    state = WORDS.get(finding.state, "unknown").ljust(10)
    print(f"{styled(style, mark)} {name}  {styled(style, state)}  {safe(finding.why)}", flush=True)
    if finding.remedy and finding.state == OFF:
        print(f"  {' ' * WIDTH}  {' ' * 10}  {styled('dim', '→ ' + safe(finding.remedy))}", flush=True)


def as_json(finding: Finding) -> str:
    """One object, in ASCII: no terminal obeys it."""
    import json  # only for programs

    facts = {
        "name": finding.name,
        "state": WORDS.get(finding.state, "unknown"),
        "optional": finding.optional,
        "why": finding.why,
        "remedy": finding.remedy,
    }
    return json.dumps(facts)

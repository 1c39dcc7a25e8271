"""`tinyo stats`: what containers take of the machine."""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from google.protobuf.json_format import MessageToDict
from tinyo.node.v1.node_pb2 import StatsRequest
from tinyo.v1.stats_pb2 import ContainerStats

from tinyo_ctl.foot import Foot
from tinyo_ctl.render import styled, table
from tinyo_ctl.services import node

#: Milliseconds between two samples; and when only one is shown, for which two are needed.
EVERY, ONCE = 1000, 500
HEADING = (
    "NAME",
    "CPU",
    "THROTTLED",
    "MEMORY / LIMIT",
    "OF",
    "NETWORK IN / OUT",
    "DISK IN / OUT",
    "PIDS",
    "OOM",
)
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def show(options: argparse.Namespace) -> int:
    """A table that changes every second; or one, or objects for programs."""
    interval = ONCE if options.no_stream else EVERY
    with node(options.host) as calls:
        samples = pairs(answer.stats for answer in calls.Stats(request(options.names, interval)))
        if options.no_stream:
            samples = itertools.islice(samples, 1)
        if options.output == "json":
            for before, now in samples:
                for one in now:
                    print(json.dumps(facts(one, before.get(one.id))), flush=True)
        elif sys.stdout.isatty() and not options.no_stream:
            live(samples)
        else:
            for before, now in samples:
                print(lines(before, now), flush=True)
    return 0


def request(names: list[str], interval: int) -> StatsRequest:
    """What the node is asked."""
    return StatsRequest(names=names, interval_ms=interval)


Sample = tuple[dict[str, ContainerStats], list[ContainerStats]]


def pairs(answers: Iterator[Any]) -> Iterator[Sample]:
    """Each sample but the first, with the one before it by id: rates are differences."""
    before: dict[str, ContainerStats] | None = None
    for now in answers:
        if before is not None:
            yield before, [*now]
        before = {one.id: one for one in now}


def live(samples: Iterator[Sample]) -> None:
    """Draws the table again and again, as much of it as the terminal has room for; the last one stays."""
    last = ""
    try:
        with closing(Foot()) as foot:
            for before, now in samples:
                last = lines(before, now)
                foot.draw(fitting(last.split("\n"), *foot.size()))
    finally:
        if last:
            print(last, flush=True)


def fitting(drawn: list[str], columns: int, most: int) -> list[str]:
    """Those of the lines that a terminal has room for, as much of each as it is wide."""
    if len(drawn) > most:
        drawn = [*drawn[: max(0, most - 1)], f"and {len(drawn) - most + 1} more"]
    return [styled("dim", line[4:-4][:columns]) if line[:1] == "\x1b" else line[:columns] for line in drawn]


def lines(before: dict[str, ContainerStats], now: list[ContainerStats]) -> str:
    """The table."""
    return table([HEADING, *(row(one, before.get(one.id)) for one in now)])


def row(now: ContainerStats, before: ContainerStats | None) -> tuple[str, ...]:
    """A container as a line of the table; "-" is what nobody counts."""
    cpu, limit = cpu_percent(now, before), now.memory_limit_bytes
    io = now.HasField("io_read_bytes")
    return (
        now.name,
        "-" if cpu is None else f"{cpu:.1f} %",
        throttled(now, before),
        f"{size(now.memory_working_set_bytes)} / {size(limit) if limit else '-'}",
        f"{now.memory_working_set_bytes / limit:.0%}" if limit else "-",
        f"{size(now.received.bytes)} / {size(now.sent.bytes)}" if now.HasField("received") else "-",
        f"{size(now.io_read_bytes)} / {size(now.io_write_bytes)}" if io else "-",
        f"{now.pids}",
        f"{now.oom_kills or '-'}",
    )


def seconds(now: ContainerStats, before: ContainerStats) -> float:
    """Between two samples."""
    return max(1e-9, (now.time.ToNanoseconds() - before.time.ToNanoseconds()) / 1e9)


def cpu_percent(now: ContainerStats, before: ContainerStats | None) -> float | None:
    """Of one processor; None when there is nothing to compare with: it was just started."""
    if not before or now.cpu_usage_ns < before.cpu_usage_ns:
        return None
    return (now.cpu_usage_ns - before.cpu_usage_ns) / 1e7 / seconds(now, before)


def throttled(now: ContainerStats, before: ContainerStats | None) -> str:
    """In how many of the last periods it had used up its limit."""
    periods = now.cpu_periods - (before.cpu_periods if before else 0)
    if not before or periods <= 0:
        return "-"
    return f"{(now.cpu_throttled_periods - before.cpu_throttled_periods) / periods:.0%}"


def facts(now: ContainerStats, before: ContainerStats | None) -> dict[str, Any]:
    """All that is known, with numbers as numbers."""
    data: dict[str, Any] = numbers(
        MessageToDict(now, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    )
    return data | {"cpu_percent": cpu_percent(now, before)}


TEXTS = ("id", "name", "cluster", "image", "time")


def numbers(data: dict[str, Any]) -> dict[str, Any]:
    """ProtoJSON writes large numbers as texts."""
    made: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            made[name] = numbers(value)
        else:
            made[name] = int(value) if isinstance(value, str) and name not in TEXTS else value
    return made


def size(number: int) -> str:
    """Bytes with three digits."""
    value, unit = float(number), 0
    while value >= 999.5 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.3g} {UNITS[unit]}"

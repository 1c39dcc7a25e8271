"""`tinyo logs`: what containers wrote, of one as it was, of several with their names."""

import argparse
import base64
import heapq
import json
import queue
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import datetime

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from tinyo.node.v1 import node_pb2 as api
from tinyo.node.v1.node_pb2_grpc import NodeServiceStub
from tinyo.v1.stream_pb2 import LogEntry, OutputStream

from tinyo_ctl.failures import UsageError
from tinyo_ctl.render import styled
from tinyo_ctl.services import node
from tinyo_ctl.streams import Output

#: Of the names of containers, in turn.
COLOURS = ("green", "yellow", "cyan", "magenta", "blue", "red")
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
#: Entries of several containers that wait to be shown; then the node waits.
WAITING = 1024

#: An entry, and the name of its container.
Named = tuple[str, LogEntry]


def when(text: str) -> Timestamp:
    """A time: how long ago ("90s", "1h30m"), a date and time (of the local clock unless it says another), or seconds
    since 1970."""
    made = Timestamp()
    try:
        if DURATION.fullmatch(text):
            parts = re.findall(r"([\d.]+)(ms|s|m|h|d)", text)
            made.FromNanoseconds(time.time_ns() - int(sum(float(n) * UNITS[unit] for n, unit in parts) * 1e9))
        elif re.fullmatch(r"\d{1,11}(\.\d{1,9})?", text):
            seconds, _, fraction = text.partition(".")
            made.FromNanoseconds(int(seconds) * 10**9 + int(fraction.ljust(9, "0")))
        else:
            made.FromNanoseconds(int(datetime.fromisoformat(text).astimezone().timestamp() * 10**6) * 1000)
    except (ValueError, OverflowError):
        message = (
            f"{text!r} is no time: write 10m, 1h30m, 2026-01-31, 2026-01-31T12:00:00, or seconds since 1970"
        )
        raise argparse.ArgumentTypeError(message) from None
    return made


def show(options: argparse.Namespace) -> int:
    """`tinyo logs`: standard output to standard output, standard error to standard error."""
    names = list(dict.fromkeys(options.names))
    if len(names) != len(options.names):
        raise UsageError("a container is named twice")
    with node(options.host) as calls:
        streams = [_entries(calls, name, options) for name in names]
        shown = Shown(names, timestamps=options.timestamps, objects=options.output == "json")
        try:
            for name, entry in _mixed(streams, follow=options.follow):
                shown.add(name, entry)
        finally:
            shown.close()
    return 0


def _entries(calls: NodeServiceStub, name: str, options: argparse.Namespace) -> Iterator[Named]:
    request = api.LogsRequest(
        name=name, follow=options.follow, tail=options.lines, since=options.since, until=options.until
    )
    for answer in calls.Logs(request):
        for entry in answer.entries:
            yield name, entry


def _mixed(streams: list[Iterator[Named]], *, follow: bool) -> Iterator[Named]:
    """The entries of all: in the order of their times, and with `follow` as they come."""
    if len(streams) == 1:
        return streams[0]
    if not follow:
        return heapq.merge(*streams, key=lambda named: named[1].time.ToNanoseconds())
    return _as_they_come(streams)


def _as_they_come(streams: list[Iterator[Named]]) -> Iterator[Named]:
    waiting: queue.Queue[Named | Exception | None] = queue.Queue(WAITING)

    def read(stream: Iterable[Named]) -> None:
        try:
            for named in stream:
                waiting.put(named)
        except grpc.RpcError as error:
            waiting.put(error)
        waiting.put(None)

    for stream in streams:
        threading.Thread(target=read, args=(stream,), daemon=True).start()
    ended = 0
    while ended < len(streams):
        match waiting.get():
            case None:
                ended += 1
            case Exception() as error:
                raise error
            case named:
                yield named


class Shown:
    """Entries on their way to whoever reads them."""

    def __init__(self, names: list[str], *, timestamps: bool, objects: bool) -> None:
        self._out = {False: Output(sys.stdout), True: Output(sys.stderr)}
        self._timestamps, self._objects = timestamps, objects
        width = max(map(len, names))
        self._prefixes = {
            name: styled(COLOURS[index % len(COLOURS)], f"{name:{width}} |").encode() + b" "
            for index, name in enumerate(names)
            if len(names) > 1
        }
        #: What is known of lines that have no end yet, by container and stream.
        self._begun: dict[tuple[str, bool], list[LogEntry]] = {}

    def add(self, name: str, entry: LogEntry) -> None:
        """One more. Of several containers, only whole lines: one must not go on in the middle of another's."""
        is_error = entry.stream == OutputStream.OUTPUT_STREAM_STDERR
        if self._objects:
            self._out[False].write(_object(name, entry))
            return
        begun = self._begun.setdefault((name, is_error), [])
        if not self._prefixes:
            head = self._head(name, entry) if not begun else b""
            self._out[is_error].write(head + entry.data)
            begun[:] = [] if entry.data.endswith(b"\n") else [entry]
            return
        begun.append(entry)
        if entry.data.endswith(b"\n"):
            self._flush(name, is_error)

    def close(self) -> None:
        """What had no end is shown as it is; a terminal is left as it was."""
        if self._prefixes:
            for name, is_error in list(self._begun):
                if self._begun[name, is_error]:
                    self._flush(name, is_error)
                    self._out[is_error].write(b"\n")
        for out in self._out.values():
            out.close()

    def _flush(self, name: str, is_error: bool) -> None:
        entries = self._begun.pop((name, is_error))
        data = b"".join(entry.data for entry in entries)
        self._out[is_error].write(self._head(name, entries[0]) + data)

    def _head(self, name: str, entry: LogEntry) -> bytes:
        time = f"{_time(entry)} ".encode() if self._timestamps else b""
        return self._prefixes.get(name, b"") + time


def _time(entry: LogEntry) -> str:
    """RFC 3339, always with nanoseconds, so that lines begin at one column."""
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(entry.time.seconds))
    return f"{seconds}.{entry.time.nanos:09}Z"


def _object(name: str, entry: LogEntry) -> bytes:
    """For programs: text where it is UTF-8, else base64; `partial` when the line goes on."""
    stream = "stderr" if entry.stream == OutputStream.OUTPUT_STREAM_STDERR else "stdout"
    facts = {"time": _time(entry), "container": name, "stream": stream}
    data = entry.data.removesuffix(b"\n")
    try:
        facts["text"] = data.decode()
    except UnicodeDecodeError:
        facts["base64"] = base64.b64encode(data).decode()
    partial = {} if entry.data.endswith(b"\n") else {"partial": True}
    return json.dumps(facts | partial).encode() + b"\n"  # in ASCII: no terminal obeys it

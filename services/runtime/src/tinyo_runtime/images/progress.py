"""How far a pull has come: what each of its layers is at, told a few times a second to whoever waits for it.

A layer is fetched once, for however many pulls: whoever works on it says so here, and all of them look.
"""

import asyncio
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar

from tinyo.v1 import image_pb2 as v1

from tinyo_runtime.images.image import Document
from tinyo_runtime.images.reference import Reference

#: Seconds between two reports.
INTERVAL = 0.1
ENDED = (v1.LAYER_STATE_DONE, v1.LAYER_STATE_EXISTS)


class Layer:
    """A layer that is brought to its place."""

    def __init__(self, layer: Document, state: v1.LayerState.ValueType) -> None:
        self._told = v1.LayerProgress(digest=layer["digest"], total_bytes=layer["size"], state=state)
        #: The confined process, while it runs.
        self.unpacker: Process | None = None

    def becomes(self, state: v1.LayerState.ValueType) -> None:
        """What happens to it from now on."""
        self._told.state = state

    def received(self, count: int) -> None:
        """So many bytes more, from wherever."""
        self._told.received_bytes += count

    def is_here(self, count: int) -> None:
        """So many of its bytes, from the first, are here and are not fetched."""
        self._told.resumed_bytes = count
        if count == self._told.total_bytes:
            self._told.state = v1.LAYER_STATE_UNPACKING

    def restarts(self) -> None:
        """What was here of it is of no use, and all of it is fetched."""
        self._told.received_bytes = self._told.resumed_bytes = 0

    def look(self) -> v1.LayerProgress:
        """How far it is now."""
        self._told.ClearField("unpacked_bytes")
        if self.unpacker and (count := _written(self.unpacker)) is not None:
            self._told.unpacked_bytes = count
        self._told.complete = self._told.state in ENDED
        return self._told


class Wanted:
    """A layer as one pull wants it."""

    def __init__(self, layer: Document) -> None:
        self.layer = Layer(layer, v1.LAYER_STATE_WAITING)
        #: Whether another pull began to fetch it.
        self.shared = False

    def follow(self, layer: Layer) -> None:
        """This is where it is fetched."""
        self.layer = layer


class Layers:
    """Those of one pull, in the order of the manifest."""

    def __init__(self) -> None:
        self._all: list[Wanted] = []
        #: Set as soon as it has any.
        self.known = asyncio.Event()

    def add(self, layer: Document) -> Wanted:
        """One more."""
        self._all.append(wanted := Wanted(layer))
        self.known.set()
        return wanted

    def report(self, reference: Reference) -> v1.PullProgress:
        """How far all of them are now."""
        report = v1.PullProgress(reference=str(reference))
        for wanted in self._all:
            one = report.layers.add()
            one.CopyFrom(wanted.layer.look())
            one.shared = wanted.shared
        return report


_current: ContextVar[Layer | None] = ContextVar("layer", default=None)


def current() -> Layer:
    """The layer that the running task works on; where it is none, nobody hears what is said of this one."""
    return _current.get() or Layer({"digest": "", "size": 0}, v1.LAYER_STATE_UNSPECIFIED)


@contextmanager
def of(layer: Document) -> Iterator[Layer]:
    """The running task works on this layer, and in the end it is in its place."""
    made = Layer(layer, v1.LAYER_STATE_WAITING)
    token = _current.set(made)
    try:
        yield made
        made.becomes(v1.LAYER_STATE_DONE)
    finally:
        _current.reset(token)


@asynccontextmanager
async def told(
    reference: Reference, layers: Layers, tell: Callable[[v1.PullProgress], None]
) -> AsyncIterator[None]:
    """Meanwhile somebody is told how far a pull is: when its layers are known, whenever that changes, and at its end."""
    teller = asyncio.create_task(_tell(reference, layers, tell))
    try:
        yield
        if layers.known.is_set():
            tell(layers.report(reference))
    finally:
        teller.cancel()


async def _tell(reference: Reference, layers: Layers, tell: Callable[[v1.PullProgress], None]) -> None:
    """Once without layers, when the registry takes its time to say which they are."""
    with suppress(TimeoutError):
        async with asyncio.timeout(INTERVAL):
            await layers.known.wait()
    last = None
    while True:
        if (report := layers.report(reference)) != last:
            tell(report)
        last = report
        await asyncio.sleep(INTERVAL)


def _written(process: Process) -> int | None:
    """Bytes that a process has written to files, as the kernel counts them (proc_pid_io(5)): it need not tell us.
    None when it has ended, or when this kernel does not count."""
    if process.returncode is not None:
        return None
    try:
        with open(f"/proc/{process.pid}/io", "rb") as counters:
            return int(dict(line.split(b": ") for line in counters)[b"wchar"])
    except OSError:  # it ends just now; or it is not counted, and nothing is shown
        return None

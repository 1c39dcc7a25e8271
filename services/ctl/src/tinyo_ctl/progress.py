"""How far things have come that take a while: bars at the foot of a terminal, plain lines elsewhere.

    with Progress("pulling") as progress:
        for answer in calls.PullImage(request):
            progress.show(answer.progress)

Whoever moves something else in parts, such as a push, says so with `update`.
"""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from tinyo.v1 import image_pb2 as v1

from tinyo_ctl.render import ago, size
from tinyo_ctl.tell import say

if TYPE_CHECKING:
    from tinyo_ctl.foot import Foot

#: Seconds before bars are shown: what takes less needs none, nor the time that it takes to load them.
MOMENT = 0.3
#: Seconds between two pictures of the bars, and at least between two lines about the same thing.
INTERVAL, PAUSE = 0.1, 10
#: Seconds over which a rate is taken.
WINDOW = 5
WAITING = "waiting"
#: What is said of a layer.
STATES = {
    v1.LAYER_STATE_WAITING: WAITING,
    v1.LAYER_STATE_VERIFYING: "verifying",
    v1.LAYER_STATE_UNPACKING: "unpacking",
    v1.LAYER_STATE_FLUSHING: "flushing",
    v1.LAYER_STATE_DONE: "done",
    v1.LAYER_STATE_EXISTS: "exists already",
}


class Part(NamedTuple):
    """A part of something, such as a layer of an image."""

    name: str
    #: What happens to it, in a word or two.
    state: str = WAITING
    #: Bytes that are there, of `total`; the first of them, so many as were `here`, did not have to come.
    done: int = 0
    total: int = 0
    here: int = 0
    #: What else there is to say.
    note: str = ""
    #: Nothing more happens to it.
    ended: bool = False

    @property
    def active(self) -> bool:
        """Whether something happens to it now."""
        return not self.ended and self.state != WAITING


class Item:
    """Something that is on its way in parts."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.parts: Sequence[Part] = ()
        #: When it began, when it was told of last, and when all was there, by the monotonic clock.
        self.began = self.told = self.all_there = time.monotonic()
        #: Whether it is to be seen.
        self.shown = True
        #: Whether somebody has said what it came to.
        self.asked = False
        #: When how many bytes had come, in the last seconds.
        self._samples: deque[tuple[float, int]] = deque()

    def update(self, parts: Sequence[Part]) -> None:
        """Its parts, as they are now."""
        now = time.monotonic()
        if parts and not self.parts:
            self.began = self.told = now
        if not self.ended:
            self.all_there = now
        self.parts = parts
        self._samples.append((now, self.came))

    @property
    def done(self) -> int:
        """Bytes that are there."""
        return sum(part.done for part in self.parts)

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(part.total for part in self.parts)

    @property
    def ended(self) -> bool:
        """Whether all of it is there."""
        return bool(self.parts) and all(part.ended for part in self.parts)

    @property
    def came(self) -> int:
        """Bytes that had to come, and are there."""
        return sum(max(0, part.done - part.here) for part in self.parts)

    def rate(self) -> int:
        """Bytes a second, lately."""
        now = time.monotonic()
        while len(self._samples) > 1 and now - self._samples[0][0] > WINDOW:
            self._samples.popleft()
        since, count = self._samples[0]
        return int((self.came - count) / max(now - since, INTERVAL))

    def outlook(self) -> str:
        """How fast it is and how long it takes; or what it waits for."""
        missing = sum(part.total - part.done for part in self.parts if not part.ended)
        if missing and (rate := self.rate()):
            return f"{size(rate)}/s  {ago(missing / rate + 1)} left"
        if not self.parts:
            return "asking the registry"
        return next((part.state for part in self.parts if part.active), WAITING)

    def facts(self) -> str:
        """How much came, how long that took, how fast it was."""
        if not (came := self.came):
            return "nothing to transfer"
        seconds = max(self.all_there - self.began, 0.001)
        return f"{size(came)} in {seconds:.1f} s, {size(int(came / seconds))}/s"


class Shown(Protocol):
    """Whatever shows how far images are."""

    def show(self, pulled: v1.PullProgress) -> None:
        """How far an image is."""

    def drop(self, title: str) -> None:
        """It is not shown any more."""


class Progress:
    """Shows whatever is on its way, from when it is heard of until it is dropped, or all is closed."""

    def __init__(self, verb: str = "pulling", *, detailed: bool = True) -> None:
        self.verb, self.detailed = verb, detailed
        self.terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        #: When what is shown was asked for.
        self.began = time.monotonic()
        self.items: dict[str, Item] = {}
        #: What is known changes in one thread, and is drawn in another.
        self._lock = threading.Lock()
        self._closed: threading.Event | None = None
        self._foot: Foot | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def show(self, pulled: v1.PullProgress) -> None:
        """How far an image is."""
        self.update(pulled.reference, [*map(layer_part, pulled.layers)])

    def update(self, title: str, parts: Sequence[Part]) -> None:
        """How far something is, by all of its parts."""
        with self._lock:
            item = self.items.setdefault(title, Item(title))
            before = item.parts
            item.update(parts)
            item.shown = not item.ended
            if self.terminal and not self._closed and item.shown:
                self._closed = threading.Event()
                threading.Thread(target=self._draw, args=[self._closed], daemon=True).start()
        if not self.terminal:
            self._tell(item, before)

    def facts(self, title: str) -> str:
        """What something came to: how much came, how long that took, how fast it was."""
        with self._lock:
            return self.items.get(title, Item(title)).facts()

    def news(self, title: str) -> str:
        """The same, when all of it is there and nobody has asked before; else ""."""
        with self._lock:
            item = self.items[title]
            if not item.ended or item.asked:
                return ""
            item.asked = True
            return item.facts()

    def drop(self, title: str) -> None:
        """Something is not shown any more."""
        with self._lock:
            if item := self.items.get(title):
                item.shown = False
            if not self._visible():
                self._close()

    def close(self) -> None:
        """Nothing is shown any more, unless it goes on."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._closed:
            self._closed.set()
        if self._foot:
            self._foot.close()
        self._closed = self._foot = None

    def _visible(self) -> list[Item]:
        return [item for item in self.items.values() if item.shown]

    def _draw(self, closed: threading.Event) -> None:
        """On a terminal: draws again and again."""
        if closed.wait(MOMENT):
            return
        # Only now: it takes longer than most pulls do.
        from tinyo_ctl.bars import Bars
        from tinyo_ctl.foot import Foot

        bars, foot = Bars(), Foot()
        while not closed.is_set():
            with self._lock:
                if not closed.is_set() and (visible := self._visible()):
                    self._foot = foot
                    foot.draw(bars.lines(visible, *foot.size()))
            closed.wait(INTERVAL)

    def _tell(self, item: Item, before: Sequence[Part]) -> None:
        """Elsewhere: a line now and then; in detail also when it begins, and one for each part that is there."""
        if self.detailed and item.parts and not before:
            count = len(item.parts)
            say(item.title, f"{self.verb} {count} layer{'' if count == 1 else 's'}, {size(item.total)}")
        known = {part.name for part in before if part.ended}
        for part in item.parts if self.detailed else ():
            if part.ended and part.name not in known:
                say(item.title, part.name, part.state, size(part.total), *filter(None, [part.note]))
        if item.parts and not item.ended and time.monotonic() - item.told >= PAUSE:
            item.told = time.monotonic()
            say(item.title, amounts(item.done, item.total), item.outlook())


#: What this command line shows of images.
showing = Progress(detailed=False)


def layer_part(layer: v1.LayerProgress) -> Part:
    """A layer that is pulled."""
    notes = []
    if layer.shared:
        notes.append("shared")
    if layer.resumed_bytes:
        all_of_it = layer.resumed_bytes == layer.total_bytes
        notes.append("was here" if all_of_it else f"resumed at {size(layer.resumed_bytes)}")
    if layer.unpacked_bytes:
        notes.append(f"{size(layer.unpacked_bytes)} unpacked")
    ended = layer.complete
    exists = layer.state == v1.LAYER_STATE_EXISTS
    return Part(
        name=layer.digest.partition(":")[2][:12],
        state=STATES.get(layer.state, "done" if ended else "downloading"),
        done=layer.total_bytes if ended else layer.received_bytes,
        total=layer.total_bytes,
        here=layer.total_bytes if exists else layer.resumed_bytes,
        note=", ".join(notes),
        ended=ended,
    )


def amounts(done: int, total: int) -> str:
    """So many bytes of so many, in the unit of all."""
    if not total:
        return size(done)
    number, unit = size(total).split()
    scale = {"GB": 10**9, "MB": 10**6, "kB": 10**3}.get(unit)
    return f"{done / scale:.1f}/{number} {unit}" if scale else f"{done}/{number} {unit}"

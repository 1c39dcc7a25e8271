"""What keeps containers in on this machine, and what is needed of it: found out by trying, in a process of its own.

    python -P -m tinyo_runtime.doctor [--ids ID,ID] [-- SETTINGS]

prints one object of JSON (tinyo.v1.Finding) a line. The runtime runs it for Diagnose, and `tinyo doctor` runs it when
no runtime does: it takes nothing but the instance's settings and what the kernel says. Each module of this package
looks at one subject; a check is a function that yields findings, and what it needs is imported when it is called, so
that one that is missing is told instead of ending the others.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tinyo.runtime.v1.record_pb2 import BootRecord
from tinyo.v1.diagnosis_pb2 import Finding, FindingState

if TYPE_CHECKING:
    from tinyo_runtime.settings import Settings


@dataclass(frozen=True)
class Machine:
    """Where to look."""

    settings: "Settings"
    #: Ids of containers that somebody else knows; None: nobody was asked.
    ids: frozenset[str] | None = field(default=None)

    @property
    def run(self) -> Path:
        """What is true for this boot only."""
        return Path(self.settings.run)

    @property
    def state(self) -> Path:
        """Where images and containers are, or would be."""
        folder = Path(self.settings.state)
        return next(place for place in (folder, *folder.parents) if place.exists())

    @property
    def connected(self) -> bool:
        """The network of this instance is up: a runtime runs, or containers go on without one."""
        return (self.run / "pool").exists()

    @cached_property
    def records(self) -> list[BootRecord]:
        """What the runtime wrote down of each container that it knows."""
        found = []
        for path in self.run.glob("containers/[!.]*"):
            record = BootRecord()
            record.ParseFromString(path.read_bytes())
            found.append(record)
        return found


#: Looks at one subject. A finding that has no name gets that of its check.
Check = Callable[[Machine], Iterator[Finding]]


def on(why: str = "", *, name: str = "") -> Finding:
    """It is there, and works."""
    return Finding(name=name, state=FindingState.FINDING_STATE_ON, why=why)


def off(why: str, remedy: str, *, name: str = "", optional: bool = False) -> Finding:
    """It is not there, and could be."""
    state = FindingState.FINDING_STATE_OFF
    return Finding(name=name, state=state, why=why, remedy=remedy, optional=optional)


def impossible(why: str, *, name: str = "") -> Finding:
    """This machine cannot have it, and TinyO does without."""
    state = FindingState.FINDING_STATE_IMPOSSIBLE
    return Finding(name=name, state=state, why=why, optional=True)

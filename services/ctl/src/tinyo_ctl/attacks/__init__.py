"""What `tinyo doctor --attack` tries: attacks on a machine from inside of containers that are made for it.

Each does no harm where it succeeds: it opens what it could write and writes nothing, and its bombs have an end. An
attack is a function of the ground that it is tried on; the modules of this package have those of one subject each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinyo_ctl.attacks.ground import Ground


class Result(Enum):
    """What came of an attack, in the words of the table."""

    HELD = "held"
    NOT_HELD = "NOT held"
    IMPOSSIBLE = "not possible here"


#: With why, where that is not plain.
Outcome = tuple[Result, str]


@dataclass(frozen=True)
class Attack:
    """One attack: what is tried, the hole that was open to it once, and how."""

    name: str
    cve: str
    run: "Callable[[Ground], Outcome]"


def held(why: str = "") -> Outcome:
    """It was kept off."""
    return Result.HELD, why


def broken(why: str) -> Outcome:
    """It succeeded."""
    return Result.NOT_HELD, why


def impossible(why: str) -> Outcome:
    """Nobody can say: what it needs is not here."""
    return Result.IMPOSSIBLE, why

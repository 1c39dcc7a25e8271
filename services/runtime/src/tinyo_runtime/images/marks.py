"""How much of a disk images may take: keys of /etc/INSTANCE/runtime.toml, and what they mean on a file system."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

COLLECTED = ("off", "unnamed", "unused")
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


@dataclass(frozen=True, kw_only=True)
class Marks:
    """A part of Settings."""

    #: A pull stops rather than leave less of the disk than this: "1GiB", which is never more than a twentieth of it,
    #: or "5%".
    disk_reserve: str = "1GiB"
    #: What goes by itself when more than `images_high` of 100 of the disk are in use, until `images_low` are:
    #: "unnamed" images and what is left of others, or also "unused" ones, or nothing ("off").
    images_collect: str = "unnamed"
    images_high: str = "85"
    images_low: str = "80"


class Limits(NamedTuple):
    """The same, understood."""

    #: Bytes, and percent: the one that is not 0 counts.
    reserve: int = 0
    reserve_percent: float = 0
    collect: str = "off"
    #: Of 100.
    high: float = 100
    low: float = 100

    def lacking(self, level: "Level", more: int) -> int:
        """How many bytes are missing for so many more; 1 when it is inodes that are missing, 0 when nothing is."""
        if (
            level.all_inodes
            and (self.reserve or self.reserve_percent)
            and level.inodes * 100 > level.all_inodes * 99
        ):
            return 1
        reserve = min(self.reserve, level.total // 20) or int(level.total * self.reserve_percent / 100)
        return max(0, more + reserve - (level.total - level.used)) if reserve else 0


class Level(NamedTuple):
    """How full a file system is, as df(1) says it."""

    #: Bytes that are in use, and with them those that may be.
    used: int
    total: int
    #: Inodes; 0 of 0 where there is no limit.
    inodes: int
    all_inodes: int

    @classmethod
    def of(cls, folder: Path) -> "Level":
        """Of the file system of a folder."""
        found = os.statvfs(folder)
        used, inodes = (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_files - found.f_ffree
        free = found.f_bavail * found.f_frsize
        return cls(used, used + free, inodes, inodes + found.f_favail if found.f_files else 0)

    @property
    def percent(self) -> float:
        """Of bytes or of inodes, whichever is more."""
        return max(100 * self.used / max(1, self.total), 100 * self.inodes / max(1, self.all_inodes))


def understood(settings: Marks) -> Limits:
    """SystemExit with one sentence when any of it is wrong."""
    if settings.images_collect not in COLLECTED:
        raise SystemExit(f"images_collect {settings.images_collect!r}: write one of {', '.join(COLLECTED)}")
    high, low = (_percent(key, getattr(settings, key)) for key in ("images_high", "images_low"))
    if low > high:
        raise SystemExit(
            f"images_low {low:g} is more than images_high {high:g}: write it the other way round"
        )
    text = settings.disk_reserve.strip()
    if text.endswith("%"):
        return Limits(0, _percent("disk_reserve", text), settings.images_collect, high, low)
    if not (found := re.fullmatch(r"(\d+) ?([KMGT]?|[KMGT]i)B?", text)):
        raise SystemExit(f'disk_reserve {text!r}: write a size like "1GiB", or "5%" of the disk')
    return Limits(int(found[1]) * (_UNITS | _BINARY)[found[2]], 0, settings.images_collect, high, low)


def _percent(key: str, text: str) -> float:
    try:
        number = float(text.rstrip("% "))
    except ValueError:
        number = -1
    if not 0 <= number <= 100:
        raise SystemExit(f"{key} {text!r}: write a number from 0 to 100")
    return number

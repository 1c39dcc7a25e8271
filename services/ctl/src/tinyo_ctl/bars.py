"""What bars look like: as much of what is on its way as the terminal has room for."""

import os
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tinyo_ctl.progress import Item, amounts
from tinyo_ctl.tell import safe

#: Columns of a bar at most, and at least; and those that what stands beside it must have.
WIDEST, LEAST, BESIDE = 40, 8, 64

#: Of what is missing, of what is there, and of all that is there.
MISSING, THERE, ALL = "bright_black", "cyan", "green"


class Row(NamedTuple):
    """One line: a name, a bar with the amount that it stands for, and text."""

    name: str
    done: int
    total: int
    text: str


class Group(NamedTuple):
    """A heading, "" for none, and the lines below it."""

    heading: str
    rows: list[Row]


class Bars:
    """Draws lines."""

    def __init__(self) -> None:
        colours = None if os.environ.get("NO_COLOR") else "auto"
        self._console = Console(force_terminal=True, color_system=colours)  # type: ignore[arg-type]

    def lines(self, items: Sequence[Item], columns: int, most: int) -> list[str]:
        """At most so many lines of at most so many columns: about every layer if half the room is enough, else about
        those to which something happens, else about images alone."""
        groups: list[Group] = []
        for choose, room in ((every, most // 2), (active, most), (images, most)):
            groups = choose(items)
            if sum(bool(heading) + len(rows) for heading, rows in groups) <= room:
                break
        else:
            groups = [shortened(groups[0], most)]
        with self._console.capture() as captured:
            for heading, rows in groups:
                if heading:
                    self._console.print(Text(safe(heading), no_wrap=True, overflow="ellipsis"), width=columns)
                self._console.print(grid(rows, columns, indent=2 if heading else 0), width=columns)
        return captured.get().removesuffix("\n").split("\n")


def every(items: Sequence[Item]) -> list[Group]:
    """All that is known; of what has one part only, that is said of the whole."""
    return [
        Group(item.title, [whole("total", item), *(layers(item, all=True) if len(item.parts) > 1 else [])])
        for item in items
    ]


def active(items: Sequence[Item]) -> list[Group]:
    """Layers to which something happens, and how many others there are."""
    return [
        Group(item.title, [whole("total", item), *layers(item, all=False), *others(item)]) for item in items
    ]


def images(items: Sequence[Item]) -> list[Group]:
    """One line for each image."""
    return [Group("", [whole(item.title, item) for item in items])]


def whole(name: str, item: Item) -> Row:
    """All of it."""
    done, total = item.done, item.total
    share = f"{done * 100 // total} %  " if total else ""
    return Row(name, done, total, share + item.outlook())


def layers(item: Item, *, all: bool) -> list[Row]:
    """All layers, or those to which something happens."""
    return [
        Row(part.name, part.done, part.total, ", ".join(filter(None, [part.state, part.note])))
        for part in item.parts
        if all or part.active
    ]


def others(item: Item) -> list[Row]:
    """How many layers there are to which nothing happens, if any."""
    states = Counter(part.state for part in item.parts if not part.active)
    text = ", ".join(f"{count} {state}" for state, count in states.items())
    return [Row("others", 0, 0, text)] if text else []


def shortened(group: Group, most: int) -> Group:
    """As many lines as there is room for, and how many are left out."""
    left_out = len(group.rows) - (most - 1)
    return Group(group.heading, [*group.rows[: most - 1], Row(f"… and {left_out} more", 0, 0, "")])


def grid(rows: Sequence[Row], columns: int, indent: int) -> Table:
    """Lines in columns; the bars go first where there is no room."""
    longest = max(len(row.name) for row in rows)
    width = min(WIDEST, columns - BESIDE - max(0, longest - 12))
    gap = 2 if columns >= BESIDE else 1
    table = Table.grid(padding=(0, gap, 0, 0))
    table.add_column(no_wrap=True, overflow="ellipsis", min_width=14 if indent and width >= LEAST else None)
    if width >= LEAST:
        table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column()  # the one that gives way
    for row in rows:
        amount = amounts(row.done, row.total) if row.total else ""
        bar: ProgressBar | str = ""
        if row.total:
            bar = ProgressBar(
                row.total, row.done, width, style=MISSING, complete_style=THERE, finished_style=ALL
            )
        name = Text(" " * indent + safe(row.name))
        cells = [name, *([bar] if width >= LEAST else []), amount]
        table.add_row(*cells, Text(safe(row.text), no_wrap=True, overflow="ellipsis"))
    return table

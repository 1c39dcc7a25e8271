"""Contenders take turns at the same work, and their times stand in one table and in bench/results.

Machines differ and are noisy: what means something is the ratio of two medians of one run.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass
class Contender:
    """Somebody who does the work of a row: `work` is measured, `undo` is not."""

    name: str
    work: Callable[[], object]
    undo: Callable[[], object] = lambda: None
    #: What must be so before each run, and is not measured.
    prepare: Callable[[], object] = lambda: None
    seconds: list[float] = field(default_factory=list)

    def measure(self) -> None:
        self.prepare()
        start = time.perf_counter()
        self.work()
        self.seconds.append(time.perf_counter() - start)
        self.undo()


class Table:
    """The rows of one benchmark, printed as they come; `keep` writes them down."""

    def __init__(self, name: str, versions: str, *, runs: int, warm_up: int) -> None:
        self._name, self._versions = name, versions
        #: Measurements of each contender, after so many that do not count.
        self._runs, self._warm_up = runs, warm_up
        self._rows: dict[str, dict[str, dict[str, float]]] = {}
        self._figures: dict[str, dict[str, float | str]] = {}
        print(f"{versions}; {runs} runs each, taking turns\n")
        print(f"{'':34}{'median':>10}{'10 % .. 90 %':>22}   TinyO's median is")

    def compare(self, title: str, ours: Contender, *others: Contender) -> None:
        """Everybody in turns, the first one changing; then their lines."""
        contenders = [ours, *others]
        for number in range(self._warm_up + self._runs):
            first = number % len(contenders)
            for contender in contenders[first:] + contenders[:first]:
                contender.measure()
        print(title)
        row = self._rows[title] = {one.name: _figures(one.seconds[self._warm_up :]) for one in contenders}
        for name, figures in row.items():
            spread = f"{_milliseconds(figures['low'])} .. {_milliseconds(figures['high'])}"
            line = f"  {name:32}{_milliseconds(figures['median']):>10}{spread:>22}"
            if name != ours.name:
                line += f"   {row[ours.name]['median'] / figures['median']:.2f} x of it"
            print(line)
        sys.stdout.flush()

    def figure(self, title: str, value: float, unit: str, note: str = "") -> None:
        """What has no contender."""
        self._figures[title] = {"value": round(value, 3), "unit": unit, "note": note}
        print(f"{title:48}{f'{value:.1f} {unit}':>16}   {note}")
        sys.stdout.flush()

    def keep(self) -> None:
        """Writes bench/results/NAME.json: seconds by row and contender."""
        RESULTS.mkdir(exist_ok=True)
        content = {
            "versions": self._versions,
            "runs": self._runs,
            "rows": self._rows,
            "figures": self._figures,
        }
        (RESULTS / f"{self._name}.json").write_text(json.dumps(content, indent=1) + "\n")


def _figures(seconds: list[float]) -> dict[str, float]:
    tenths = statistics.quantiles(seconds, n=10)
    figures = {"median": statistics.median(seconds), "low": tenths[0], "high": tenths[-1]}
    return {name: round(value, 6) for name, value in figures.items()}


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def run(*command: str) -> None:
    """In silence; SystemExit with what it said when it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")

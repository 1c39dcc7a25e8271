"""How far a pull has come: a bar at the foot of a terminal, nothing elsewhere."""

import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tinyo.v1.image_pb2 import PullProgress

from tinyo_ctl.tell import safe

if TYPE_CHECKING:
    from rich import progress


class Progress:
    """Shows progress from the first that is reported until it is closed."""

    def __init__(self) -> None:
        self.bars: progress.Progress | None = None
        self.tasks: dict[str, progress.TaskID] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def show(self, pulled: PullProgress) -> None:
        """Brings the bar of an image to where it is."""
        if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
            return
        # Its import takes longer than most pulls need to begin: only when there is something to show.
        from rich import progress

        if self.bars is None:
            self.bars = progress.Progress(
                progress.TextColumn("  {task.description}", markup=False),
                progress.BarColumn(30),
                progress.DownloadColumn(),
                transient=True,
            )
            self.bars.start()
        layers = [layer for layer in pulled.layers if not layer.shared]
        task = self.tasks.get(pulled.reference)
        if task is None:
            task = self.tasks[pulled.reference] = self.bars.add_task(safe(pulled.reference))
        self.bars.update(
            task,
            total=sum(layer.total_bytes for layer in layers),
            completed=sum(layer.received_bytes for layer in layers),
        )

    def close(self) -> None:
        """Takes the bars away."""
        if self.bars:
            self.bars.stop()
            self.bars, self.tasks = None, {}

"""Where a container's folder goes that is to be deleted: gone in one step, whenever the deleting ends."""

import logging
import shutil
from concurrent.futures import Future
from pathlib import Path

log = logging.getLogger(__name__)


def moved(folder: Path) -> Path:
    """Where a folder is from now on, to be deleted there. One that is gone is no error."""
    trash = folder.parent.parent / "trash"
    doomed = trash / folder.name
    trash.mkdir(exist_ok=True)
    if folder.exists():
        folder.rename(doomed)
    doomed.mkdir(exist_ok=True)  # somebody else deleted it
    return doomed


def watch(deleting: "Future[None]") -> None:
    """Nobody waits for it; that it failed is said, and the next runtime tries again."""
    deleting.add_done_callback(
        lambda done: log.warning("not all was deleted: %s", done.exception()) if done.exception() else None
    )


def empty(state: Path) -> None:
    """Deletes what an earlier runtime began to delete."""
    shutil.rmtree(state / "trash", ignore_errors=True)

"""Where a container's folder goes that is to be deleted: gone in one step, whenever the deleting ends."""

import shutil
from pathlib import Path


def moved(folder: Path) -> Path:
    """Where a folder is from now on, to be deleted there. One that is gone is no error."""
    trash = folder.parent.parent / "trash"
    doomed = trash / folder.name
    trash.mkdir(exist_ok=True)
    if folder.exists():
        folder.rename(doomed)
    doomed.mkdir(exist_ok=True)  # somebody else deleted it
    return doomed


def empty(state: Path) -> None:
    """Deletes what an earlier runtime began to delete."""
    shutil.rmtree(state / "trash", ignore_errors=True)

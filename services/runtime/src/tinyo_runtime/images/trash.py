"""Deletes in the background what is no longer needed: folders are gone at once, their files a little later."""

import logging
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

log = logging.getLogger(__name__)


class Trash:
    """Below one folder, which is emptied at the start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sweeper = ThreadPoolExecutor(1, "sweeper")
        try:
            self.discard(*folder.iterdir())
        except OSError:
            log.exception("cannot empty %s; the next start tries again", folder)

    def close(self) -> None:
        """Waits until everything is gone."""
        self._sweeper.shutdown()

    def emptied(self) -> None:
        """Waits until what was discarded so far is gone."""
        self._sweeper.submit(int).result()

    def discard(self, *paths: Path) -> None:
        """Takes files and folders of the same file system away from where they are; a full disk does not hinder it."""
        for path in paths:
            doomed = self._folder / f"trash-{secrets.token_hex(8)}"
            path.rename(doomed)
            self._sweeper.submit(_delete, doomed)


def _delete(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError:
        log.exception("cannot delete %s; the next start tries again", path)

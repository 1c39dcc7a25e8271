"""The node's table in one SQLite file: keys and values, written durably (write-ahead log, synchronous=FULL).

Whatever waits while a transaction is under way shares the next one, and so its fsync (group commit). Readers
have a connection of their own and see what is committed. The revisioned store that grows out of this table
is in tinyo_node.history.
"""

import asyncio
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from tinyo_node import errors, history

SCHEMA = """PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB, revision INTEGER) WITHOUT ROWID;"""

#: Keys with their new values; None deletes.
Changes = Iterable[tuple[str, bytes | None]]


class Table:
    """Bytes by keys that are paths, such as `clusters/default/containers/web`. For one event loop."""

    def __init__(self, path: Path) -> None:
        self.reader, self.writer = (sqlite3.connect(path, check_same_thread=False) for _ in range(2))
        self.writer.executescript(SCHEMA)
        history.keep(self.writer)
        self.path = path
        self._waiting: dict[str, bytes | None] = {}
        self._next: asyncio.Task[None] | None = None
        self.turn = asyncio.Lock()

    def read(self, pattern: str) -> list[bytes]:
        """The values of the keys that match a pattern in which `*` stands for anything."""
        rows = self.reader.execute("SELECT value FROM entries WHERE key GLOB ?", (pattern,))
        return [value for (value,) in rows]

    async def write(self, changes: Changes) -> None:
        """All of it, durably, or nothing. Raises OSError when the disk is full or broken."""
        if self._next is None:
            self._next = asyncio.create_task(self._commit())
        self._waiting |= changes
        await asyncio.shield(self._next)

    async def _commit(self) -> None:
        async with self.turn:
            changes, self._waiting, self._next = self._waiting, {}, None
            await asyncio.to_thread(self._replace, changes.items())

    def _replace(self, changes: Changes) -> None:
        """One transaction of SQLite."""
        with errors.of_store(), self.writer:
            for key, value in changes:
                self.replace_one(key, value)

    def replace_one(self, key: str, value: bytes | None) -> None:
        """Within a transaction."""
        if value is None:
            self.writer.execute("DELETE FROM entries WHERE key = ?", (key,))
        else:
            self.writer.execute("REPLACE INTO entries (key, value) VALUES (?, ?)", (key, value))

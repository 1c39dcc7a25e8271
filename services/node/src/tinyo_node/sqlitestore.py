"""The Store in one SQLite file: the node's table with its history, and conditions, leases and watchers.

A lease is a row in `leases` beside its entry: when its time is over the entry is deleted like any other.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tinyo_node import errors, history
from tinyo_node.sqlite import Changes, Table
from tinyo_node.store import Compacted, Conflict, Delete, Entry, Op, Put

SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (key TEXT PRIMARY KEY, expires REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS boot (id TEXT);
"""


def now() -> float:
    """Seconds since the boot, suspended or not: no clock that somebody sets (leases survive its jumps)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SqliteStore(Table):
    """See tinyo_node.store.Store."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._changed = asyncio.Event()
        self._expiry: asyncio.TimerHandle | None = None
        self.writer.executescript(SCHEMA)
        self._forget_other_boots()
        self._expire_soon()

    def _forget_other_boots(self) -> None:
        """Leases are counted from the boot; those of another one are over."""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        if self.writer.execute("SELECT id FROM boot").fetchone() != (boot,):
            with self.writer:
                self.writer.execute("UPDATE leases SET expires = 0")
                self.writer.execute("DELETE FROM boot")
                self.writer.execute("INSERT INTO boot VALUES (?)", (boot,))

    async def get(self, key: str) -> Entry | None:
        query = """SELECT value, revision FROM entries LEFT JOIN leases USING (key)
                   WHERE key = ? AND (leases.expires IS NULL OR leases.expires > ?)"""
        row = self.reader.execute(query, (key, now())).fetchone()
        return Entry(key, *row) if row else None

    async def list(self, prefix: str, *, after: str = "", limit: int = -1) -> Sequence[Entry]:
        query = """SELECT key, value, revision FROM entries LEFT JOIN leases USING (key)
                   WHERE key >= ? AND key < ? AND key > ? AND (leases.expires IS NULL OR leases.expires > ?)
                   ORDER BY key LIMIT ?"""
        rows = self.reader.execute(query, (prefix, prefix + "\U0010ffff", after, now(), limit))
        return [Entry(*row) for row in rows]

    async def revision(self) -> int:
        return history.newest(self.reader)

    async def transact(self, ops: Sequence[Op]) -> int:
        return await asyncio.shield(self._transact(ops))

    async def write(self, changes: Changes) -> None:
        await super().write(changes)
        self._tell()

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[Entry]:
        query = "SELECT key, value, revision FROM changes WHERE revision > ? ORDER BY revision LIMIT 256"
        while True:
            changed = self._changed
            (oldest,) = self.reader.execute("SELECT min(revision) FROM changes").fetchone()
            newest = history.newest(self.reader)
            if from_revision > newest or from_revision < (oldest or newest + 1) - 1:
                raise Compacted(f"revision {from_revision}: known are {oldest} to {newest}")
            rows = self.reader.execute(query, (from_revision,)).fetchall()
            for key, value, revision in rows:
                from_revision = revision
                if key.startswith(prefix):
                    yield Entry(key, value, revision)
            if not rows:
                await changed.wait()

    async def close(self) -> None:
        if self._expiry:
            self._expiry.cancel()
        await history.close(self)

    async def _transact(self, ops: Sequence[Op]) -> int:
        async with self.turn:
            revision = await asyncio.to_thread(self._do, ops)
        self._tell()
        if any(isinstance(op, Put) and op.ttl is not None for op in ops):
            self._expire_soon()
        return revision

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _do(self, ops: Sequence[Op]) -> int:
        """One transaction of SQLite, undone when a condition does not hold."""
        with errors.of_store(), self.writer:
            self.writer.execute("BEGIN IMMEDIATE")
            for op in ops:
                self._check(op)
                self.replace_one(op.key, op.value if isinstance(op, Put) else None)
                self.writer.execute("DELETE FROM leases WHERE key = ?", (op.key,))
                if isinstance(op, Put) and op.ttl is not None:
                    self.writer.execute("INSERT INTO leases VALUES (?, ?)", (op.key, now() + op.ttl))
            return history.newest(self.writer)

    def _check(self, op: Op) -> None:
        if op.if_revision is not None:
            row = self.writer.execute("SELECT revision FROM entries WHERE key = ?", (op.key,)).fetchone()
            found = row[0] if row else 0
            if op.if_revision != found:
                raise Conflict(f"{op.key} has revision {found}, not {op.if_revision}")

    def _expire_soon(self) -> None:
        """Leases end by a deletion like any other, so that watchers see it."""
        (first,) = self.reader.execute("SELECT min(expires) FROM leases").fetchone()
        if self._expiry:
            self._expiry.cancel()
        if first is not None:
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(max(0.0, first - now()), self._expire)

    def _expire(self) -> None:
        query = "SELECT key, entries.revision FROM entries JOIN leases USING (key) WHERE leases.expires <= ?"
        rows = self.reader.execute(query, (now(),)).fetchall()
        if not rows:
            return self._expire_soon()
        ends = [self.transact([Delete(key=key, if_revision=revision)]) for key, revision in rows]
        ending = asyncio.gather(*ends, return_exceptions=True)  # unless somebody renewed it meanwhile
        ending.add_done_callback(lambda _: self._expire_soon())
        return None

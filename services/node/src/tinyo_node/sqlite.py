"""The Store in one SQLite file: write-ahead log, synchronous=FULL, one writer thread.

The writer takes everything that waits at that moment into one transaction of SQLite, so that many callers
share one fsync (group commit). Readers have a connection of their own and see what is committed.
"""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tinyo_node.store import Compacted, Conflict, Delete, Entry, Op, Put

#: Changes that watchers can go back.
CHANGES_KEPT = 10_000

SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB, revision INTEGER, expires REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (revision INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT, value BLOB);
CREATE TABLE IF NOT EXISTS boot (id TEXT);
"""

Job = tuple[Sequence[Op], "asyncio.Future[int]"]


def now() -> float:
    """Seconds since the boot, suspended or not: no clock that somebody sets (leases survive its jumps)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SqliteStore:
    """See tinyo_node.store.Store."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = self._connect(path)
        self._forget_other_boots()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._changed = asyncio.Event()
        self._expiry: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._write, args=(path,), name="store")
        self._thread.start()
        self._expire_soon()

    def _connect(self, path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.executescript(SCHEMA)
        return connection

    def _forget_other_boots(self) -> None:
        """Leases are counted from the boot; those of another one are over."""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        if self._reader.execute("SELECT id FROM boot").fetchone() != (boot,):
            self._reader.executescript(
                "UPDATE entries SET expires = 0 WHERE expires IS NOT NULL; DELETE FROM boot"
            )
            self._reader.execute("INSERT INTO boot VALUES (?)", (boot,))

    async def get(self, key: str) -> Entry | None:
        query = "SELECT value, revision FROM entries WHERE key = ? AND (expires IS NULL OR expires > ?)"
        row = self._reader.execute(query, (key, now())).fetchone()
        return Entry(key, *row) if row else None

    async def list(self, prefix: str, *, after: str = "", limit: int = -1) -> Sequence[Entry]:
        query = """SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? AND key > ?
                   AND (expires IS NULL OR expires > ?) ORDER BY key LIMIT ?"""
        end = prefix + "\U0010ffff"
        rows = self._reader.execute(query, (prefix, end, after, now(), limit))
        return [Entry(*row) for row in rows]

    async def revision(self) -> int:
        (number,) = self._reader.execute("SELECT max(seq) FROM sqlite_sequence").fetchone()
        return number or 0

    async def transact(self, ops: Sequence[Op]) -> int:
        done: asyncio.Future[int] = self._loop.create_future()
        self._jobs.put((ops, done))
        return await asyncio.shield(done)

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[Entry]:
        query = "SELECT key, value, revision FROM changes WHERE revision > ? ORDER BY revision LIMIT 256"
        while True:
            changed = self._changed
            (oldest,) = self._reader.execute("SELECT min(revision) FROM changes").fetchone()
            newest = await self.revision()
            if from_revision > newest or from_revision < (oldest or newest + 1) - 1:
                raise Compacted(f"revision {from_revision}: known are {oldest} to {newest}")
            rows = self._reader.execute(query, (from_revision,)).fetchall()
            for key, value, revision in rows:
                from_revision = revision
                if key.startswith(prefix):
                    yield Entry(key, value, revision)
            if not rows:
                await changed.wait()

    async def close(self) -> None:
        if self._expiry:
            self._expiry.cancel()
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)
        self._reader.close()

    def _write(self, path: Path) -> None:
        """The writer thread: batch after batch until it is told to end."""
        connection = self._connect(path)
        ended = False
        while not ended:
            jobs = [self._jobs.get()]
            while not self._jobs.empty():
                jobs.append(self._jobs.get())
            ended = None in jobs
            self._commit(connection, [job for job in jobs if job])
        connection.close()

    def _commit(self, connection: sqlite3.Connection, jobs: Sequence[Job]) -> None:
        """One transaction of SQLite for all; a job that fails is undone alone."""
        results: list[int | Exception] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for ops, _ in jobs:
                connection.execute("SAVEPOINT job")
                try:
                    for op in ops:
                        revision = self._apply(connection, op)
                    results.append(revision)
                except Conflict as error:
                    connection.execute("ROLLBACK TO job")
                    results.append(error)
                connection.execute("RELEASE job")
            connection.execute(
                "DELETE FROM changes WHERE revision <= (SELECT max(revision) - ? FROM changes)",
                (CHANGES_KEPT,),
            )
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            results = [OSError(28 if "full" in str(error) else 5, f"the store cannot write: {error}")] * len(
                jobs
            )
        self._loop.call_soon_threadsafe(self._finish, jobs, results)

    def _apply(self, connection: sqlite3.Connection, op: Op) -> int:
        row = connection.execute("SELECT revision FROM entries WHERE key = ?", (op.key,)).fetchone()
        if op.if_revision is not None and op.if_revision != (row[0] if row else 0):
            raise Conflict(f"{op.key} has revision {row[0] if row else 0}, not {op.if_revision}")
        value = op.value if isinstance(op, Put) else None
        if value is None and not row:
            return connection.execute("SELECT max(seq) FROM sqlite_sequence").fetchone()[0] or 0
        revision = connection.execute(
            "INSERT INTO changes (key, value) VALUES (?, ?)", (op.key, value)
        ).lastrowid
        assert revision
        if isinstance(op, Put):
            expires = now() + op.ttl if op.ttl is not None else None
            connection.execute("REPLACE INTO entries VALUES (?, ?, ?, ?)", (op.key, value, revision, expires))
        else:
            connection.execute("DELETE FROM entries WHERE key = ?", (op.key,))
        return revision

    def _finish(self, jobs: Sequence[Job], results: Sequence[int | Exception]) -> None:
        for (ops, done), result in zip(jobs, results, strict=True):
            if isinstance(result, Exception):
                done.set_exception(result)
            else:
                done.set_result(result)
            if any(isinstance(op, Put) and op.ttl is not None for op in ops):
                self._expire_soon()
        self._changed.set()
        self._changed = asyncio.Event()

    def _expire_soon(self) -> None:
        """Leases end by a deletion like any other, so that watchers see it."""
        (first,) = self._reader.execute("SELECT min(expires) FROM entries").fetchone()
        if self._expiry:
            self._expiry.cancel()
        if first is not None:
            self._expiry = self._loop.call_later(max(0.0, first - now()), self._expire)

    def _expire(self) -> None:
        rows = self._reader.execute(
            "SELECT key, revision FROM entries WHERE expires <= ?", (now(),)
        ).fetchall()
        for key, revision in rows:  # unless somebody renewed it meanwhile
            done: asyncio.Future[int] = self._loop.create_future()
            done.add_done_callback(lambda done: done.exception())
            self._jobs.put(([Delete(key=key, if_revision=revision)], done))
        if not rows:
            self._expire_soon()
        elif self._expiry:
            self._expiry = self._loop.call_later(0.05, self._expire_soon)

"""The node's event log, in the Store: numbered from 1, no gaps, never back; shown only when durable."""

import asyncio
from collections.abc import AsyncGenerator

import grpc
from tinyo.v1.event_pb2 import Event

from tinyo_node.errors import TinyoError
from tinyo_node.store import Delete, Op, Put, Store

PREFIX = "events/"
BATCH = 256


def key(sequence: int) -> str:
    """Keys sort as numbers do."""
    return f"{PREFIX}{sequence:020}"


class EventLog:
    """Gives events their numbers, and shows them to watchers once they are written."""

    def __init__(self, store: Store, node_id: str, kept: int) -> None:
        self._store = store
        self._node_id = node_id
        self._kept = kept
        #: Number of the last event that is durable.
        self.newest = 0
        self._numbered = 0
        self._written = asyncio.Event()

    async def open(self) -> None:
        """Goes on after the last event of the log."""
        entries = await self._store.list(PREFIX)
        if entries:
            self.newest = self._numbered = int(entries[-1].key.removeprefix(PREFIX))

    def write(self, event: Event) -> list[Op]:
        """Numbers an event; the operations that write it. They must be queued in the order of the numbers."""
        self._numbered += 1
        event.node_id, event.sequence = self._node_id, self._numbered
        event.time.GetCurrentTime()
        ops: list[Op] = [Put(key=key(event.sequence), value=event.SerializeToString())]
        if event.sequence > self._kept:
            ops.append(Delete(key=key(event.sequence - self._kept)))
        return ops

    def written(self, sequence: int) -> None:
        """Everything up to this number is durable: watchers may see it."""
        self.newest = max(self.newest, sequence)
        self._written.set()
        self._written = asyncio.Event()

    async def watch(self, after: int, *, follow: bool) -> AsyncGenerator[Event, None]:
        """Events after a number; 0 means the oldest that is kept. EVENTS_GONE when some are missing."""
        oldest = max(1, self.newest - self._kept + 1)
        if after and not oldest - 1 <= after <= self.newest:
            raise gone(after, oldest, self.newest)
        while True:
            written = self._written
            for entry in await self._store.list(PREFIX, after=key(after), limit=BATCH):
                event = Event.FromString(entry.value or b"")
                if event.sequence > self.newest:
                    break
                if after and event.sequence != after + 1:  # a reader so slow that the log went by
                    raise gone(after, event.sequence, self.newest)
                after = event.sequence
                yield event
            if after < self.newest:
                continue
            if not follow:
                return
            await written.wait()


def gone(after: int, oldest: int, newest: int) -> TinyoError:
    """What was asked for is no longer, or not yet, in the log."""
    message = f"events after {after} cannot be had: kept are {oldest} to {newest}; list, then watch"
    return TinyoError(grpc.StatusCode.OUT_OF_RANGE, "EVENTS_GONE", message, {"oldest": str(oldest)})

"""Where everything durable of the node lives: a revisioned key-value store behind one interface.

A key is a path (`clusters/default/containers/web`), a value is bytes (a serialised message). Every change
of a key has a revision: a number that grows by one with each change in the whole store. What is written in
one `transact` becomes visible together or not at all, and is on the disk when it returns. Conditions make
writers safe against each other: `if_revision=0` means "only if it is not there", another number "only if
nobody changed it since". A key with a time to live vanishes unless it is put again: that is a lease.

Readers follow by `watch`: first what changed since a revision, then what changes. An implementation may
forget old changes, and says so by `Compacted`; the reader then lists, and watches from there.

tests/contract/test_store.py is the suite that every implementation passes.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Entry:
    """A key with its value, and the revision of its last change. Value None: it was deleted."""

    key: str
    value: bytes | None
    revision: int


@dataclass(frozen=True, kw_only=True)
class Put:
    """Writes a key; with `ttl` (seconds) it vanishes after that unless it is put again."""

    key: str
    value: bytes
    if_revision: int | None = None
    ttl: float | None = None


@dataclass(frozen=True, kw_only=True)
class Delete:
    """Deletes a key; one that is not there is no error."""

    key: str
    if_revision: int | None = None


Op = Put | Delete


class Conflict(Exception):
    """A condition did not hold; nothing of the transaction was written."""


class Compacted(Exception):
    """The changes since that revision are no longer known: list, then watch from the newest revision."""


class Store(Protocol):
    """See the module. All methods are for one event loop."""

    async def get(self, key: str) -> Entry | None:
        """The key's present value."""

    async def list(self, prefix: str, *, after: str = "", limit: int = -1) -> Sequence[Entry]:
        """Keys that begin with `prefix` and come after the key `after`, in order; at most `limit`."""

    async def transact(self, ops: Sequence[Op]) -> int:
        """Does all of it, durably, and returns the store's revision. Raises Conflict, or OSError when the
        disk is full or broken; nothing is changed then."""

    def watch(self, prefix: str, from_revision: int) -> AsyncIterator[Entry]:
        """Changes with a revision above `from_revision`, in order, without end. Raises Compacted."""

    async def revision(self) -> int:
        """The revision of the latest change; 0 in an empty store."""

    async def close(self) -> None:
        """Finishes what was begun."""

"""Leases: what somebody works with stays until they are done, whatever is cleared away meanwhile.

    with images.lease(digest): ...                         a manifest that is here, and all that it needs
    with images.lease() as lease: lease.add(digest)        blobs and diff IDs, as they become known

They last as long as the work does: one that ends with the service needs nothing any more. What containers need
is known from the containers themselves (prune.InUse).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from tinyo_runtime.images import catalog

if TYPE_CHECKING:
    from tinyo_runtime.images.shelf import Shelf
    from tinyo_runtime.images.store import Images as Base
else:
    Base = object


class Lease:
    """What one piece of work relies on."""

    def __init__(self, wanted: list[str] | None = None) -> None:
        self._wanted = [] if wanted is None else wanted
        self._names: list[str] = []

    def add(self, *names: str) -> None:
        """Digests of blobs, and diff IDs of layers: they stay too."""
        self._names += names
        self._wanted += names

    def end(self) -> None:
        """From now on they may go, unless another lease has them."""
        for name in self._names:
            self._wanted.remove(name)
        self._names = []


class Leases(Base):
    """Gives leases."""

    def __init__(self) -> None:
        super().__init__()
        #: Digests and diff IDs of all leases, as often as they were asked for.
        self.wanted: list[str] = []

    @contextmanager
    def lease(self, *digests: str) -> Iterator[Lease]:
        """Meanwhile nothing is cleared away of these images, by manifest or index, nor of what is added."""
        lease = Lease(self.wanted)
        for digest in digests:
            needed = catalog.needs(cast("Shelf", self), digest)
            lease.add(*needed.blobs, *needed.layers)
        try:
            yield lease
        finally:
            lease.end()

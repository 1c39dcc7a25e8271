"""How an image is wanted, and what is known of it so far: for those who watch over the steps of a pull."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tinyo.v1.image_pb2 import LayerProgress, PullProgress

from tinyo_runtime.images.leases import Lease

#: Who hears of progress, if anybody does.
Listener: TypeAlias = Callable[[PullProgress], None] | None


@dataclass
class Order:
    """One pull."""

    #: Whether the registry is asked although the image is here.
    refresh: bool = False
    progress: Listener = None
    #: Of its layers, in the order of the manifest.
    layers: list[LayerProgress] = field(default_factory=list)
    #: When its progress was told last, by the monotonic clock.
    reported: float = 0.0
    #: Of the layers that it relies on.
    lease: Lease = field(default_factory=Lease)
    #: What was asked for; set when the pull begins.
    platform: dict[str, str] = field(default_factory=dict)
    #: Digest of the manifest or index that is here under the name, and need not be asked for.
    known: str = ""
    #: Whether a manifest was chosen from an index.
    chosen: bool = False
    #: The manifest, when it is known.
    manifest: dict[str, Any] = field(default_factory=dict)


_current: ContextVar[Order] = ContextVar("order")


def current() -> Order:
    """The pull that the running task works on."""
    return _current.get()


@contextmanager
def given(refresh: bool, progress: Listener) -> Iterator[None]:
    """Whoever pulls meanwhile pulls so."""
    with entered(Order(refresh, progress)):
        yield


@contextmanager
def entered(order: Order) -> Iterator[None]:
    """The running task works on this pull meanwhile."""
    token = _current.set(order)
    try:
        yield
    finally:
        _current.reset(token)

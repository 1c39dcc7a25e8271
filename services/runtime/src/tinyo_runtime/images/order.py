"""How an image is wanted, and what is known of it so far: for those who watch over the steps of a pull."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from tinyo.v1.image_pb2 import PullProgress

from tinyo_runtime.images.leases import Lease
from tinyo_runtime.images.progress import Layers

if TYPE_CHECKING:
    from tinyo_runtime.images.offers import Offer

#: Who hears of progress, if anybody does.
Listener: TypeAlias = Callable[[PullProgress], None] | None


@dataclass
class Order:
    """One pull."""

    #: Whether the registry is asked although the image is here.
    refresh: bool = False
    progress: Listener = None
    #: What an archive offers, when the image comes from there.
    offer: "Offer | None" = None
    #: Of its layers, in the order of the manifest.
    layers: Layers = field(default_factory=Layers)
    #: Of the layers that it relies on.
    lease: Lease = field(default_factory=Lease)
    #: What was asked for; set when the pull begins.
    platform: dict[str, str] = field(default_factory=dict)
    #: Digest of the manifest or index that is here under the name, and need not be asked for.
    known: str = ""
    #: Whether a manifest was chosen from an index.
    chosen: bool = False
    #: The platform that the index says of it, if it says any.
    offered: dict[str, str] = field(default_factory=dict)
    #: Digest of what the registry has under the name, manifest or index.
    resolved: str = ""
    #: The manifest, when it is known.
    manifest: dict[str, Any] = field(default_factory=dict)


_current: ContextVar[Order] = ContextVar("order")


def current() -> Order:
    """The pull that the running task works on."""
    return _current.get()


def resolved() -> str:
    """Digest of what the registry has under the name; nothing outside of a pull."""
    pull = _current.get(None)
    return pull.resolved if pull else ""


def variant() -> dict[str, str]:
    """The variant of the platform that the index says of what is pulled, if it says one."""
    pull = _current.get(None)
    found = pull.offered.get("variant") if pull else ""
    return {"variant": found} if found else {}


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

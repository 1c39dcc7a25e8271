"""Containers that are taken away once they have ended (`tinyo run --rm`).

Whoever runs one takes it away, after its last output and its exit code. The node does so when they have gone: at once when
somebody was attached to it and nobody is any more, else a while after its end, for those who come late. After a restart of
the node that while begins anew.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tinyo.v1 import container_pb2 as v1
from tinyo.v1.policy_pb2 import RESTART_KIND_REMOVE

from tinyo_node import cluster

if TYPE_CHECKING:
    from tinyo_node.cluster import Key, State
    from tinyo_node.reconcile import Reconciler, Step

#: Seconds that one is there after its end, unless somebody was attached.
WHILE = 10.0
ENDED = (v1.PHASE_EXITED, v1.PHASE_FAILED)
#: How many are attached, by id; 0 when somebody was.
_attached: dict[str, int] = {}
#: Those that have ended, by id, and whether nobody wants to know more.
_over: dict[str, bool] = {}


@contextmanager
def attached(state: "State", container: v1.Container) -> Iterator[None]:
    """Somebody is, inside."""
    id = container.id
    if not is_meant(container):
        yield
        return
    _attached[id] = _attached.get(id, 0) + 1
    try:
        yield
    finally:
        _attached[id] -= 1
        if id in _over and not _attached[id]:
            _over[id] = True
            state.touch(cluster.key_of(container))


def is_meant(container: v1.Container) -> bool:
    """Whether it is to be taken away when it has ended."""
    return container.spec.restart.kind == RESTART_KIND_REMOVE


def step(container: v1.Container) -> "Step | None":
    """The next step for such a container."""
    if container.status.phase not in ENDED:
        return None
    over = _over.get(container.id)
    return wait if over is None else take_away if over else None


async def wait(work: "Reconciler", key: "Key") -> None:
    """Has it looked at again when its time is over."""
    id = work.state.containers[key].id
    loop = asyncio.get_running_loop()

    def ring() -> None:
        current = work.state.containers.get(key)
        if not current or current.id != id:
            _over.pop(id, None)
            _attached.pop(id, None)
            return
        loop.call_later(WHILE, ring)
        if not _attached.get(id):
            _over[id] = True
            work.touch(key)

    _over[id] = _attached.get(id) == 0
    loop.call_later(WHILE, ring)
    work.touch(key)


async def take_away(work: "Reconciler", key: "Key") -> None:
    """Nobody wants it any more; the next look takes it apart."""
    await work.state.remove([work.state.containers[key]])

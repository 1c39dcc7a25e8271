"""The user namespaces of containers. The spawner makes them, some ahead of need: a start would wait 2 ms for its own."""

import asyncio
import errno
import logging
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import grpc
from tinyo.v1.container_pb2 import ContainerSpec

from tinyo_runtime import failures
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.options.ranges import Pool, chosen
from tinyo_runtime.spawnclient import News
from tinyo_runtime.spawner.userns import IDS, recorded

if TYPE_CHECKING:
    from tinyo_runtime.containers import Containers

log = logging.getLogger(__name__)

#: Seconds that a start gets for itself before others are made, as long as there are some.
PAUSE = 0.02
#: What a kernel says that has none, or none for us (user_namespaces(7), clone(2)).
_REFUSED = {
    errno.ENOSPC: "the sysctl user.max_user_namespaces is too low",
    errno.EINVAL: "this kernel has none",
    errno.EPERM: "this machine allows none",
}


class Namespaces:
    """Those of one runtime's containers; `spare` are kept, from the first time on that somebody needs one."""

    def __init__(self, containers: "Containers") -> None:
        settings = containers.settings
        self._spawner, self._spare = containers.spawner, int(settings.ready)
        self._pool = Pool(chosen(settings.userns_ids, settings.instance), containers.folder / "containers")
        #: First ids, and descriptors.
        self._ready: deque[tuple[int, int]] = deque()
        self._filling: asyncio.Future[None] | None = None

    async def take(self, upper: Path) -> tuple[int, int]:
        """The first id of the range of a container with that writable layer, and a descriptor of a namespace that has
        it. Raises TinyoError."""
        if first := recorded(upper) or self._pool.held_by(upper):
            return first, await self._made(first)
        if self._spare and (self._filling is None or self._filling.done()):
            self._filling = asyncio.ensure_future(self._fill())
        first, namespace = self._ready.popleft() if self._ready else await self._new()
        self._pool.taken[first] = upper
        return first, namespace

    def give_back(self, upper: Path) -> None:
        """Undoes `take`, where nothing on the layer belongs to the range yet."""
        self._pool.taken.pop(self._pool.held_by(upper), None)

    async def _fill(self) -> None:
        """Nobody waits for this: who needs a namespace and finds none hears why."""
        await asyncio.sleep(PAUSE if self._ready else 0)
        try:
            while len(self._ready) < self._spare:
                self._ready.append(await self._new())
        except TinyoError as error:
            log.warning("no user namespace is made ahead: %s", error)

    async def _new(self) -> tuple[int, int]:
        """One with a range that nobody has."""
        if not (first := self._pool.take()):
            raise exhausted()
        try:
            return first, await self._made(first)
        except BaseException:
            del self._pool.taken[first]
            raise

    async def _made(self, first: int) -> int:
        """A descriptor of one with these ids."""
        id = f"userns.{first}"
        news = self._spawner.news[id] = News()
        try:
            self._spawner.send({"op": "userns", "id": id, "inside": 0, "outside": first, "ids": IDS})
            message, fds = await news.get()
        finally:
            self._spawner.news.pop(id, None)
        if message["op"] == "failed":
            failed = failures.SpawnError(message["step"], message["errno"], message["object"])
            raise (
                impossible(_REFUSED[failed.errno])
                if failed.errno in _REFUSED
                else failures.explain(failed, "", ContainerSpec())
            )
        return fds[0]


_known: "WeakKeyDictionary[Containers, Namespaces]" = WeakKeyDictionary()


def of(containers: "Containers") -> Namespaces:
    """Those of a runtime."""
    if containers not in _known:
        _known[containers] = Namespaces(containers)
    return _known[containers]


def exhausted() -> TinyoError:
    """USERNS_IDS_EXHAUSTED."""
    message = (
        "every range of ids is taken: let the runtime's setting `userns_ids` have more, or remove containers"
    )
    return TinyoError(grpc.StatusCode.RESOURCE_EXHAUSTED, "USERNS_IDS_EXHAUSTED", message)


def impossible(why: str, field: str = "userns") -> TinyoError:
    """USERNS_IMPOSSIBLE."""
    message = f"the container cannot have a user namespace: {why}; without one (`userns: false`) it can run"
    return TinyoError(failures.FAILED, "USERNS_IMPOSSIBLE", message, {"why": why}, field)

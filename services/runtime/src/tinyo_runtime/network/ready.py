"""Endpoints that are made ahead of need: they are the same for every container, and take 2 ms each."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from tinyo_runtime.network.veth import Endpoint

log = logging.getLogger(__name__)

#: Seconds that a start gets for itself before others are made, as long as there are some.
PAUSE = 0.02


class Ready:
    """Keeps `spare` of them, from the first time on that somebody needs one."""

    def __init__(self, make: Callable[[], Awaitable[Endpoint]], spare: int) -> None:
        self._make, self._spare = make, spare
        self._endpoints: deque[Endpoint] = deque()
        self._filling: asyncio.Future[None] | None = None

    def take(self) -> Endpoint | None:
        """One of them, if there is one; others are made meanwhile."""
        if self._spare and (self._filling is None or self._filling.done()):
            self._filling = asyncio.ensure_future(self._fill())
        return self._endpoints.popleft() if self._endpoints else None

    async def _fill(self) -> None:
        """Nobody waits for this: who needs an endpoint and finds none hears why."""
        await asyncio.sleep(PAUSE if self._endpoints else 0)
        try:
            while len(self._endpoints) < self._spare:
                self._endpoints.append(await self._make())
        except Exception as error:
            log.warning("no network namespace is made ahead: %s", error)

    async def close(self) -> list[Endpoint]:
        """Ends; gives what was not needed."""
        self._spare = 0
        if self._filling:
            self._filling.cancel()
            await asyncio.wait([self._filling])
        return list(self._endpoints)

"""Work that many may ask for at the same time, and that is done once."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Progress = TypeVar("Progress")
Listener = Callable[[Progress], None]


class Once(Generic[T, Progress]):
    """Runs work by key: whoever asks while it runs shares its outcome; when all have gone, it is cancelled."""

    def __init__(self) -> None:
        self._running: dict[Hashable, tuple[asyncio.Task[T], list[Listener[Progress]]]] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._running

    async def join(
        self,
        key: Hashable,
        work: Callable[[Listener[Progress]], Coroutine[Any, Any, T]],
        listen: Listener[Progress],
    ) -> T:
        """The outcome of `work`, which is called with a function that tells everybody how far it has come."""
        if key not in self._running:
            self._begin(key, work)
        task, listeners = running = self._running[key]
        listeners.append(listen)
        try:
            return await asyncio.shield(task)
        finally:
            listeners.remove(listen)
            if not listeners and self._running.get(key) is running:
                del self._running[key]
                task.cancel()
                await asyncio.wait([task])  # so that nothing of it is left when this returns

    def _begin(self, key: Hashable, work: Callable[[Listener[Progress]], Coroutine[Any, Any, T]]) -> None:
        listeners: list[Listener[Progress]] = []

        def tell(progress: Progress) -> None:
            for listen in tuple(listeners):
                listen(progress)

        self._running[key] = (asyncio.create_task(work(tell)), listeners)

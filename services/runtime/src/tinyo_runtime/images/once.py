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
        self._running: dict[Hashable, _Running[T, Progress]] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._running

    async def join(
        self,
        key: Hashable,
        work: Callable[[Listener[Progress]], Coroutine[Any, Any, T]],
        listen: Listener[Progress],
    ) -> T:
        """The outcome of `work`, which is called with a function that tells everybody how far it has come; who comes
        later begins with what was told last."""
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = _Running(work)
        running.listeners.append(listen)
        for told in running.told:
            listen(told)
        try:
            return await asyncio.shield(running.task)
        finally:
            running.listeners.remove(listen)
            if not running.listeners and self._running.get(key) is running:
                del self._running[key]
                running.task.cancel()
                await asyncio.wait([running.task])  # so that nothing of it is left when this returns


class _Running(Generic[T, Progress]):
    """One work, and who waits for it."""

    def __init__(self, work: Callable[[Listener[Progress]], Coroutine[Any, Any, T]]) -> None:
        self.listeners: list[Listener[Progress]] = []
        #: What was told last, if anything was.
        self.told: tuple[Progress, ...] = ()
        self.task = asyncio.create_task(work(self.tell))

    def tell(self, progress: Progress) -> None:
        """Tells everybody who waits now."""
        self.told = (progress,)
        for listen in tuple(self.listeners):
            listen(progress)

"""What may pass is tried again, and what was cut off continues where it ended."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from tinyo_runtime.images import answers, failures
from tinyo_runtime.images.image import Document
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    import httpx

    from tinyo_runtime.images.store import Images as Base
else:
    Base = object

#: Seconds between attempts, of which each takes half as much to one and a half times as much: many who failed
#: together do not come back together.
DELAYS = (0.2, 0.6, 1.8)
#: Bytes after which what was cut off again has made progress, and gets all its attempts anew.
PROGRESS = 1 << 20


class Attempts:
    """How often, and after how long, something is tried again that had reached so many bytes when it began."""

    def __init__(self, reached: int = 0) -> None:
        self._settled, self._delays = reached, iter(DELAYS)

    def pause(self, reached: int, least: float) -> float | None:
        """Seconds until the next attempt, at least so many; None when it was the last one."""
        if reached - self._settled >= PROGRESS:
            self._settled, self._delays = reached, iter(DELAYS)
        delay = next(self._delays, None)
        return None if delay is None else max(least, delay * random.uniform(0.5, 1.5))


class Patience(Base):
    """Fetches with patience. A registry that never answered is not tried again."""

    def __init__(self) -> None:
        super().__init__()
        self._answered: set[str] = set()
        #: By registry and repository: a token is good for one repository.
        self.clients: dict[tuple[str, str], httpx.AsyncClient] = {}

    def client(self, reference: Reference) -> "httpx.AsyncClient":
        """The same connections for all that comes from one repository."""
        name = (reference.registry, reference.repository)
        if name not in self.clients:
            self.clients[name] = super().client(reference)
        return self.clients[name]

    async def fetch(self, reference: Reference, kind: str, content: Document) -> AsyncGenerator[bytes, None]:
        """The same bytes, in spite of what may pass. Raises TinyoError."""
        import httpx  # when it is needed: it takes long

        received = begun = answers.kept.get()
        attempts = Attempts(begun)
        while True:
            failure: Exception | None = None
            least = 0.0
            try:
                answers.received.set(received)
                async with aclosing(super().fetch(reference, kind, content)) as chunks:
                    async for chunk in chunks:
                        received += len(chunk)
                        yield chunk
                if received >= content.get("size", 0):
                    self._answered.add(reference.registry)
                    return
            except answers.Passing as error:
                failure, least = error, error.after
                self._answered.add(reference.registry)
            except (httpx.RequestError, httpx.InvalidURL) as error:
                failure = error
            if received > begun:
                self._answered.add(reference.registry)
            pause = attempts.pause(received, least)
            if pause is None or reference.registry not in self._answered:
                cut = isinstance(failure, httpx.ReadError | httpx.ReadTimeout | httpx.RemoteProtocolError)
                if failure and not cut and received == begun:
                    raise failure
                why = f" ({failures.said(failure)})" if failure else ""
                raise failures.unreachable(reference, f"cut off after {received} bytes{why}") from failure
            await asyncio.sleep(pause)

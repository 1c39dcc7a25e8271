"""A registry that answers too slowly to be meant: whoever waits for it gives up, as for one that does not answer."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from tinyo_runtime.images.image import Document
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    from tinyo_runtime.images.store import Images as Base
else:
    Base = object

#: Seconds of waiting in which at least so many bytes must come, headers first.
WINDOW, LEAST = 30.0, 30_000


class Pace(Base):
    """Fetches no slower than this."""

    async def fetch(self, reference: Reference, kind: str, content: Document) -> AsyncGenerator[bytes, None]:
        """The same bytes. Raises httpx.ReadTimeout; the time in which nobody asks for more does not count."""
        import httpx  # when it is needed: it takes long

        waited, count = 0.0, 0
        async with aclosing(super().fetch(reference, kind, content)) as chunks:
            while True:
                begun = time.monotonic()
                try:
                    async with asyncio.timeout(WINDOW - waited):
                        chunk = await anext(chunks, None)
                except TimeoutError:
                    why = f"it sent {count} bytes in {WINDOW:g} seconds"
                    raise httpx.ReadTimeout(why) from None
                if chunk is None:
                    return
                waited += time.monotonic() - begun
                count += len(chunk)
                if count >= LEAST:
                    waited, count = 0.0, 0
                yield chunk

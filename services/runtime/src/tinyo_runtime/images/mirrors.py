"""Other places where an image may be: they are asked first, in order, and the registry itself in the end."""

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING

from tinyo_runtime.errors import TinyoError, printable
from tinyo_runtime.images import failures
from tinyo_runtime.images.image import Document
from tinyo_runtime.images.reference import Reference
from tinyo_runtime.images.registries import Registries

if TYPE_CHECKING:
    import httpx

    from tinyo_runtime.images.store import Images as Base
else:
    Base = object

#: Seconds for which a mirror is left out that did not answer.
PAUSE = 60.0


class Mirrors(Base):
    """Fetches from whoever has it."""

    def __init__(self) -> None:
        super().__init__()
        #: What the administrator says about them.
        self.registries = Registries()
        #: When a mirror that did not answer is asked again, by the monotonic clock; and what became of it.
        self._silent: dict[str, tuple[float, str]] = {}

    def places(self, reference: Reference) -> Iterator[Reference]:
        """Where an image may be found, in the order in which to ask: mirrors that answer, and the registry itself."""
        for mirror in self.registries.mirrors(reference):
            if self._silent.get(mirror.registry, (0.0, ""))[0] <= time.monotonic():
                yield mirror
        yield reference

    async def fetch(self, reference: Reference, kind: str, content: Document) -> AsyncGenerator[bytes, None]:
        """The same bytes. What a mirror does not give comes from the next; raises what the registry itself raises."""
        import httpx  # when it is needed: it takes long

        failed: list[str] = []
        for mirror in self.registries.mirrors(reference):
            until, why = self._silent.get(mirror.registry, (0.0, ""))
            if until > time.monotonic():
                failed.append(f"mirror {mirror.registry}: {why}")
                continue
            begun = False
            try:
                async with aclosing(super().fetch(mirror, kind, content)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
                return
            except (TinyoError, httpx.RequestError, httpx.InvalidURL) as error:
                if begun:
                    raise
                why = failures.said(error)
                if isinstance(error, httpx.TransportError):
                    self._silent[mirror.registry] = time.monotonic() + PAUSE, why
                failed.append(f"mirror {mirror.registry}: {why}")
        try:
            async with aclosing(super().fetch(reference, kind, content)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except (TinyoError, httpx.RequestError, httpx.InvalidURL) as error:
            raise _with(error, failed) from error.__cause__


def _with(error: "TinyoError | httpx.RequestError | httpx.InvalidURL", failed: list[str]) -> Exception:
    """The same error, which also says why no mirror helped."""
    if failed:
        text = printable("; ".join([failures.said(error), *failed]))
        error.args = (text,)
        if isinstance(error, TinyoError):
            error.message = text
    return error

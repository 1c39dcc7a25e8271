"""One blob on its way into a repository (OCI distribution, "Pushing blobs").

It may be there already, or in another repository of the same registry, from which it is mounted. Else it is sent in
one request; what was cut off, or is too large for one, goes on in pieces from where the registry says that it has got.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import httpx
from tinyo.v1.push_pb2 import UploadProgress

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import answers, failures
from tinyo_runtime.images.contents import Content
from tinyo_runtime.images.destination import COMMIT, DATA, Body, Destination

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

log = logging.getLogger(__name__)

#: Bytes of a piece, unless the registry wants them larger.
PIECE = 8 << 20
#: Repositories from which it is tried to mount a blob.
MAX_MOUNTS = 2
#: Seconds for telling a registry that what it has got will not be needed.
FAREWELL = 3.0
#: After these a registry is asked what it has got: it may have forgotten the upload, or be elsewhere in it.
_LOST = (404, 416)


class Upload:
    """One blob, of which `state` tells how far it is, and `tell` that this has changed."""

    def __init__(
        self,
        destination: Destination,
        content: Content,
        sources: Sequence[str],
        state: UploadProgress,
        tell: Callable[[], None],
    ) -> None:
        self.destination, self.content, self.state, self.tell = destination, content, state, tell
        #: Repositories that may have it.
        self._sources = sources
        #: Where it goes; None before the registry said it.
        self._session: httpx.URL | None = None
        #: Bytes that the registry has got of it, now and at most so far.
        self._offset = self._reached = 0
        self._piece = PIECE
        #: Whether it goes in pieces.
        self._in_pieces = False

    async def run(self) -> None:
        """Returns when the registry has it. Raises TinyoError and Damaged, and takes back what it began."""
        try:
            await self.destination.patiently(self._attempt, lambda: self._reached)
        except BaseException:
            await self._cancel()
            raise
        self.state.sent_bytes = 0 if self.state.present or self.state.mounted_from else self.content.size
        self.state.complete = True
        self.tell()

    async def _attempt(self) -> None:
        if await self._exists():  # also when only the answer to the last request was lost
            self.state.present = not self.state.sent_bytes
            return
        if self._session:
            self._in_pieces = True
            await self._ask_offset()
        if not self._session and await self._begin():
            return
        await (self._send_pieces() if self._in_pieces else self._send_whole())

    async def _exists(self) -> bool:
        asked = await self.destination.ask("HEAD", f"blobs/{self.content.digest}", expect=(200, 404))
        return asked.status_code == 200

    async def _begin(self) -> bool:
        """Opens an upload, unless the blob can be mounted: then True."""
        self._offset = 0
        for source in self._sources[:MAX_MOUNTS]:
            await self._cancel()
            try:
                answer = await self._post({"mount": self.content.digest, "from": source})
            except answers.Passing:
                raise
            except TinyoError as error:  # the upload itself says what is wrong, if anything is
                log.debug("%s is not mounted from %s: %s", self.content.digest, source, error)
                break
            if answer.status_code == 201:
                self.state.mounted_from = source
                return True
        self._sources = ()
        if not self._session:
            await self._post()
        return False

    async def _post(self, mount: dict[str, str] | None = None) -> httpx.Response:
        expect = (201, 202) if mount else (202,)
        answer = await self.destination.ask("POST", "blobs/uploads/", expect=expect, params=mount)
        if answer.status_code == 202:
            self._session, self.content.given = self.destination.location(answer), 0
            least = answer.headers.get("OCI-Chunk-Min-Length", "")
            self._piece = max(PIECE, int(least)) if re.fullmatch(r"\d{1,18}", least) else PIECE
        return answer

    async def _ask_offset(self) -> None:
        """How much the registry has got. When that is nothing, or it does not know the upload any more, this begins anew."""
        assert self._session
        try:
            answer = await self.destination.ask("GET", self._session, expect=(200, 202, 204))
        except answers.Passing:
            raise
        except TinyoError as error:
            log.debug("the upload of %s begins anew: %s", self.content.digest, error)
            self._session = None
            return
        if "Location" in answer.headers:
            self._session = self.destination.location(answer)
        self._offset = self._got(answer, 0)
        if self._offset <= 1:  # "0-0" stands for one byte, and in some registries for none
            await self._cancel()

    def _got(self, answer: httpx.Response, otherwise: int) -> int:
        """Bytes that the registry has got, as it says."""
        match = re.fullmatch(r"(?:bytes=)?0-(\d{1,18})", answer.headers.get("Range", ""))
        got = int(match[1]) + 1 if match else otherwise
        if got > self.content.given and got > 1:
            why = f"it has got {got} bytes of {self.content.digest}, of which {self.content.given} were sent"
            raise failures.unreachable(self.destination.target, why)
        self._reached = max(self._reached, got)
        return got

    async def _send_whole(self) -> None:
        try:
            await self._finish(self._body(0, self.content.size), self.content.size)
        except TinyoError as error:
            if error.metadata.get("status") != "413":
                raise
            self._in_pieces = True
            await self._cancel()
            await self._begin()
            await self._send_pieces()

    async def _send_pieces(self) -> None:
        while (start := self._offset) < self.content.size:
            assert self._session
            end = min(start + self._piece, self.content.size)
            headers = DATA | {"Content-Length": str(end - start), "Content-Range": f"{start}-{end - 1}"}
            body = self._body(start, end)
            answer = await self.destination.ask(
                "PATCH", self._session, expect=(201, 202, 204), passing=_LOST, headers=headers, body=body
            )
            if "Location" in answer.headers:
                self._session = self.destination.location(answer)
            self._offset = self._got(answer, end)
            if self._offset <= start:
                why = f"it does not go beyond byte {start} of {self.content.digest}"
                raise answers.Passing(failures.unreachable(self.destination.target, why), 0)
        await self._finish(self._body(self.content.size, self.content.size), 0)

    def _body(self, start: int, end: int) -> Body:
        async def read() -> "AsyncGenerator[bytes, None]":
            sent = start
            async for chunk in self.content.read(start, end):
                yield chunk
                sent += len(chunk)
                self.state.sent_bytes = sent
                self.tell()

        return read

    async def _finish(self, body: Body, length: int) -> None:
        assert self._session
        digest = f"digest={self.content.digest.replace(':', '%3A')}".encode()
        query = self._session.query  # as it is: it may be signed
        url = self._session.copy_with(query=query + b"&" + digest if query else digest)
        headers = DATA | {"Content-Length": str(length)}
        answer = await self.destination.ask(
            "PUT", url, expect=(201, 204), passing=_LOST, headers=headers, body=body, timeout=COMMIT
        )
        self._session = None
        self.destination.same(answer, self.content.digest)

    async def _cancel(self) -> None:
        """Ends an upload that will not be finished. A registry that does not hear it forgets it by itself later."""
        session, self._session = self._session, None
        if not session:
            return
        try:
            async with asyncio.timeout(FAREWELL):
                await self.destination.ask("DELETE", session, expect=(200, 202, 204, 404))
        except (TinyoError, httpx.HTTPError, TimeoutError) as error:
            log.debug("the upload of %s cannot be cancelled: %s", self.content.digest, error)

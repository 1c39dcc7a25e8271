"""Brings an image that is here to a registry: its blobs, several at the same time, and then its manifest.

The bytes are those that are here, so its digest stays what it is. Nothing that is damaged here gets a name there.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from tinyo.v1.push_pb2 import PushProgress, UploadProgress

from tinyo_runtime.images import cargo, failures, rejections
from tinyo_runtime.images.cargo import Blob
from tinyo_runtime.images.contents import Content, Damaged
from tinyo_runtime.images.reference import Reference
from tinyo_runtime.images.sharing import INTERVAL
from tinyo_runtime.images.shelf import Shelf

if TYPE_CHECKING:
    from tinyo_runtime.images.destination import Destination
    from tinyo_runtime.images.store import Images as Base
else:
    Base = object

#: Blobs of one image that are on their way at the same time.
PARALLEL = 4
#: Who hears how far a push is.
Listener: TypeAlias = Callable[[PushProgress], None]


class Pushed(NamedTuple):
    """What is in a registry now."""

    #: Complete.
    reference: str
    #: Of the manifest or index.
    digest: str
    #: Bytes of all blobs, whether or not they had to be sent.
    size_bytes: int


class Push(Base):
    """Pushes images. No mirror is ever written to."""

    #: Digests that must not be swept meanwhile.
    wanted: list[str]
    #: Registries that have answered before.
    answered: set[str]

    async def push(self, reference: str, to: str = "", progress: Listener = lambda progress: None) -> Pushed:
        """Brings an image to the registry that its reference names, or to that of `to`. Raises TinyoError.

        Cancelled or failed, it takes back what it began to send; blobs that have arrived stay.
        """
        assert isinstance(self, Shelf)
        digest, target = cargo.find(self, reference, to)
        goods = cargo.load(self, reference, digest, target)
        relied = [*goods.documents, *goods.blobs]
        self.wanted.extend(relied)
        try:
            with failures.explained(target):
                await self._bring(reference, target, goods, progress)
        finally:
            for one in relied:
                self.wanted.remove(one)
        return Pushed(str(target), digest, sum(blob.size for blob in goods.blobs.values()))

    async def _bring(self, reference: str, target: Reference, goods: cargo.Cargo, progress: Listener) -> None:
        from tinyo_runtime.images.destination import Destination  # when it is needed: it takes long

        report = Report(target, goods, progress)
        limit = asyncio.Semaphore(PARALLEL)

        async def bring(blob: Blob) -> None:
            mounts = [repository for repository, has in goods.sources.items() if blob.digest in has]
            async with limit:
                await self._upload(reference, there, blob, mounts, report)

        # Connections of its own: with what pulls show, nobody may push.
        async with super().client(target) as client:
            there = Destination(self, client, target, *goods.sources)
            first, *rest = goods.blobs.values()
            await bring(
                first
            )  # alone: the others need not hear once more who we have to be, or that we may not
            async with asyncio.TaskGroup() as uploads:
                for blob in rest:
                    uploads.create_task(bring(blob))
            *others, last = goods.documents
            for digest in others:
                await there.put_manifest(digest, digest, *goods.documents[digest])
            await there.put_manifest(target.tag or last, last, *goods.documents[last])

    async def _upload(
        self, reference: str, there: "Destination", blob: Blob, mounts: Sequence[str], report: "Report"
    ) -> None:
        from tinyo_runtime.images.uploads import Upload

        path = self.blob(blob.digest)
        try:
            with closing(Content(path, blob.digest, blob.size)) as content:
                await Upload(there, content, mounts, report.states[blob.digest], report.tell).run()
        except Damaged as damaged:
            if blob.kind == "layer":  # so that a pull fetches it again, as `audit` does it
                damaged.remove(path)
            raise rejections.damaged(reference, blob.kind, blob.digest, str(damaged)) from None


class Report:
    """How far a push is."""

    def __init__(self, target: Reference, goods: cargo.Cargo, progress: Listener) -> None:
        self._target, self._progress = target, progress
        #: By digest.
        self.states = {
            blob.digest: UploadProgress(digest=blob.digest, total_bytes=blob.size, layer=blob.kind == "layer")
            for blob in goods.blobs.values()
        }
        self._told = 0.0

    def tell(self, *, now: bool = False) -> None:
        """Tells it, if that was not done just before."""
        if now or time.monotonic() - self._told >= INTERVAL:
            self._told = time.monotonic()
            self._progress(PushProgress(reference=str(self._target), uploads=self.states.values()))

"""Brings an image that is here to a registry: its blobs, several at the same time, and then its manifest.

The bytes are those that are here, so its digest stays what it is. Nothing that is damaged here gets a name there.
"""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from tinyo.v1.push_pb2 import PushProgress, UploadProgress

from tinyo_runtime.images import cargo, failures, rejections
from tinyo_runtime.images.cargo import Blob
from tinyo_runtime.images.contents import Content, Damaged
from tinyo_runtime.images.reference import Reference
from tinyo_runtime.images.shelf import Shelf

if TYPE_CHECKING:
    from tinyo_runtime.images.destination import Destination
    from tinyo_runtime.images.leases import Leases as Base
else:
    Base = object

#: Blobs of one image that are on their way at the same time.
PARALLEL = 4


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

    async def push(self, reference: str, to: str = "", report: "Report | None" = None) -> Pushed:
        """Brings an image to the registry that its reference names, or to that of `to`. Raises TinyoError.

        Cancelled or failed, it takes back what it began to send; blobs that have arrived stay.
        """
        assert isinstance(self, Shelf)
        digest, target = cargo.find(self, reference, to)
        goods = cargo.load(self, reference, digest, target)
        with self.lease() as lease, failures.explained(target):
            lease.add(*goods.documents, *goods.blobs)
            await self._bring(reference, target, goods, report or Report())
        return Pushed(str(target), digest, sum(blob.size for blob in goods.blobs.values()))

    async def _bring(self, reference: str, target: Reference, goods: cargo.Cargo, report: "Report") -> None:
        from tinyo_runtime.images.destination import Destination  # when it is needed: it takes long

        report.begin(target, goods)
        limit = asyncio.Semaphore(PARALLEL)

        async def bring(blob: Blob) -> None:
            mounts = [repository for repository, has in goods.sources.items() if blob.digest in has]
            async with limit:
                await self._upload(reference, there, blob, mounts, report)

        # Connections of its own: with what pulls show, nobody may push.
        async with super().client(target) as client:
            there = Destination(self, client, target, *goods.sources)
            blobs = [*goods.blobs.values()]
            # The first goes alone: the others need not hear as well who we have to be, or that we may not.
            for some in (blobs[:1], blobs[1:]):
                async with asyncio.TaskGroup() as uploads:
                    for blob in some:
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
                await Upload(there, content, mounts, report.states[blob.digest], report.changed.set).run()
        except Damaged as damaged:
            if blob.kind == "layer":  # so that a pull fetches it again, as `audit` does it
                damaged.remove(path)
            raise rejections.damaged(reference, blob.kind, blob.digest, str(damaged)) from None


class Report:
    """How far a push is. Whoever wants to know waits until it has changed."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        #: By digest of the blob; none before it is known what has to be there.
        self.states: dict[str, UploadProgress] = {}
        self._target = ""

    def begin(self, target: Reference, goods: cargo.Cargo) -> None:
        """Nothing of it is there yet, as far as is known."""
        self._target = str(target)
        for digest, size, kind in goods.blobs.values():
            self.states[digest] = UploadProgress(digest=digest, total_bytes=size, layer=kind == "layer")
        self.changed.set()

    def message(self) -> PushProgress:
        """All of it, as it is now."""
        return PushProgress(reference=self._target, uploads=self.states.values())

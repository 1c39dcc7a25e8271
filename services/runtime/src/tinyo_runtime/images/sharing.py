"""Pulls of several callers at the same time: each image and each layer is fetched once, and all hear how far it is."""

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from tinyo.v1.image_pb2 import LayerProgress, PullProgress

from tinyo_runtime.images import disk, failures, order
from tinyo_runtime.images.image import Document
from tinyo_runtime.images.once import Listener, Once
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    from tinyo_runtime.images.leases import Leases as Base
else:
    Base = object

#: Layers that are fetched and unpacked at the same time.
PARALLEL = 4
#: Seconds between two reports of progress.
INTERVAL = 0.1


class Sharing(Base):
    """Does once what many ask for, and says how far it has come."""

    def __init__(self) -> None:
        super().__init__()
        self._pulls: Once[str, PullProgress] = Once()
        self._layers: Once[None, int] = Once()
        self._limit = asyncio.Semaphore(PARALLEL)
        #: Who wants to know how many bytes of a layer have come, by its digest.
        self._heard: dict[str, Listener[int]] = {}

    async def image(self, reference: Reference, platform: Document) -> str:
        """The same digest; whoever asks for the same at the same time shares the pull."""
        asked = order.current()

        async def work(tell: Listener[PullProgress]) -> str:
            pull = order.Order(asked.refresh, tell)
            with self.lease() as pull.lease, order.entered(pull):
                digest = await super(Sharing, self).image(reference, platform)
            if pull.layers:
                _report(reference, pull)
            return digest

        key = (reference, *platform.items(), asked.refresh)
        return await self._pulls.join(key, work, asked.progress or (lambda progress: None))

    async def layer(self, reference: Reference, layer: Document, diff_id: str) -> None:
        """Returns when the layer is in its place, whoever puts it there."""
        pull, state = order.current(), LayerProgress(digest=layer["digest"], total_bytes=layer["size"])
        pull.layers.append(state)
        pull.lease.add(layer["digest"], diff_id)

        async def work(tell: Listener[int]) -> None:
            self._heard[layer["digest"]] = tell
            try:
                await super(Sharing, self).layer(reference, layer, diff_id)
            finally:
                self._heard.pop(layer["digest"], None)

        async def restore(tell: Listener[int]) -> None:
            self._heard[layer["digest"]] = tell
            try:
                await self._restore(reference, layer)
            finally:
                self._heard.pop(layer["digest"], None)

        def received(count: int) -> None:
            state.received_bytes = count
            if time.monotonic() - pull.reported >= INTERVAL:
                _report(reference, pull)

        present = self.folder(diff_id).exists()
        state.shared = present or diff_id in self._layers
        if not present:
            await self._layers.join(diff_id, work, received)
        elif not self._is_here(layer):
            state.shared = False
            await self._layers.join(layer["digest"], restore, received)
        state.complete = True

    def _is_here(self, layer: Document) -> bool:
        """Whether a layer's blob is here, by its size: reading it all is what verifying is for."""
        path = self.blob(layer["digest"])
        return path.exists() and path.stat().st_size == layer["size"]

    async def _restore(self, reference: Reference, layer: Document) -> None:
        """Gives the blob of a layer its place that is unpacked already: it was lost, or is packed in another way."""
        with tempfile.TemporaryDirectory(dir=self.root / "pulling") as folder:
            blob = Path(folder, "blob")
            async with self._limit:
                with blob.open("wb") as file:
                    async for chunk in self.fetch(reference, "blobs", layer):
                        file.write(chunk)
            if blob.stat().st_size != layer["size"]:
                why = f"layer {layer['digest']} has {blob.stat().st_size} bytes instead of {layer['size']}"
                raise failures.corrupt(reference, why)
            await asyncio.to_thread(disk.flush, blob)
            blob.rename(self.blob(layer["digest"]))
            disk.flush(self.root / "images/blobs/sha256")

    async def unpack(self, reference: Reference, layer: Document, diff_id: str, folder: Path) -> bytes:
        """The same last word, when it is this layer's turn."""
        async with self._limit:
            return await super().unpack(reference, layer, diff_id, folder)

    async def fetch(self, reference: Reference, kind: str, content: Document) -> AsyncGenerator[bytes, None]:
        """The same bytes, counted."""
        count, tell = 0, self._heard.get(content["digest"])
        async with aclosing(super().fetch(reference, kind, content)) as chunks:
            async for chunk in chunks:
                count += len(chunk)
                if tell:
                    tell(count)
                yield chunk


def _report(reference: Reference, pull: order.Order) -> None:
    pull.reported = time.monotonic()
    if pull.progress:
        pull.progress(PullProgress(reference=str(reference), layers=pull.layers))

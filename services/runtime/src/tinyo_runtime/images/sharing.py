"""Pulls of several callers at the same time: each image and each layer is fetched once, and all hear how far it is."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from tinyo.v1 import image_pb2 as v1

from tinyo_runtime.images import disk, failures, order, progress
from tinyo_runtime.images.image import Document
from tinyo_runtime.images.once import Listener, Once
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    from tinyo_runtime.images.leases import Leases as Base
else:
    Base = object

#: Layers that are fetched and unpacked at the same time.
PARALLEL = 4


class Sharing(Base):
    """Does once what many ask for, and says how far it has come."""

    def __init__(self) -> None:
        super().__init__()
        self._pulls: Once[str, v1.PullProgress] = Once()
        self._layers: Once[None, progress.Layer] = Once()
        self._limit = asyncio.Semaphore(PARALLEL)

    async def image(self, reference: Reference, platform: Document) -> str:
        """The same digest; whoever asks for the same at the same time shares the pull."""
        asked = order.current()

        async def work(tell: Listener[v1.PullProgress]) -> str:
            pull = order.Order(asked.refresh, tell, asked.offer)
            with self.lease() as pull.lease, order.entered(pull):
                async with progress.told(reference, pull.layers, tell):
                    return await super(Sharing, self).image(reference, platform)

        key = (reference, *platform.items(), asked.refresh, asked.offer)
        return await self._pulls.join(key, work, asked.progress or (lambda progress: None))

    async def layer(self, reference: Reference, layer: Document, diff_id: str) -> None:
        """Returns when the layer is in its place, whoever puts it there."""
        pull = order.current()
        mine = pull.layers.add(layer)
        pull.lease.add(layer["digest"], diff_id)

        async def work(tell: Listener[progress.Layer]) -> None:
            with progress.of(layer) as fetched:
                tell(fetched)
                await super(Sharing, self).layer(reference, layer, diff_id)

        async def restore(tell: Listener[progress.Layer]) -> None:
            with progress.of(layer) as fetched:
                tell(fetched)
                await self._restore(reference, layer)

        present = self.folder(diff_id).exists()
        if present and self._is_here(layer):
            mine.layer.becomes(v1.LAYER_STATE_EXISTS)
            return
        key, bring = (layer["digest"], restore) if present else (diff_id, work)
        mine.shared = key in self._layers
        await self._layers.join(key, bring, mine.follow)

    def _is_here(self, layer: Document) -> bool:
        """Whether a layer's blob is here, by its size: reading it all is what verifying is for."""
        path = self.blob(layer["digest"])
        return path.exists() and path.stat().st_size == layer["size"]

    async def _restore(self, reference: Reference, layer: Document) -> None:
        """Gives the blob of a layer its place that is unpacked already: it was lost, or is packed in another way."""
        with tempfile.TemporaryDirectory(dir=self.root / "pulling") as folder:
            blob = Path(folder, "blob")
            async with self._limit:
                progress.current().becomes(v1.LAYER_STATE_DOWNLOADING)
                with blob.open("wb") as file:
                    async for chunk in self.fetch(reference, "blobs", layer):
                        file.write(chunk)
            if blob.stat().st_size != layer["size"]:
                why = f"layer {layer['digest']} has {blob.stat().st_size} bytes instead of {layer['size']}"
                raise failures.corrupt(reference, why)
            progress.current().becomes(v1.LAYER_STATE_FLUSHING)
            await asyncio.to_thread(disk.flush, blob)
            blob.rename(self.blob(layer["digest"]))
            disk.flush(self.blob(layer["digest"]).parent)

    async def unpack(self, reference: Reference, layer: Document, diff_id: str, folder: Path) -> bytes:
        """The same last word, when it is this layer's turn."""
        async with self._limit:
            progress.current().becomes(v1.LAYER_STATE_DOWNLOADING)
            return await super().unpack(reference, layer, diff_id, folder)

    async def fetch(self, reference: Reference, kind: str, content: Document) -> AsyncGenerator[bytes, None]:
        """The same bytes, counted."""
        layer = progress.current()
        async with aclosing(super().fetch(reference, kind, content)) as chunks:
            async for chunk in chunks:
                layer.received(len(chunk))
                yield chunk
        layer.becomes(v1.LAYER_STATE_UNPACKING)

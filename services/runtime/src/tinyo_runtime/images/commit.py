"""A container becomes an image: what it changed is one more layer on the image that it was made from.

A draft reads the container first (`pack`), when nothing else may change it, and makes the image of that when the
container no longer matters (`image`). The new layer is unpacked as one that was pulled, and so verified. What a
draft made is taken away again, unless it came to its end.
"""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterable
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tinyo.v1.image_pb2 import LAYER_COMPRESSION_ZSTD, CommitOptions

from tinyo_runtime import failures as container_failures
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import (
    catalog,
    digests,
    disk,
    failures,
    instructions,
    kinds,
    names,
    order,
    packing,
    verify,
)
from tinyo_runtime.images.failures import Malformed
from tinyo_runtime.images.image import Document
from tinyo_runtime.images.leases import Lease
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    from tinyo_runtime.images.store import ImageStore

#: How docker's names for layers are called by everybody.
_LAYER_TYPES = {
    "application/vnd.docker.image.rootfs.diff.tar": kinds.LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{kinds.LAYER}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{kinds.LAYER}+zstd",
}
#: What docker noted of the container that a base was made in.
_OF_THE_BASE = ("container", "container_config")
#: Layers whose names fit into one mount(2).
MAX_LAYERS = 115


class Draft:
    """One image in the making; entered, it keeps what it is based on."""

    def __init__(
        self, images: "ImageStore", name: str, base: str, reference: str, options: CommitOptions
    ) -> None:
        """Of a container of that name, made from the manifest with digest `base`. Raises TinyoError."""
        self._images, self._name, self._options = images, name, options
        called = [names.name_of(entry) for entry in names.entries(images) if entry.get("digest") == base]
        self._base = next(filter(None, called), base)
        self._target = Reference.parse(reference)
        if self._target.digest:
            raise failures.no_name(reference)
        try:
            self._manifest, configuration = images.documents(base)
            self._configuration = _configured(configuration, self._manifest, options)
            _json(self._configuration)
        except (FileNotFoundError, Malformed, RecursionError, ValueError):
            raise failures.unreadable(self._base) from None
        if len(self._manifest["layers"]) >= MAX_LAYERS:
            why = f"its image has {len(self._manifest['layers'])} layers, and {MAX_LAYERS} are the most that can be used"
            raise container_failures.commit_refused(name, why)
        self._pull = order.Order(lease=Lease(images.wanted))
        #: Blobs and folders that were not there before.
        self._made: list[Path] = []

    async def __aenter__(self) -> Self:
        needed = [layer["digest"] for layer in self._manifest["layers"]]
        for digest in needed:
            if not self._images.blob(digest).exists():
                why = f"layer {digest} of its image is not here: `tinyo image pull {self._base}` fetches it again"
                raise container_failures.commit_refused(self._name, why)
        self._folder = Path(tempfile.mkdtemp(dir=self._images.root / "pulling"))
        self._pull.lease.add(*needed, *self._configuration["rootfs"]["diff_ids"])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pull.lease.end()
        doomed = [self._folder, *(self._unneeded() if error else ())]
        deleting = asyncio.ensure_future(asyncio.to_thread(_delete, doomed))
        try:
            await asyncio.shield(deleting)
        finally:  # a cancellation waits for it, too, or nobody would
            await asyncio.wait([deleting])

    async def pack(self, upper: Path) -> list[str]:
        """Reads what the container changed; says what of it is left out. Raises COMMIT_REFUSED and OSError."""
        self._packed = await packing.pack(self._name, upper, self._compression(), self._folder / "blob")
        return self._packed.notes

    async def image(self) -> tuple[catalog.Held, str]:
        """The image, complete, and its reference. Raises TinyoError and OSError."""
        images, diff_id = self._images, self._packed.diff_id
        blob = self._folder / "blob"
        digest = await asyncio.to_thread(_flushed_digest, blob)
        media_type = f"{kinds.LAYER}+{self._compression()}"
        layer = {"mediaType": media_type, "digest": digest, "size": blob.stat().st_size}
        self._configuration["rootfs"]["diff_ids"].append(diff_id)
        configuration = self._blob(kinds.CONFIG, self._configuration)
        manifest: Document = {
            "schemaVersion": 2,
            "mediaType": kinds.MANIFEST,
            "config": configuration[0],
            "layers": [*map(_as_oci, self._manifest["layers"]), layer],
        }
        described = self._blob(manifest["mediaType"], manifest)
        new = (
            images.folder(diff_id),
            *map(images.blob, (digest, configuration[0]["digest"], described[0]["digest"])),
        )
        self._made = [path for path in new if not path.exists()]
        blob.rename(images.blob(digest))
        await self._unpack(layer, diff_id)
        for descriptor, data in (configuration, described):
            images.write(images.blob(descriptor["digest"]), data)
        names.tag(images, self._target, described[0]["digest"])
        return catalog.find(images, str(self._target)), str(self._target)

    async def _unpack(self, layer: Document, diff_id: str) -> None:
        try:
            with order.entered(self._pull):
                await self._images.layer(self._target, layer, diff_id)
        except TinyoError as error:
            if error.reason == "IMAGE_CORRUPT":
                raise container_failures.commit_refused(self._name, error.message) from error
            raise

    def _blob(self, media_type: str, document: Document) -> tuple[Document, bytes]:
        """A document, with its descriptor."""
        data = _json(document)
        if len(data) > verify.MAX_DOCUMENT:
            why = f"what is said of the image takes {len(data)} bytes, more than {verify.MAX_DOCUMENT}"
            raise container_failures.commit_refused(self._name, why)
        return {"mediaType": media_type, "digest": digests.of(data), "size": len(data)}, data

    def _compression(self) -> str:
        return "zstd" if self._options.compression == LAYER_COMPRESSION_ZSTD else "gzip"

    def _unneeded(self) -> list[Path]:
        """What was made, and nobody else has begun to need."""
        images, needed = self._images, set[Path]()
        held = [catalog.needs(images, str(entry.get("digest"))) for entry in names.entries(images)]
        for digest in {*images.wanted, *(name for one in held for name in (*one.blobs, *one.layers))}:
            needed |= {images.blob(digest), images.folder(digest)}
        return [path for path in self._made if path not in needed]


def _configured(base: Document, manifest: Document, options: CommitOptions) -> Document:
    """The configuration of the new image, but for its new layer. Raises CHANGE_INVALID."""
    configuration = deepcopy({key: value for key, value in base.items() if key not in _OF_THE_BASE})
    configuration["config"] = instructions.applied(configuration.get("config") or {}, options.changes)
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    step = {"created": now, "created_by": "tinyo commit"}
    configuration["created"] = now
    if options.author:
        configuration["author"] = step["author"] = options.author
    if options.message:
        step |= {"created_by": f"tinyo commit # {options.message}", "comment": options.message}
    history = base.get("history") if isinstance(base.get("history"), list) else []
    assert isinstance(history, list)
    told = sum(isinstance(entry, dict) and not entry.get("empty_layer") for entry in history)
    untold: list[Document] = [{}] * (len(manifest["layers"]) - told)
    configuration["history"] = [*history, *untold, step]
    return configuration


def _json(document: Document) -> bytes:
    """Raises RecursionError and ValueError for what is no JSON although Python reads it."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def _as_oci(layer: Document) -> Document:
    """The descriptor of a layer in a manifest of the OCI."""
    return layer | {"mediaType": _LAYER_TYPES.get(layer["mediaType"], layer["mediaType"])}


def _flushed_digest(path: Path) -> str:
    """Of a file that has reached the disk."""
    disk.flush(path)
    return digests.of_file(path)


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

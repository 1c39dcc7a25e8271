"""What is here already is not fetched: images that are complete, documents, and layers that lost their folder."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tinyo.v1.image_pb2 import LAYER_STATE_DOWNLOADING, LAYER_STATE_VERIFYING

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import (
    choice,
    digests,
    failures,
    names,
    order,
    platforms,
    progress,
    unchanged,
    verify,
)
from tinyo_runtime.images.documents import member
from tinyo_runtime.images.grammar import DIGEST
from tinyo_runtime.images.image import Document
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    from tinyo_runtime.images.store import Images as Base
else:
    Base = object

_CHUNK = 1 << 18
#: Reasons for which an image does not come from a registry.
_NOT_GIVEN = ("IMAGE_NOT_FOUND", "REGISTRY_UNREACHABLE", "REGISTRY_DENIED")


class _Known(NamedTuple):
    """An image whose documents are here."""

    #: Digest that its name stands for, in the layout and in its registry: of a manifest or of an index.
    entry: str
    resolved: str
    #: Digest.
    manifest: str
    diff_ids: list[str]


class Present(Base):
    """Looks here before it asks a registry."""

    async def image(self, reference: Reference, platform: Document) -> str:
        """At once when the image is complete; the registry need not be reached for what its name stands for here.

        With `refresh` it is asked whether the name still stands for that; what is lost or damaged is fetched again.
        """
        pull = order.current()
        pull.platform = platform
        if found := self._known(reference, platform):
            if not pull.refresh and all(self.folder(diff_id).is_dir() for diff_id in found.diff_ids):
                names.tag(self, reference, found.manifest)
                return found.manifest
            if not pull.refresh or await self._is_unchanged(reference, found):
                pull.known, pull.resolved = found.entry, found.resolved
        with self._elsewhere(reference, platform):
            return await super().image(reference, platform)

    async def _is_unchanged(self, reference: Reference, found: "_Known") -> bool:
        return not reference.digest and await unchanged.resolve(self, reference) == found.resolved

    @contextmanager
    def _elsewhere(self, reference: Reference, platform: Document) -> Iterator[None]:
        """What no registry gives, but is here for another platform, is said so."""
        try:
            yield
        except Exception as error:
            if order.current().manifest or not _is_not_given(error):
                raise
            same = [entry for entry in names.entries(self) if names.name_of(entry) == str(reference)]
            said = [entry["platform"] for entry in same if isinstance(entry.get("platform"), dict)]
            if not said or self._known(reference, platform):
                raise
            here = ", ".join(map(platforms.name, said))
            raise failures.only_here(reference, platforms.name(platform), here, error) from error

    async def fetch(self, reference: Reference, kind: str, content: Document) -> AsyncGenerator[bytes, None]:
        """The same bytes, from here if they are here."""
        digest = content["digest"]
        if kind == "manifests" and not DIGEST.fullmatch(digest):
            digest = order.current().known
        path, layer = self.blob(digest), progress.current()
        if digest and content.get("size", 0) > verify.MAX_DOCUMENT and path.exists():
            layer.becomes(LAYER_STATE_VERIFYING)
            if await asyncio.to_thread(_is_intact, path, digest):
                layer.is_here(content["size"])
                with path.open("rb") as blob:
                    while chunk := blob.read(_CHUNK):
                        yield chunk
                return
            layer.becomes(LAYER_STATE_DOWNLOADING)
        elif digest and (data := self._intact(digest)) is not None:
            layer.is_here(len(data))
            yield data
            return
        async with aclosing(super().fetch(reference, kind, content)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _known(self, reference: Reference, platform: Document) -> "_Known | None":
        """What has the reference or digest here, if it suits the platform. Raises Malformed."""
        for entry in names.entries(self):
            digest = str(entry.get("digest"))
            if reference.digest != digest and str(reference) != names.name_of(entry):
                continue
            document, offered = verify.load(self._intact(digest) or b"{}"), entry
            if "manifests" in document and (offered := choice.best(choice.offers(document), platform) or {}):
                digest = str(offered.get("digest"))
                document = verify.load(self._intact(digest) or b"{}")
            if "config" not in document:
                continue
            config = verify.manifest(document)["config"]["digest"]
            if data := self._intact(config):
                configuration = verify.configured(verify.load(data))
                said = member(offered, "platform", dict, {}) or configuration
                if platforms.rank(platform, said) is not None:
                    diff_ids = configuration["rootfs"]["diff_ids"]
                    return _Known(str(entry["digest"]), names.resolved_of(entry), digest, diff_ids)
        return None

    def _intact(self, digest: str) -> bytes | None:
        """A document that is here; None when it is not, or not as it should be."""
        path = self.blob(digest)
        if not DIGEST.fullmatch(digest) or not path.exists() or path.stat().st_size > verify.MAX_DOCUMENT:
            return None
        data = path.read_bytes()
        return data if digests.of(data, digest) == digest else None


def _is_not_given(error: Exception) -> bool:
    """Whether a registry could not be asked, or has no such image for us."""
    import httpx  # when it is needed: it takes long

    if isinstance(error, TinyoError):
        return error.reason in _NOT_GIVEN
    return isinstance(error, httpx.RequestError | httpx.InvalidURL)


def _is_intact(path: Path, digest: str) -> bool:
    """Whether a large blob is here, as it should be: what was lost or damaged since is fetched again."""
    try:
        return digests.of_file(path, digest) == digest
    except OSError:
        return False

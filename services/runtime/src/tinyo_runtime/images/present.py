"""What is here already is not fetched: images that are complete, documents, and layers that lost their folder."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING

from tinyo.v1.image_pb2 import LAYER_STATE_DOWNLOADING, LAYER_STATE_VERIFYING

from tinyo_runtime.images import names, order, progress, verify
from tinyo_runtime.images.grammar import DIGEST
from tinyo_runtime.images.image import Document
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    from tinyo_runtime.images.store import Images as Base
else:
    Base = object

_CHUNK = 1 << 18


class Present(Base):
    """Looks here before it asks a registry."""

    async def image(self, reference: Reference, platform: Document) -> str:
        """At once when the image is complete; the registry need not be reached for what its name stands for here."""
        pull = order.current()
        pull.platform = platform
        if not pull.refresh and (found := self._known(reference, platform)):
            pull.known, digest, diff_ids = found
            if all(self.folder(diff_id).is_dir() for diff_id in diff_ids):
                names.tag(self, reference, digest)
                return digest
        return await super().image(reference, platform)

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

    def _known(self, reference: Reference, platform: Document) -> tuple[str, str, list[str]] | None:
        """What has the reference or digest here, its manifest and diff IDs, if it suits the platform. Raises Malformed."""
        for entry in names.entries(self):
            known = digest = str(entry.get("digest"))
            if reference.digest != digest and str(reference) != names.name_of(entry):
                continue
            document = verify.load(self._intact(digest) or b"{}")
            for offered in verify.member(document, "manifests", list, []):
                if platform.items() <= verify.member(offered, "platform", dict, {}).items():
                    digest = str(offered.get("digest"))
                    document = verify.load(self._intact(digest) or b"{}")
                    break
            if "config" not in document:
                continue
            config = verify.manifest(document)["config"]["digest"]
            if data := self._intact(config):
                configuration = verify.configured(verify.load(data))
                if platform.items() <= configuration.items():
                    return known, digest, configuration["rootfs"]["diff_ids"]
        return None

    def _intact(self, digest: str) -> bytes | None:
        """A document that is here; None when it is not, or not as it should be."""
        path = self.blob(digest)
        if not DIGEST.fullmatch(digest) or not path.exists() or path.stat().st_size > verify.MAX_DOCUMENT:
            return None
        data = path.read_bytes()
        return data if f"sha256:{sha256(data).hexdigest()}" == digest else None


def _is_intact(path: Path, digest: str) -> bool:
    """Whether a large blob is here, as it should be: what was lost or damaged since is fetched again."""
    try:
        with path.open("rb") as blob:
            return f"sha256:{file_digest(blob, sha256).hexdigest()}" == digest
    except OSError:
        return False

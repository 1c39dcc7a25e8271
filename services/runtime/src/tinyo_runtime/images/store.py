"""The images of one machine: pulled, looked up, removed."""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import grpc
from tinyo.v1.image_pb2 import PullProgress

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images.image import (
    INDEX_TYPES,
    Configuration,
    Image,
    Malformed,
    Manifest,
    load,
)
from tinyo_runtime.images.layout import Layout, name_of
from tinyo_runtime.images.pull import Puller
from tinyo_runtime.images.reference import DIGEST, Reference

#: Hexadecimal digits of a digest that are enough to mean it.
_MIN_DIGITS = 12


class ImageStore:
    """Images below `root`, with the registries that may be spoken to without TLS."""

    def __init__(self, root: Path, *, insecure: frozenset[str] = frozenset()) -> None:
        self._layout = Layout(root)
        self._puller = Puller(self._layout, insecure)
        self._parsed: dict[str, tuple[Manifest, Configuration]] = {}

    async def close(self) -> None:
        """Ends connections, and waits until what was removed is gone."""
        await self._puller.close()
        self._layout.close()

    async def pull(
        self,
        reference: str,
        platform: str = "",
        *,
        refresh: bool = False,
        progress: Callable[[PullProgress], None] = lambda progress: None,
    ) -> Image:
        """Makes an image present; the registry is asked only when it is not, or with `refresh`.

        Raises TinyoError. Cancelled, it stops; layers that are whole by then stay.
        """
        digest = await self._puller.pull(Reference.parse(reference), platform, refresh, progress)
        return self.get(digest)

    def list(self) -> list[Image]:
        """Every image that is complete, in the order of the first reference."""
        digests = {str(entry.get("digest")) for entry in self._layout.entries()}
        images = [image for digest in digests if (image := self._read(digest))]
        return sorted(images, key=lambda image: (image.references, image.digest))

    def get(self, digest: str) -> Image:
        """By the digest of its manifest. Raises TinyoError IMAGE_NOT_FOUND."""
        if image := self._read(digest):
            return image
        raise _not_found(digest)

    def find(self, reference: str) -> Image | None:
        """By reference, or by digest (at least 12 digits of it). Raises TinyoError IMAGE_REFERENCE_INVALID."""
        for entry in self._find(reference):
            if image := self._read(str(entry.get("digest"))):
                return image
        return None

    def remove(self, reference: str, in_use: Collection[str] = ()) -> Sequence[str]:
        """Forgets a reference, or all that a digest has; what no image needs any more is deleted.

        `in_use` are digests of manifests that containers need. Gives the references that were forgotten.
        Raises TinyoError IMAGE_NOT_FOUND or IMAGE_IN_USE.
        """
        doomed = list(self._find(reference))
        kept = [entry for entry in self._layout.entries() if entry not in doomed]
        if not doomed:
            raise _not_found(reference)
        for digest in {entry.get("digest") for entry in doomed} - {entry.get("digest") for entry in kept}:
            if digest in in_use:
                raise TinyoError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "IMAGE_IN_USE",
                    f"image {reference} is used by a container: remove the container first",
                    {"reference": reference, "digest": str(digest)},
                )
        self._layout.save(kept)
        self._sweep()
        return [name for entry in doomed if (name := name_of(entry))]

    def _find(self, reference: str) -> Iterator[dict[str, object]]:
        """Entries of the index that a reference or a digest means."""
        digits = reference.removeprefix("sha256:")
        by_digest = reference.startswith("sha256:") and len(digits) >= _MIN_DIGITS
        parsed = None if by_digest else Reference.parse(reference)
        for entry in self._layout.entries():
            digest = str(entry.get("digest"))
            if parsed is None:
                if digest.startswith(reference):
                    yield entry
            elif name_of(entry) == str(parsed) or digest == parsed.digest:
                yield entry

    def _read(self, digest: str) -> Image | None:
        """An image, when its documents and all its layers are here."""
        entries = [entry for entry in self._layout.entries() if entry.get("digest") == digest]
        if not entries or not (parts := self._parse(digest)):
            return None
        manifest, configuration = parts
        layers = [self._layout.layer(diff_id) for diff_id in reversed(configuration.diff_ids)]
        if not all(layer.is_dir() for layer in layers):
            return None
        return Image(
            references=tuple(sorted(name for entry in entries if (name := name_of(entry)))),
            digest=digest,
            platform=configuration.platform,
            size=manifest.config.size + sum(layer.size for layer in manifest.layers),
            created=configuration.created,
            layers=tuple(dict.fromkeys(layer.name for layer in layers)),  # overlayfs takes each folder once
            config=configuration.process,
        )

    def _parse(self, digest: str) -> tuple[Manifest, Configuration] | None:
        """The documents of an image, which never change; None when they are not here, or are no image's."""
        if digest not in self._parsed:
            try:
                manifest = Manifest.parse(self._layout.blob(digest).read_bytes())
                document = self._layout.blob(manifest.config.digest).read_bytes()
                self._parsed[digest] = manifest, Configuration.parse(document)
            except (FileNotFoundError, Malformed):
                return None
        return self._parsed[digest]

    def _sweep(self) -> None:
        """Deletes every blob and layer that neither an entry of the index nor a pull under way needs."""
        blobs, layers = set(self._puller.wanted), set(self._puller.wanted)
        for entry in self._layout.entries():
            self._mark(entry, blobs, layers)
        self._layout.sweep(blobs, layers)
        self._parsed = {digest: parts for digest, parts in self._parsed.items() if digest in blobs}

    def _mark(self, entry: dict[str, object], blobs: set[str], layers: set[str]) -> None:
        digest = str(entry.get("digest"))
        if digest in blobs or not DIGEST.fullmatch(digest):
            return
        blobs.add(digest)
        if entry.get("mediaType") in INDEX_TYPES:
            document = load(self._layout.blob(digest).read_bytes())
            for child in document.get("manifests", []):
                self._mark(child, blobs, layers)
        elif parts := self._parse(digest):
            manifest, configuration = parts
            blobs.update({manifest.config.digest, *(layer.digest for layer in manifest.layers)})
            layers.update(configuration.diff_ids)


def _not_found(reference: str) -> TinyoError:
    return TinyoError(
        grpc.StatusCode.NOT_FOUND,
        "IMAGE_NOT_FOUND",
        f"image {reference} is not here: `tinyo image ls` lists what is",
        {"reference": reference},
    )

"""What is on this machine: looked up, listed, removed."""

import logging
import re
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tinyo_runtime import roots
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import catalog, failures, names, platforms, prune, verify
from tinyo_runtime.images.failures import Malformed
from tinyo_runtime.images.image import Document, Image
from tinyo_runtime.images.reference import Reference
from tinyo_runtime.images.trash import Trash

if TYPE_CHECKING:
    import httpx

    from tinyo_runtime.images.store import Images as Base
else:
    Base = object

log = logging.getLogger(__name__)

#: Hexadecimal digits of a digest that are enough to mean it.
_DIGITS = re.compile("[0-9a-f]{12,}")
#: No size is larger (int64), whatever another tool's manifest says.
_MAX_SIZE = 2**63 - 1


class Shelf(Base):
    """The images that are complete, and what is told of them."""

    #: What has a lease (see leases.py) must not be swept.
    wanted: list[str]
    clients: "dict[tuple[str, str], httpx.AsyncClient]"

    def __init__(self) -> None:
        super().__init__()
        self.trash = Trash(self.root / "pulling")
        self._images: dict[str, Image] = {}
        names.begin(self)

    async def close(self) -> None:
        """Ends connections, and waits until what was removed is gone."""
        for client in self.clients.values():
            await client.aclose()
        self.trash.close()

    def get(self, digest: str) -> Image:
        """The same image with all that is told of it, if it is complete. Raises TinyoError IMAGE_NOT_FOUND."""
        entries = [entry for entry in names.entries(self) if entry.get("digest") == digest]
        if entries and (image := self.read_image(digest)):
            references = tuple(sorted(name for entry in entries if (name := names.name_of(entry))))
            if all((self.root / "layers" / layer).is_dir() for layer in image.layers):
                layers = roots.visible(self.root / "layers", image.layers)
                return image._replace(references=references, layers=layers)
        raise failures.not_here(digest)

    def list(self) -> list[Image]:
        """Every image that is complete, in the order of the first reference."""
        digests = {str(entry.get("digest")) for entry in names.entries(self)}
        images = [image for digest in digests if (image := self._complete(digest))]
        return sorted(images, key=lambda image: (image.references, image.digest))

    def find(self, reference: str) -> Image | None:
        """By reference, or by digest (at least 12 digits of it). Raises TinyoError IMAGE_REFERENCE_INVALID."""
        for entry in self.matching(reference):
            if image := self._complete(str(entry.get("digest"))):
                return image
        return None

    def remove(self, reference: str, in_use: Collection[str] = ()) -> Sequence[str]:
        """Forgets a reference, or all that a digest has; what no image needs any more is deleted.

        `in_use` are digests of manifests that containers need. Gives the references that were forgotten.
        Raises TinyoError IMAGE_NOT_FOUND or IMAGE_IN_USE.
        """
        doomed = [*self.matching(reference)]
        kept = [entry for entry in names.entries(self) if entry not in doomed]
        if not doomed:
            raise failures.not_here(reference)
        used = prune.InUse(in_use)
        if lost := used.digests().intersection(self._blobs(doomed) - self._blobs(kept)):
            raise failures.in_use(reference, min(lost))
        names.save(self, kept)
        try:
            self.discard(prune.unneeded(self, kept, doomed, used))
        except TinyoError as error:
            log.warning("what %s needed stays for now: %s", reference, error)
        return [name for entry in doomed if (name := names.name_of(entry))]

    def _blobs(self, entries: Sequence[Document]) -> set[str]:
        """What entries need."""
        return set().union(*(catalog.needs(self, str(entry.get("digest"))).blobs for entry in entries))

    def _complete(self, digest: str) -> Image | None:
        try:
            return self.get(digest)
        except TinyoError:
            return None

    def matching(self, reference: str) -> Iterator[Document]:
        """Entries of the index that a reference or a digest means. Raises TinyoError IMAGE_REFERENCE_INVALID."""
        algorithm, _, digits = reference.partition(":")
        by_digest = algorithm in ("sha256", "sha512") and bool(_DIGITS.fullmatch(digits))
        entries = names.entries(self)
        named = [entry for entry in entries if reference and names.name_of(entry) == reference]
        parsed = None if by_digest or named else Reference.parse(reference)
        for entry in entries:
            digest = str(entry.get("digest"))
            if by_digest:
                known_as = (digest, catalog.manifest_of(self, digest), names.name_of(entry).partition("@")[2])
                means = any(one.startswith(reference) for one in known_as)
            else:  # another tool may give names that are not complete
                means = entry in named
            if parsed:
                means = names.name_of(entry) == str(parsed) or digest == parsed.digest
            if means:
                yield entry

    def read_image(self, digest: str) -> Image | None:
        """What the documents of an image say, which never change; None when they are not here, or are no image's."""
        if digest not in self._images:
            try:
                manifest, configuration = self.documents(digest)
            except (FileNotFoundError, Malformed):
                return None
            image = super().get(digest)
            self._images[digest] = image._replace(
                layers=tuple(dict.fromkeys(image.layers)),  # overlayfs takes each folder once
                platform=platforms.name(configuration),
                size=min(sum(part["size"] for part in (manifest["config"], *manifest["layers"])), _MAX_SIZE),
                created=_time(configuration.get("created") or ""),
            )
        return self._images[digest]

    def documents(self, digest: str) -> tuple[Document, Document]:
        """Manifest and configuration. Raises FileNotFoundError and Malformed."""
        manifest = verify.manifest(catalog.load(self, digest))
        return manifest, verify.configured(catalog.load(self, manifest["config"]["digest"]))

    def discard(self, paths: Collection[Path]) -> None:
        """Takes blobs and folders of layers away; their bytes are free a little later."""
        if paths:
            self.trash.discard(*paths)
        self._images = {digest: image for digest, image in self._images.items() if self.blob(digest).exists()}


def _time(text: str) -> int:
    """Seconds since 1970 of an RFC 3339 time; 0 for anything else, because nothing depends on it."""
    try:
        return max(0, int(datetime.fromisoformat(text).timestamp()))
    except (ValueError, OverflowError):
        return 0

"""What is on this machine: looked up, listed, removed."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import failures, names, platforms, verify
from tinyo_runtime.images.failures import Malformed
from tinyo_runtime.images.grammar import DIGEST
from tinyo_runtime.images.image import Document, Image
from tinyo_runtime.images.reference import Reference
from tinyo_runtime.images.trash import Trash

if TYPE_CHECKING:
    import httpx

    from tinyo_runtime.images.store import Images as Base
else:
    Base = object

#: Hexadecimal digits of a digest that are enough to mean it.
_MIN_DIGITS = 12


class Shelf(Base):
    """The images that are complete, and what is told of them."""

    #: Digests and diff IDs that pulls under way rely on; they must not be swept.
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
        if entries and (image := self._read(digest)):
            references = tuple(sorted(name for entry in entries if (name := names.name_of(entry))))
            if all((self.root / "layers" / layer).is_dir() for layer in image.layers):
                return image._replace(references=references)
        raise failures.not_here(digest)

    def list(self) -> list[Image]:
        """Every image that is complete, in the order of the first reference."""
        digests = {str(entry.get("digest")) for entry in names.entries(self)}
        images = [image for digest in digests if (image := self._complete(digest))]
        return sorted(images, key=lambda image: (image.references, image.digest))

    def find(self, reference: str) -> Image | None:
        """By reference, or by digest (at least 12 digits of it). Raises TinyoError IMAGE_REFERENCE_INVALID."""
        for entry in self._find(reference):
            if image := self._complete(str(entry.get("digest"))):
                return image
        return None

    def remove(self, reference: str, in_use: Collection[str] = ()) -> Sequence[str]:
        """Forgets a reference, or all that a digest has; what no image needs any more is deleted.

        `in_use` are digests of manifests that containers need. Gives the references that were forgotten.
        Raises TinyoError IMAGE_NOT_FOUND or IMAGE_IN_USE.
        """
        doomed = [*self._find(reference)]
        kept = [entry for entry in names.entries(self) if entry not in doomed]
        if not doomed:
            raise failures.not_here(reference)
        for digest in {entry.get("digest") for entry in doomed} - {entry.get("digest") for entry in kept}:
            if digest in in_use:
                raise failures.in_use(reference, str(digest))
        names.save(self, kept)
        self._sweep()
        return [name for entry in doomed if (name := names.name_of(entry))]

    def _complete(self, digest: str) -> Image | None:
        try:
            return self.get(digest)
        except TinyoError:
            return None

    def _find(self, reference: str) -> Iterator[Document]:
        """Entries of the index that a reference or a digest means."""
        digits = reference.removeprefix("sha256:")
        by_digest = reference.startswith("sha256:") and len(digits) >= _MIN_DIGITS
        parsed = None if by_digest else Reference.parse(reference)
        for entry in names.entries(self):
            digest = str(entry.get("digest"))
            if parsed is None:
                if digest.startswith(reference):
                    yield entry
            elif names.name_of(entry) == str(parsed) or digest == parsed.digest:
                yield entry

    def _read(self, digest: str) -> Image | None:
        """What the documents of an image say, which never change; None when they are not here, or are no image's."""
        if digest not in self._images:
            try:
                manifest, configuration = self._documents(digest)
            except (FileNotFoundError, Malformed):
                return None
            image = super().get(digest)
            self._images[digest] = image._replace(
                layers=tuple(dict.fromkeys(image.layers)),  # overlayfs takes each folder once
                platform=platforms.name(configuration),
                size=sum(part["size"] for part in (manifest["config"], *manifest["layers"])),
                created=_time(configuration.get("created") or ""),
            )
        return self._images[digest]

    def _documents(self, digest: str) -> tuple[Document, Document]:
        """Manifest and configuration. Raises FileNotFoundError and Malformed."""
        if not DIGEST.fullmatch(digest):
            raise Malformed(f"{digest[:80]!r} is not a digest")
        manifest = verify.manifest(verify.load(self.blob(digest).read_bytes()))
        data = self.blob(manifest["config"]["digest"]).read_bytes()
        return manifest, verify.configured(verify.load(data))

    def _sweep(self) -> None:
        """Takes away every blob and layer that neither an entry of the index nor a pull under way needs."""
        needed = set(self.wanted)
        for entry in names.entries(self):
            self._mark(entry, needed)
        blobs = {self.blob(digest) for digest in needed}
        folders = {self.folder(diff_id) for diff_id in needed}
        if doomed := set((self.root / "layers").iterdir()) - folders:
            self.trash.discard(*doomed)
        for blob in set((self.root / "images/blobs/sha256").iterdir()) - blobs:
            blob.unlink()
        self._images = {digest: image for digest, image in self._images.items() if digest in needed}

    def _mark(self, entry: Document, needed: set[str]) -> None:
        """Adds all digests and diff IDs that an entry needs."""
        digest = str(entry.get("digest"))
        if digest in needed or not DIGEST.fullmatch(digest):
            return
        needed.add(digest)
        try:
            document = verify.load(self.blob(digest).read_bytes())
            if "manifests" in document:
                for child in document["manifests"]:
                    self._mark(child, needed)
                return
            manifest, configuration = self._documents(digest)
        except (FileNotFoundError, Malformed):
            return
        needed.update(part["digest"] for part in (manifest["config"], *manifest["layers"]))
        needed.update(configuration["rootfs"]["diff_ids"])


def _time(text: str) -> int:
    """Seconds since 1970 of an RFC 3339 time; 0 for anything else, because nothing depends on it."""
    try:
        return max(0, int(datetime.fromisoformat(text).timestamp()))
    except (ValueError, OverflowError):
        return 0

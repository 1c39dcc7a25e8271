"""What belongs to an image that is pushed: a manifest, or an index with all that it offers, exactly as it is here."""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import catalog, digests, failures, kinds, names, rejections, verify
from tinyo_runtime.images.documents import member
from tinyo_runtime.images.failures import Malformed
from tinyo_runtime.images.grammar import DIGEST
from tinyo_runtime.images.image import Document
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    from tinyo_runtime.images.shelf import Shelf

#: Manifests and indexes of one push, their bytes, and blobs.
MAX_DOCUMENTS, MAX_BYTES, MAX_BLOBS = 500, 64 << 20, 10_000
#: Repositories from which blobs may be mounted.
MAX_SOURCES = 5
#: What the shortest digest looks like that means an image; see `shelf`.
_BY_DIGEST = re.compile(r"sha(256|512):[0-9a-f]{12,}")
#: Layers that registries do not keep ("foreign" is Docker's word).
_ELSEWHERE = re.compile(r"nondistributable|\.foreign\.")


class Blob(NamedTuple):
    """A configuration or a layer."""

    digest: str
    size: int
    #: "configuration" or "layer".
    kind: str


@dataclass
class Cargo:
    """All that has to be in the repository."""

    #: Media type and bytes of each manifest and index by its digest; what another one needs stands before that.
    documents: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    #: By digest.
    blobs: dict[str, Blob] = field(default_factory=dict)
    #: Other repositories of the registry that should have some of the blobs; those that have the most first.
    sources: dict[str, set[str]] = field(default_factory=dict)


def find(images: "Shelf", reference: str, to: str) -> tuple[str, Reference]:
    """The digest of what a reference or a digest means here, and where it goes: to that reference itself unless
    `to` says another. Raises IMAGE_NOT_FOUND and IMAGE_REFERENCE_INVALID."""
    entry = next(images.matching(reference), None)
    if entry is None:
        raise failures.not_here(reference)
    digest = str(entry.get("digest"))
    if _BY_DIGEST.match(reference):
        digest = digest if digest.startswith(reference) else catalog.manifest_of(images, digest)
        if not to:
            raise rejections.nowhere(reference)
    target = Reference.parse(to or reference)
    if target.digest not in ("", digest):
        raise failures.no_name(to or reference)
    if not to and not target.digest and str(target) != names.name_of(entry):
        raise rejections.nowhere(reference)  # another tool's name, which does not say where
    return digest, target


def load(images: "Shelf", reference: str, digest: str, target: Reference) -> Cargo:
    """Everything that a manifest or an index needs, and who else in that registry should have some of it.

    Raises IMAGE_CORRUPT unless all of it is here, IMAGE_UNSUPPORTED when a part may not be given to others.
    """
    cargo = Cargo()
    try:
        _Loader(images, reference, cargo).document(digest, "")
    except Malformed as error:
        raise rejections.unfit(reference, str(error)) from None
    cargo.sources = _sources(images, target, set(cargo.blobs))
    return cargo


class _Loader:
    """Follows documents."""

    def __init__(self, images: "Shelf", reference: str, cargo: Cargo) -> None:
        self.images, self.reference, self.cargo = images, reference, cargo
        self._seen: set[str] = set()
        self._bytes = 0

    def document(self, digest: str, media_type: str) -> None:
        """One document, after all that it needs. Raises Malformed and TinyoError."""
        if digest in self._seen:
            return
        self._seen.add(digest)
        data = self._read(digest)
        self._bytes += len(data)
        self._check()
        document = verify.load(data)
        if "manifests" in document:
            self._index(member(document, "manifests", list))
            usual = kinds.INDEX
        else:
            manifest = verify.manifest(document)
            for kind, parts in ("configuration", [manifest["config"]]), ("layer", manifest["layers"]):
                for part in parts:
                    self._blob(kind, part)
            usual = kinds.MANIFEST
        media_type = member(document, "mediaType", str, "") or media_type or usual
        if not re.fullmatch(r"[A-Za-z0-9!#$&^_.+/-]{1,255}", media_type):
            raise Malformed(f"the manifest {digest} has a media type that is none")
        self.cargo.documents[digest] = media_type, data

    def _index(self, offered: list[Document]) -> None:
        children = [(member(child, "digest", str), member(child, "mediaType", str, "")) for child in offered]
        missing = [digest for digest, _ in children if DIGEST.fullmatch(digest) and not self._has(digest)]
        if missing:
            raise rejections.partial(self.reference, len(children), len(missing))
        for child in children:
            self.document(*child)

    def _blob(self, kind: str, part: Document) -> None:
        digest, size = part["digest"], part["size"]
        if _ELSEWHERE.search(part["mediaType"]):
            raise rejections.not_ours(self.reference, part["mediaType"])
        if not self._has(digest):
            raise rejections.damaged(self.reference, kind, digest, "is missing")
        self.cargo.blobs.setdefault(digest, Blob(digest, size, kind))
        self._check()

    def _check(self) -> None:
        if len(self._seen) > MAX_DOCUMENTS or self._bytes > MAX_BYTES or len(self.cargo.blobs) > MAX_BLOBS:
            limits = f"{MAX_DOCUMENTS} manifests of {MAX_BYTES} bytes, or {MAX_BLOBS} blobs"
            raise Malformed(f"it has more than {limits}")

    def _has(self, digest: str) -> bool:
        return self.images.blob(digest).is_file()

    def _read(self, digest: str) -> bytes:
        """A document that is what its digest says."""
        if not DIGEST.fullmatch(digest):
            raise Malformed(f"{digest[:80]!r} is not a digest")
        path = self.images.blob(digest)
        if not self._has(digest) or path.stat().st_size > verify.MAX_DOCUMENT:
            what = f"is larger than {verify.MAX_DOCUMENT} bytes" if self._has(digest) else "is missing"
            raise rejections.damaged(self.reference, "manifest", digest, what)
        data = path.read_bytes()
        if (actual := digests.of(data, digest)) != digest:
            what = f"is corrupt: its {len(data)} bytes have the digest {actual}"
            raise rejections.damaged(self.reference, "manifest", digest, what)
        return data


def _sources(images: "Shelf", target: Reference, blobs: set[str]) -> dict[str, set[str]]:
    """Other repositories of a registry that should have blobs, going by the names that images have here."""
    found: dict[str, set[str]] = {}
    for entry in names.entries(images):
        try:
            name = Reference.parse(names.name_of(entry))
        except TinyoError:  # it has none, or one that is another tool's
            continue
        if name.registry == target.registry and name.repository != target.repository:
            shared = catalog.needs(images, str(entry.get("digest"))).blobs & blobs
            found[name.repository] = found.get(name.repository, set()) | shared
    best = sorted(filter(found.get, found), key=lambda repository: (-len(found[repository]), repository))
    return {repository: found[repository] for repository in best[:MAX_SOURCES]}

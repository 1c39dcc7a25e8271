"""Images as one archive for others: an OCI layout in a tar, and at the same time what `docker load` takes.

Every blob is opened before the first byte is sent, so that what is exported is what was here at that moment,
whatever is removed meanwhile; each is verified on its way. Equal images give equal bytes.
"""

import asyncio
import json
import os
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, NamedTuple

import grpc

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import catalog, digests, kinds, names, platforms
from tinyo_runtime.images.image import Document, Image
from tinyo_runtime.images.offers import NAMES

if TYPE_CHECKING:
    from tinyo_runtime.images.shelf import Shelf

_CHUNK = 1 << 20
#: A tar ends with zeros, and is a multiple of this.
_RECORD = 10240


class Blob(NamedTuple):
    """One that is open."""

    digest: str
    size: int
    file: IO[bytes]


class Export(NamedTuple):
    """An archive that can be read once."""

    #: Each with the references that it has there.
    images: list[Image]
    #: Documents and blobs, in order.
    members: list[tuple[str, bytes | Blob]]
    #: Closes its blobs, when nobody reads it any more.
    close: Callable[[], None]

    @property
    def size(self) -> int:
        """Bytes of the archive."""
        size = sum(
            tarfile.BLOCKSIZE + _length(content) + -_length(content) % tarfile.BLOCKSIZE
            for _, content in self.members
        )
        return size + 2 * tarfile.BLOCKSIZE + -(size + 2 * tarfile.BLOCKSIZE) % _RECORD

    async def chunks(self) -> AsyncIterator[bytes]:
        """The archive. Raises IMAGE_CORRUPT when a blob turns out to be another."""
        sent = 0
        for name, content in self.members:
            yield _header(name, _length(content))
            if isinstance(content, bytes):
                yield content
            else:
                actual = digests.Digest(content.digest)
                while piece := await asyncio.to_thread(_read, content.file, actual):
                    yield piece
                if content.file.tell() != content.size or str(actual) != content.digest:
                    raise _corrupt(content.digest)
            yield bytes(-_length(content) % tarfile.BLOCKSIZE)
            sent += tarfile.BLOCKSIZE + _length(content) + -_length(content) % tarfile.BLOCKSIZE
        yield bytes(self.size - sent)


@contextmanager
def opened(images: "Shelf", references: Sequence[str]) -> Iterator[Export]:
    """The archive of these images. Raises IMAGE_NOT_FOUND and IMAGE_CORRUPT, before anything is sent."""
    if not references:
        message = "say which images to export"
        raise TinyoError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", message, field="references")
    chosen = _chosen(images, references)
    blobs: dict[str, Blob] = {}
    entries: list[Document] = []
    saved: list[Document] = []
    with ExitStack() as files:
        for image in chosen:
            manifest, configuration = images.documents(image.digest)
            size = images.blob(image.digest).stat().st_size
            for part in ({"digest": image.digest, "size": size}, manifest["config"], *manifest["layers"]):
                if part["digest"] not in blobs:
                    blobs[part["digest"]] = _open(images, files, part["digest"], part["size"])
            entries += _entries(image, size, manifest, configuration)
            saved.append(
                {
                    "Config": _place(manifest["config"]["digest"]),
                    "RepoTags": image.references or None,
                    "Layers": [_place(layer["digest"]) for layer in manifest["layers"]],
                }
            )
        documents: dict[str, object] = {
            "oci-layout": {"imageLayoutVersion": "1.0.0"},
            "index.json": {"schemaVersion": 2, "mediaType": kinds.INDEX, "manifests": entries},
            "manifest.json": saved,
        }
        folders = {"blobs/", *(f"blobs/{digest.partition(':')[0]}/" for digest in blobs)}
        yield Export(
            chosen,
            [
                *((name, json.dumps(document).encode()) for name, document in documents.items()),
                *((folder, b"") for folder in sorted(folders)),
                *((_place(digest), blobs[digest]) for digest in sorted(blobs)),
            ],
            files.close,
        )


def _chosen(images: "Shelf", references: Sequence[str]) -> list[Image]:
    """The images, in an order that does not depend on that of the references; with the names that are meant."""
    chosen: dict[str, Image] = {}
    for reference in references:
        image = catalog.find(images, reference).image
        known_as = {name for entry in images.matching(reference) if (name := names.name_of(entry))}
        if image.digest in chosen:
            known_as.update(chosen[image.digest].references)
        chosen[image.digest] = image._replace(references=tuple(sorted(known_as)))
    return sorted(chosen.values(), key=lambda image: (image.references, image.digest))


def _entries(image: Image, size: int, manifest: Document, configuration: Document) -> list[Document]:
    """What index.json says of an image: once for each name, or once without one."""
    entry = {
        "mediaType": manifest.get("mediaType") or kinds.MANIFEST,
        "digest": image.digest,
        "size": size,
        "platform": platforms.said(configuration),
    }
    return [entry | {"annotations": dict.fromkeys(NAMES, name)} for name in image.references] or [entry]


def _open(images: "Shelf", files: ExitStack, digest: str, size: int) -> Blob:
    try:
        file = files.enter_context(images.blob(digest).open("rb"))
    except FileNotFoundError:
        raise _corrupt(digest) from None
    if os.fstat(file.fileno()).st_size != size:
        raise _corrupt(digest)
    return Blob(digest, size, file)


def _read(file: IO[bytes], digest: digests.Digest) -> bytes:
    piece = file.read(_CHUNK)
    digest.update(piece)
    return piece


def _place(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _length(content: bytes | Blob) -> int:
    return content.size if isinstance(content, Blob) else len(content)


def _header(name: str, size: int) -> bytes:
    """The same for everybody: no owner and no time of anything that is here."""
    member = tarfile.TarInfo(name.rstrip("/"))
    member.size = size
    member.mode = 0o644
    if name.endswith("/"):
        member.type, member.mode = tarfile.DIRTYPE, 0o755
    return member.tobuf(tarfile.GNU_FORMAT)


def _corrupt(digest: str) -> TinyoError:
    """IMAGE_CORRUPT."""
    message = (
        f"an image cannot be exported, because its blob {digest} is missing or damaged: `tinyo image verify` says "
        "which, and `tinyo image pull` fetches it again"
    )
    return TinyoError(grpc.StatusCode.DATA_LOSS, "IMAGE_CORRUPT", message, {"expected": digest})

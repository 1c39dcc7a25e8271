"""Images as one archive for others: an OCI layout in a tar, and at the same time what `docker load` takes.

Every blob is opened before the first byte is sent, so that what is exported is what was here at that moment,
whatever is removed meanwhile; each is verified on its way. Equal images give equal bytes.
"""

import asyncio
import hashlib
import json
import os
import tarfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import grpc

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import catalog, names
from tinyo_runtime.images.image import Image
from tinyo_runtime.images.offers import MANIFEST, NAMES

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
                actual = hashlib.new(content.digest.partition(":")[0])
                while piece := await asyncio.to_thread(_read, content.file, actual):
                    yield piece
                if content.file.tell() != content.size or actual.hexdigest() not in content.digest:
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
    chosen: dict[str, set[str]] = {}
    for reference in references:
        known_as = {name for entry in images.matching(reference) if (name := names.name_of(entry))}
        chosen.setdefault(catalog.find(images, reference).image.digest, set()).update(known_as)
    with ExitStack() as files:
        blobs: dict[str, Blob] = {}
        entries: list[dict[str, Any]] = []
        saved: list[dict[str, Any]] = []
        order = sorted((sorted(known_as), digest) for digest, known_as in chosen.items())
        for called, digest in order:
            manifest, configuration = images.documents(digest)
            size = images.blob(digest).stat().st_size
            parts = [{"digest": digest, "size": size}, manifest["config"], *manifest["layers"]]
            for part in parts:
                if part["digest"] not in blobs:
                    blobs[part["digest"]] = _open(images, files, part["digest"], part["size"])
            entry = {
                "mediaType": manifest.get("mediaType") or MANIFEST,
                "digest": digest,
                "size": size,
                "platform": {
                    key: configuration[key]
                    for key in ("os", "architecture", "variant")
                    if configuration.get(key)
                },
            }
            entries += [entry | {"annotations": dict.fromkeys(NAMES, name)} for name in called] or [entry]
            saved.append(
                {
                    "Config": _place(manifest["config"]["digest"]),
                    "RepoTags": called or None,
                    "Layers": [_place(layer["digest"]) for layer in manifest["layers"]],
                }
            )
        documents: dict[str, object] = {
            "oci-layout": {"imageLayoutVersion": "1.0.0"},
            "index.json": {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": entries,
            },
            "manifest.json": saved,
        }
        members: list[tuple[str, bytes | Blob]] = [
            (name, json.dumps(document).encode()) for name, document in documents.items()
        ]
        folders = {"blobs/", *(f"blobs/{digest.partition(':')[0]}/" for digest in blobs)}
        members += [(folder, b"") for folder in sorted(folders)]
        members += [(_place(digest), blobs[digest]) for digest in sorted(blobs)]
        held = [images.read_image(digest) for _, digest in order]
        yield Export(
            [
                image._replace(references=tuple(called))
                for image, (called, _) in zip(held, order, strict=True)
                if image
            ],
            members,
        )


def _open(images: "Shelf", files: ExitStack, digest: str, size: int) -> Blob:
    try:
        file = files.enter_context(images.blob(digest).open("rb"))
    except FileNotFoundError:
        raise _corrupt(digest) from None
    if os.fstat(file.fileno()).st_size != size:
        raise _corrupt(digest)
    return Blob(digest, size, file)


def _read(file: IO[bytes], digest: "hashlib._Hash") -> bytes:
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

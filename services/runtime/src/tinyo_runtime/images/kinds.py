"""What media types say: what can be used of an image, and why the rest cannot."""

import re
from typing import TYPE_CHECKING

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import failures
from tinyo_runtime.images.failures import Malformed
from tinyo_runtime.images.image import Document

if TYPE_CHECKING:
    from tinyo_runtime.images.reference import Reference

#: Those of OCI: what is written here. A layer may have its compression behind, as in "…tar+gzip".
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
#: And those that Docker had before.
INDEX_TYPES = (
    INDEX,
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    MANIFEST,
    "application/vnd.docker.distribution.manifest.v2+json",
)
CONFIG_TYPES = (
    CONFIG,
    "application/vnd.docker.container.image.v1+json",
)
_LAYER = re.compile(
    r"application/vnd\.(oci\.image\.layer\.v1\.tar(\+gzip|\+zstd)?"
    r"|docker\.image\.rootfs\.diff\.tar(\.gzip|\.zstd)?)"
)
_FOREIGN = re.compile(
    r"application/vnd\.(oci\.image\.layer\.nondistributable\.v1|docker\.image\.rootfs\.foreign\.diff)\.tar.*"
)
#: How what is compressed begins.
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"


def compression(start: bytes) -> str:
    """How something is compressed that begins so; "" when it is not."""
    return next((name for magic, name in _COMPRESSIONS.items() if start.startswith(magic)), "")


def check_document(reference: "Reference", media_type: str) -> None:
    """Raises TinyoError unless it is one of a manifest or an index."""
    if media_type.startswith(_SCHEMA_1):
        raise schema_1(reference)
    if media_type not in INDEX_TYPES + MANIFEST_TYPES:
        raise failures.unsupported(reference, media_type)


def check_content(reference: "Reference", document: Document, answered: str) -> None:
    """What a document holds must be what it, and the registry's answer if there was one, call it (CVE-2021-41190).

    Raises TinyoError and Malformed.
    """
    if document.get("schemaVersion") == 1:
        raise schema_1(reference)
    is_index = "manifests" in document
    if is_index and not {"config", "layers"}.isdisjoint(document):
        raise Malformed("it is a manifest and an index at the same time")
    for said in (document.get("mediaType"), answered):
        if said and said not in (INDEX_TYPES if is_index else MANIFEST_TYPES):
            raise Malformed(
                f"it is {'an index' if is_index else 'a manifest'}, but is said to be {str(said)[:100]!r}"
            )


def check_config(reference: "Reference", media_type: str) -> None:
    """Raises TinyoError unless it is that of an image."""
    if media_type not in CONFIG_TYPES:
        why = "it is an artifact, and no image from which a container could be made"
        raise failures.unsupported(reference, media_type, why)


def check_layer(reference: "Reference", media_type: str) -> None:
    """Raises TinyoError unless it is one that can be unpacked."""
    if _FOREIGN.fullmatch(media_type):
        why = "such a layer is not distributed with its image, but by its maker (foreign, non-distributable)"
        raise failures.unsupported(reference, media_type, why)
    if media_type.endswith("+encrypted"):
        raise failures.unsupported(reference, media_type, "the layer is encrypted")
    if not _LAYER.fullmatch(media_type):
        raise failures.unsupported(reference, media_type, "no such layers are known here")


def schema_1(reference: "Reference") -> TinyoError:
    """IMAGE_UNSUPPORTED: a manifest as it was before 2016."""
    why = "image manifest schema 1 has no verifiable layers and is out of use: push the image again with a newer tool"
    return failures.unsupported(reference, f"{_SCHEMA_1}+json", why)

"""index.json: which names images have, so that other tools find them, and images that others put there are found."""

import json
import time
from typing import TYPE_CHECKING, Any

from tinyo_runtime.images import kinds, order, platforms
from tinyo_runtime.images.failures import Malformed
from tinyo_runtime.images.image import Document
from tinyo_runtime.images.reference import Reference
from tinyo_runtime.images.verify import load

if TYPE_CHECKING:
    from tinyo_runtime.images.store import Images

REF_NAME = "org.opencontainers.image.ref.name"
#: Ours: the layers were unpacked when the image got its name.
UNPACKED = "tinyo.unpacked"
#: Ours: the digest that the registry has under the name, where it is that of an index.
RESOLVED = "tinyo.resolved"
#: How often, and how many seconds apart, index.json is read again while somebody else writes it.
ATTEMPTS, PAUSE = 20, 0.005


def name_of(entry: Document) -> str:
    """The reference that an entry has, or nothing."""
    annotations = entry.get("annotations")
    name = str(annotations.get(REF_NAME, "")) if isinstance(annotations, dict) else ""
    return name.encode(errors="backslashreplace").decode()  # JSON may hold half of a surrogate pair


def is_ours(entry: Document) -> bool:
    """Whether the layers of an image must be here, unpacked."""
    annotations = entry.get("annotations")
    return isinstance(annotations, dict) and UNPACKED in annotations


def resolved_of(entry: Document) -> str:
    """The digest that the registry had under the name of an entry."""
    annotations = entry.get("annotations")
    found = annotations.get(RESOLVED) if isinstance(annotations, dict) else None
    return str(found or entry.get("digest"))


def entries(images: "Images") -> list[Document]:
    """The descriptors of index.json, each of which may have a reference. Raises Malformed.

    skopeo empties the file before it writes it: what cannot be read now may be whole in a moment.
    """
    path = images.root / "images/index.json"
    for last in (False,) * ATTEMPTS + (True,):
        try:
            manifests = load(path.read_bytes()).get("manifests")
            break
        except Malformed:
            if last:
                raise
            time.sleep(PAUSE)
    if not isinstance(manifests, list) or not all(isinstance(entry, dict) for entry in manifests):
        raise Malformed(f"{path} has no list of manifests")
    return manifests


def save(images: "Images", entries: list[Document]) -> None:
    """Replaces index.json."""
    index = {
        "schemaVersion": 2,
        "mediaType": kinds.INDEX,
        "manifests": entries,
    }
    images.write(images.root / "images/index.json", json.dumps(index, indent=1).encode())


def begin(images: "Images") -> None:
    """Makes the layout, when it is not there."""
    (images.root / "images/blobs/sha512").mkdir(0o700, exist_ok=True)
    if not (images.root / "images/index.json").exists():
        images.write(images.root / "images/oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        save(images, [])


def tag(images: "Images", reference: Reference, digest: str) -> None:
    """Gives a name to a manifest; the one that had it stays, nameless if that was its only name."""
    name, known_as = str(reference), entries(images)
    entry = _entry(images, digest)
    entry["annotations"] |= {REF_NAME: name}
    if entry in known_as:
        return
    taken = [old for old in known_as if name_of(old) == name]
    others = [old for old in known_as if old not in taken and (name_of(old) or old.get("digest") != digest)]
    known = {digest, *(old.get("digest") for old in others)}
    nameless = [_nameless(old) for old in taken if old.get("digest") not in known]
    save(images, [*others, *nameless, entry])


def _nameless(entry: Document) -> Document:
    """An entry without its name."""
    annotations = {
        key: value for key, value in entry["annotations"].items() if key not in (REF_NAME, RESOLVED)
    }
    return entry | {"annotations": annotations}


def _entry(images: "Images", digest: str) -> dict[str, Any]:
    """The descriptor of a manifest that is here."""
    data = images.blob(digest).read_bytes()
    manifest = load(data)
    configuration = load(images.blob(manifest["config"]["digest"]).read_bytes())
    diff_ids = configuration["rootfs"]["diff_ids"]
    annotations = {}
    if all(images.folder(diff_id).is_dir() for diff_id in diff_ids):
        annotations[UNPACKED] = "true"
    if (resolved := order.resolved()) not in ("", digest):
        annotations[RESOLVED] = resolved
    return {
        "mediaType": manifest.get("mediaType") or kinds.MANIFEST,
        "digest": digest,
        "size": len(data),
        "platform": order.variant() | platforms.said(configuration),
        "annotations": annotations,
    }

"""What an archive offers, whoever wrote it: an OCI layout, what docker saved, or a root file system.

The kind is found from what is in it. Whatever it is, it becomes offers: names, and the digest of a manifest or
index whose blobs are in the archive.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from tinyo_runtime.images import choice, digests, instructions, kinds, platforms, verify
from tinyo_runtime.images.archive import Archive, Member, shown, unusable
from tinyo_runtime.images.documents import member
from tinyo_runtime.images.failures import Malformed
from tinyo_runtime.images.grammar import DIGEST
from tinyo_runtime.images.image import Document

#: Images in one archive, and names of all of them.
MAX_IMAGES, MAX_NAMES = 500, 1000
#: Annotations that name an image; the first counts more, because it is always complete.
NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class Offer(NamedTuple):
    """An image of an archive."""

    archive: Archive
    #: As the archive writes them.
    names: tuple[str, ...]
    #: Of its manifest, or of an index.
    digest: str
    #: What else it may be asked for by: digest of its configuration, which docker calls an image's ID.
    id: str = ""


def of(archive: Archive, platform: Document) -> list[Offer]:
    """Every image that the archive offers; none when it is a root file system. Raises TinyoError."""
    if not archive.entries:
        raise unusable("nothing is in it")
    name = "index.json" if "oci-layout" in archive.members else "manifest.json"
    try:
        if name == "index.json":
            found = [*_layout(archive, platform)]
        elif name in archive.members and _is_dockers(archive.document(name)):
            found = [*_saved(archive)]
        else:
            _is_below(archive)
            return []
    except Malformed as error:
        raise unusable(f"{name!r}: {error}") from None
    if not found:
        raise unusable("no image is in it")
    if (count := sum(len(offer.names) for offer in found)) > MAX_NAMES:
        raise unusable(f"{count} names of images are more than {MAX_NAMES}")
    return found


def _is_below(archive: Archive) -> None:
    """Raises TinyoError when a layout was packed with the folder that it is in: nobody has a root file system like that."""
    folders = {name.partition("/")[0] for name in archive.members}
    if len(folders) == 1 and f"{(folder := folders.pop())}/oci-layout" in archive.members:
        raise unusable(
            f"the layout is in its folder {shown(folder)}: pack what is in that (tar -C FOLDER -c .)"
        )


def root_file_system(archive: Archive, name: str, platform: Document, changes: list[str]) -> Offer:
    """The archive as the one layer of an image. Raises TinyoError."""
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    layer = archive.digest(None)
    archive.placed[layer] = None
    made: list[Document] = [
        {"created": created, "created_by": "tinyo image import", "comment": "a root file system"}
    ]
    made += [{"created": created, "created_by": change, "empty_layer": True} for change in changes]
    configuration = {
        **platform,
        "created": created,
        "config": instructions.applied({}, changes),
        "rootfs": {"type": "layers", "diff_ids": [layer]},
        "history": made,
    }
    data = json.dumps(configuration).encode()
    return _assembled(archive, (name,), data, [(layer, archive.size, kinds.LAYER)])


def _layout(archive: Archive, platform: Document) -> Iterator[Offer]:
    """Images of an OCI layout (OCI image specification, image-layout.md)."""
    _check(archive)
    groups: dict[tuple[str, ...], list[Document]] = {}
    entries = member(archive.document("index.json"), "manifests", list)
    if len(entries) > MAX_IMAGES:
        raise unusable(f"{len(entries)} images are more than {MAX_IMAGES}")
    for entry in entries:
        digest = member(entry, "digest", str)
        if not DIGEST.fullmatch(digest):
            raise Malformed(f"{digest[:80]!r} is no digest")
        if "unknown" not in platforms.name(_platform(entry)):
            groups.setdefault(_names(entry), []).append(entry)
    for names, same in groups.items():
        best = choice.best(same, platform)
        fitting = [best] if best else same
        for entry in fitting[:1] if names else fitting:  # one name can mean one image
            yield Offer(archive, names, entry["digest"])


def _names(entry: Document) -> tuple[str, ...]:
    annotations = member(entry, "annotations", dict, {})
    return tuple([member(annotations, key, str) for key in NAMES if annotations.get(key)][:1])


def _platform(entry: Document) -> Document:
    platform: Document = member(entry, "platform", dict, {})
    return {key: member(platform, key, str) for key in platform if key in platforms.Platform._fields}


def _is_dockers(document: Any) -> bool:
    """Whether that is the manifest.json of docker: a root file system may have a file of this name, too."""
    return isinstance(document, list) and all(isinstance(one, dict) and "Layers" in one for one in document)


def _saved(archive: Archive) -> Iterator[Offer]:
    """Images that docker saved (moby, image/spec): a configuration and uncompressed layers each."""
    _check(archive)
    entries = archive.document("manifest.json")
    if len(entries) > MAX_IMAGES:
        raise unusable(f"{len(entries)} images are more than {MAX_IMAGES}")
    for entry in entries:
        name = member(entry, "Config", str)
        configuration = archive.document(name)
        try:
            diff_ids = verify.configured(configuration)["rootfs"]["diff_ids"]
        except Malformed as error:
            raise unusable(f"{shown(name)}: {error}") from None
        members = [archive.member(one) for one in _texts(entry, "Layers")]
        if len(members) != len(diff_ids):
            raise unusable(f"{shown(name)} has {len(diff_ids)} diff IDs for {len(members)} layers")
        layers = [_layer(archive, member, diff_id) for member, diff_id in zip(members, diff_ids, strict=True)]
        data = b"".join(archive.pieces(archive.member(name)))
        yield _assembled(archive, tuple(_texts(entry, "RepoTags")), data, layers)


def _texts(document: Document, key: str) -> list[str]:
    values: list[str] = member(document, key, list, [])
    if not all(isinstance(value, str) for value in values):
        raise Malformed(f"{key!r} is not a list of texts")
    return values


def _layer(archive: Archive, member: Member, diff_id: str) -> tuple[str, int, str]:
    """Digest, size and type of a layer; one that is not compressed is named by its diff ID."""
    start = next(archive.pieces(member._replace(size=min(member.size, 4))), b"")
    packed = kinds.compression(start)
    digest = archive.digest(member) if packed else diff_id
    archive.placed[digest] = member
    return digest, member.size, f"{kinds.LAYER}+{packed}" if packed else kinds.LAYER


def _assembled(
    archive: Archive, names: tuple[str, ...], configuration: bytes, layers: list[tuple[str, int, str]]
) -> Offer:
    """An image of parts that nobody wrote a manifest for."""
    parts = [(_placed(archive, configuration), len(configuration), kinds.CONFIG), *layers]
    config, *rest = [
        {"mediaType": media_type, "digest": digest, "size": size} for digest, size, media_type in parts
    ]
    manifest = {"schemaVersion": 2, "mediaType": kinds.MANIFEST, "config": config, "layers": rest}
    return Offer(archive, names, _placed(archive, json.dumps(manifest).encode()), parts[0][0])


def _placed(archive: Archive, document: bytes) -> str:
    digest = digests.of(document)
    archive.placed[digest] = document
    return digest


def _check(archive: Archive) -> None:
    """It is what an archive of images may be."""
    if archive.many:
        raise unusable("it has more members than an archive of images has")
    if archive.twice:
        raise unusable(f"{shown(archive.twice)} is in it twice")

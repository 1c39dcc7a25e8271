"""Archives of images as others write them, honest ones and others.

oci_archive(busybox(), "localhost/app:1")          # a tar of an OCI layout
saved([busybox_layer()], ["app:1"])                # what `docker save` wrote before it knew layouts
"""

import io
import json
import tarfile
from collections.abc import Sequence
from typing import Any

from tests.support.images import Built, Member, digest, file, layer, symlink

REF_NAME = "org.opencontainers.image.ref.name"


def oci_archive(built: Built, *names: str, extra: Sequence[Member] = (), **replaced: Any) -> bytes:
    """A tar of an OCI layout; an entry of the index for each name, one without when there is none.

    `replaced` documents stand in place of "index" and "layout"; None leaves one out.
    """
    entries = [built.descriptor | {"annotations": {REF_NAME: name}} for name in names]
    documents = {
        "layout": {"imageLayoutVersion": "1.0.0"},
        "index": {"schemaVersion": 2, "manifests": entries or [built.descriptor]},
    } | replaced
    places = {"layout": "oci-layout", "index": "index.json"}
    return layer(
        *[file(place(key), blob) for key, blob in built.blobs.items()],
        *[file(places[key], encoded(one)) for key, one in documents.items() if one is not None],
        *extra,
    )


def saved(
    layers: Sequence[bytes], names: Sequence[str] | None, config: dict[str, Any] | None = None, **facts: Any
) -> bytes:
    """What docker saved of one image; `facts` replace those of its manifest.json."""
    configuration = encoded(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": [digest(one) for one in layers]},
        }
    )
    folders = [digest(one + b"%d" % number)[7:] for number, one in enumerate(layers)]
    places = [f"{folder}/layer.tar" for folder in folders]
    members: list[Member] = []
    for number, (place, data) in enumerate(zip(places, layers, strict=True)):
        if (first := layers.index(data)) < number:  # docker wrote a link to the same layer of another image
            members.append(symlink(place, f"../{places[first]}"))
        else:
            members.append(file(place, data))
    name = f"{digest(configuration)[7:]}.json"
    manifest = {"Config": name, "RepoTags": names, "Layers": places} | facts
    return layer(*members, file(name, configuration), file("manifest.json", encoded([manifest])))


def place(key: str) -> str:
    """Where a blob stands in a layout."""
    return f"blobs/{key.replace(':', '/')}"


def encoded(document: Any) -> bytes:
    """As JSON, unless it is bytes already."""
    return document if isinstance(document, bytes) else json.dumps(document).encode()


def members(archive: bytes) -> dict[str, bytes]:
    """The files of an archive."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for one in tar:
            if content := tar.extractfile(one):
                found[one.name] = content.read()
    return found

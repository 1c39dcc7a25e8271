"""Images on disk: an OCI image layout that other tools can read, and beside it the unpacked layers.

    images/oci-layout, index.json, blobs/sha256/…    as the OCI image specification says
    layers/1a2b…                                      one folder for each diff ID, a lower folder of overlayfs
    pulling/…                                         whatever is not finished; emptied at the start

Everything appears by rename, after it has reached the disk: what is in its place is whole and verified.
A reference is an annotation in index.json, so an image that another tool puts there is found as well.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinyo_runtime.images.image import Descriptor, Malformed, load

REF_NAME = "org.opencontainers.image.ref.name"

log = logging.getLogger(__name__)


def name_of(entry: dict[str, Any]) -> str:
    """The reference that an entry of index.json has, or nothing."""
    annotations = entry.get("annotations")
    return str(annotations.get(REF_NAME, "")) if isinstance(annotations, dict) else ""


class Layout:
    """The folders of one image store."""

    def __init__(self, root: Path) -> None:
        self.images = root / "images"
        self.layers = root / "layers"
        self.pulling = root / "pulling"
        self._index = self.images / "index.json"
        self._sweeper = ThreadPoolExecutor(1, "sweeper")
        for folder in (self.images / "blobs/sha256", self.layers, self.pulling):
            folder.mkdir(0o700, parents=True, exist_ok=True)
        for stale in self.pulling.iterdir():
            self.discard(stale)
        if not self._index.exists():
            self.write(self.images / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            self.save([])

    def close(self) -> None:
        """Waits until everything that was discarded is gone."""
        self._sweeper.shutdown()

    def blob(self, digest: str) -> Path:
        """Where a blob is, if it is here."""
        return self.images / "blobs" / digest.replace(":", "/")

    def layer(self, diff_id: str) -> Path:
        """Where a layer is, if it is here.

        128 bits of its diff ID name it: short enough for 100 layers in one page of mount options, and
        long enough that nobody makes two layers of one name.
        """
        return self.layers / diff_id.removeprefix("sha256:")[:32]

    def entries(self) -> list[dict[str, Any]]:
        """The descriptors of index.json, each of which may have a reference. Raises Malformed."""
        manifests = load(self._index.read_bytes()).get("manifests")
        if not isinstance(manifests, list) or not all(isinstance(entry, dict) for entry in manifests):
            raise Malformed(f"{self._index} has no list of manifests")
        return manifests

    def save(self, entries: list[dict[str, Any]]) -> None:
        """Replaces index.json."""
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": entries,
        }
        self.write(self._index, json.dumps(index, indent=1).encode())

    def tag(self, name: str, manifest: Descriptor, platform: str) -> None:
        """Gives a name to a manifest; the one that had it stays, nameless if that was its only name."""
        os_name, architecture, *variant = platform.split("/")
        entry = {
            "mediaType": manifest.media_type,
            "digest": manifest.digest,
            "size": manifest.size,
            "platform": {
                "os": os_name,
                "architecture": architecture,
                **({"variant": variant[0]} if variant else {}),
            },
            "annotations": {REF_NAME: name},
        }
        entries = self.entries()
        if entry in entries:
            return
        taken = [old for old in entries if name_of(old) == name]
        others = [
            old
            for old in entries
            if old not in taken and (name_of(old) or old.get("digest") != manifest.digest)
        ]
        known = {manifest.digest, *(old.get("digest") for old in others)}
        nameless = [old | {"annotations": {}} for old in taken if old.get("digest") not in known]
        self.save([*others, *nameless, entry])

    def write(self, path: Path, data: bytes) -> None:
        """A small file, whole or not at all."""
        with self.temporary() as folder:
            with open(folder / "file", "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(folder / "file", path)
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def temporary(self) -> Iterator[Path]:
        """A folder for what is not finished; what was not moved out of it is discarded."""
        folder = Path(tempfile.mkdtemp(dir=self.pulling))
        try:
            yield folder
        finally:
            self.discard(folder)

    def discard(self, path: Path) -> None:
        """Deletes a folder below `pulling`, in the background when there is something in it."""
        try:
            path.rmdir()
        except OSError:
            self._sweeper.submit(_delete, path)

    def sweep(self, blobs: Iterable[str], layers: Iterable[str]) -> None:
        """Takes away every blob and layer that is not named: layers are gone at once, their files a little later."""
        kept_blobs = {self.blob(digest) for digest in blobs}
        kept_layers = {self.layer(diff_id) for diff_id in layers}
        for layer in set(self.layers.iterdir()) - kept_layers:
            with self.temporary() as folder:
                layer.rename(folder / layer.name)
        for blob in set((self.images / "blobs/sha256").iterdir()) - kept_blobs:
            blob.unlink()


def _delete(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except OSError:
        log.exception("cannot delete %s; the next start tries again", path)

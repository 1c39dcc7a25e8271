"""The images that pulls are measured with: parts of one real Debian tree, served by a real registry on loopback."""

import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import zstandard

from scripts.demo_image import CONFIG, LAYER, MANIFEST, digest

PACKAGES = "build-essential,python3-dev,git,nodejs"


def tree(folder: Path) -> Path:
    """A Debian root file system with compilers, python and node, as a tar: 670 MB, 17,000 entries."""
    tar = folder / "tree.tar"
    if not tar.exists():
        command = [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--include={PACKAGES}",
            "bookworm",
            str(tar),
        ]
        subprocess.run(command, check=True, capture_output=True)
    return tar


def layers(tree: Path, count: int, size: int, largest: int = 1 << 40) -> Iterator[bytes]:
    """Archives of so many unpacked bytes each, as the tree's entries come.

    Without links to what others hold, and without files of more than `largest` bytes.
    """
    with tarfile.open(tree) as source:
        members = iter(source)
        for _ in range(count):
            held, names, total = io.BytesIO(), set[str](), 0
            with tarfile.open(fileobj=held, mode="w", format=tarfile.PAX_FORMAT) as layer:
                for member in members:
                    if member.ischr() or member.isblk() or member.size > largest:
                        continue
                    if member.islnk() and member.linkname not in names:
                        continue
                    layer.addfile(member, source.extractfile(member) if member.isreg() else None)
                    names.add(member.name)
                    total += member.size
                    if total >= size:
                        break
            yield held.getvalue()


def layout(folder: Path, archives: Iterator[bytes], compression: str = "gzip") -> None:
    """Writes an OCI image layout, and beside it how much is in it."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def add(kind: str, data: bytes) -> dict[str, object]:
        named = digest(data)
        (blobs / named.removeprefix("sha256:")).write_bytes(data)
        return {"mediaType": kind, "digest": named, "size": len(data)}

    described, diff_ids, unpacked = [], [], 0
    for archive in archives:
        diff_ids.append(digest(archive))
        unpacked += len(archive)
        if compression == "gzip":
            described.append(add(LAYER, gzip.compress(archive, 6, mtime=0)))
        else:
            packed = zstandard.ZstdCompressor(level=3).compress(archive)
            described.append(add(LAYER.replace("gzip", "zstd"), packed))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": add(CONFIG, json.dumps(config).encode()),
        "layers": described,
    }
    index = {"schemaVersion": 2, "manifests": [add(MANIFEST, json.dumps(manifest).encode())]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    compressed = sum(int(str(one["size"])) for one in described)
    (folder / "sizes").write_text(f"{compressed} {unpacked}")


def sizes(folder: Path) -> tuple[int, int]:
    """Of a layout: compressed bytes of its layers, and the bytes that are in them."""
    compressed, unpacked = map(int, (folder / "sizes").read_text().split())
    return compressed, unpacked

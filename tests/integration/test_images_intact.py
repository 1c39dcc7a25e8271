"""Images arrive intact: what a container sees is what umoci, and skopeo with GNU tar, make of the same image."""

import asyncio
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tinyo_runtime.images import Image, ImageStore

from tests.support import judges
from tests.support.corpus import CORPUS, Layers, deep
from tests.support.images import file, folder, image, layer, skopeo, symlink, write_layout
from tests.support.nodes import Tree, describe, differences

NAME = "localhost/judged:1"

#: What one of the judges cannot read.
UNREADABLE = {
    ("contiguous", "umoci"): "unknown typeflag",
    ("sparse, gnu", "umoci"): "unknown typeflag",
}
#: Where a judge is not followed, by image: paths and the field that differs.
KNOWN: dict[tuple[str, str], set[tuple[bytes, str]]] = {
    # No layer describes the root: its time is that of its making, for umoci the epoch.
    ("busybox", "umoci"): {(b"", "time")},
    ("busybox", "tar"): {(b"", "time")},
    # The upper layers do not describe the root. tar leaves there the time at which it worked in it.
    ("opaque folders", "tar"): {(b"", "time")},
    # The entry of an upper layer says all of a folder. tar never takes attributes away.
    ("attributes", "tar"): {(b"folder", "attributes")},
    # The same for the time of folders in which a layer does something and which it does not describe. umoci puts back
    # the time of those where something is made, but not where something is removed or a folder is missing.
    ("undescribed folders", "umoci"): {(name, "time") for name in (b"", b"both", b"both/below", b"hidden")},
    ("undescribed folders", "tar"): {
        (name, "time")
        for name in (
            *(b"", b"alone", b"both", b"both/below", b"hidden"),
            *(b"home/me", b"home/me/.config", b"opaque", b"tmp"),
        )
    },
}


def unpacked(state: Path, layers: Layers) -> Image:
    """Puts an image into a store, as another tool would, and has it unpacked."""

    async def pull() -> Image:
        store = ImageStore(state)
        write_layout(image(layers), state / "source")
        skopeo("copy", f"oci:{state}/source:image", f"oci:{state}/images:{NAME}")
        try:
            return await store.pull(NAME)
        finally:
            await store.close()

    return asyncio.run(pull())


def ours(folder: Path, layers: Layers) -> Tree:
    """What a container of this image sees; the image stays in the store below "state"."""
    with judges.mounted(folder / "state", unpacked(folder / "state", layers), folder / "ours") as root:
        return describe(root)


def compare(folder: Path, name: str, layers: Layers) -> Iterator[str]:
    """What is different, said by each judge."""
    tree = ours(folder, layers)
    for judge in (judges.umoci, judges.tar):
        about = (name, judge.__name__)
        (folder / judge.__name__).mkdir()
        try:
            theirs = describe(judge(folder / "state", NAME, folder / judge.__name__))
        except RuntimeError as error:
            assert UNREADABLE.get(about, "anything else") in str(error), error
            continue
        # Devices are no image's: a container has those that the runtime gives it.
        theirs = {path: node for path, node in theirs.items() if "device" not in node.kind}
        for line in differences(tree, theirs, KNOWN.get(about, set())):
            yield f"{judge.__name__}: {line}"


@pytest.mark.parametrize("name", CORPUS)
def test_judged(tmp_path: Path, name: str) -> None:
    found = list(compare(tmp_path, name, CORPUS[name]()))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_paths_that_no_judge_can_follow(tmp_path: Path, format: int) -> None:
    """They know names only as a whole; so they judge the same image with names of three bytes."""
    (tmp_path / "short").mkdir()
    long = ours(tmp_path, deep(format))
    assert max(map(len, long)) > 5_000
    assert not list(compare(tmp_path / "short", "deep", deep(format, 3)))
    short = {path.replace(b"d" * 247, b""): node for path, node in long.items()}
    for node in short.values():
        node.links = tuple(path.replace(b"d" * 247, b"") for path in node.links)
    assert not list(differences(short, ours(tmp_path / "again", deep(format, 3))))


def test_holes_stay_holes(tmp_path: Path) -> None:
    """What takes no room in an archive takes none here; the judges fill it."""
    built = unpacked(tmp_path, CORPUS["sparse, 1.0"]())
    for name in ("many", "one", "none"):
        assert (tmp_path / "layers" / built.layers[0] / name).stat().st_blocks * 512 < 500_000


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("mode", lambda file: file.chmod(0o600)),
        ("owner", lambda file: os.chown(file, 1, 1)),
        ("time", lambda file: os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))),
        ("content", lambda file: file.write_text("y")),
        ("attributes", lambda file: os.setxattr(file, "user.a", b"b")),
        ("links", lambda file: os.link(file, f"{file}.link")),
        ("kind", lambda file: subprocess.run(["ln", "-sf", "/", file], check=True)),
        ("too much", lambda file: file.with_name("new").write_text("")),
        ("missing", lambda file: file.unlink()),
    ],
)
def test_the_comparison_sees(tmp_path: Path, field: str, change: Callable[[Path], object]) -> None:
    """Every way in which two trees can differ."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("x")
    before = describe(tmp_path / "tree")
    assert not list(differences(describe(tmp_path / "tree"), before))
    change(tmp_path / "tree/file")
    assert any(f": {field}" in line for line in differences(describe(tmp_path / "tree"), before))


def test_a_whole_debian(tmp_path: Path, debian: Path) -> None:
    """With Python: ten thousand files of a real distribution."""
    found = list(compare(tmp_path, "debian", [debian.read_bytes()]))
    assert not found, "\n".join(found)


def test_links_of_lower_layers_lead_nowhere(tmp_path: Path) -> None:
    """A layer stands by itself: what it has below a name that was a link becomes a folder, in the image alone."""
    (tmp_path / "outside").write_text("untouched")
    lower = layer(folder("."), symlink("root", "/"), symlink("away", str(tmp_path)))
    upper = layer(
        file("root/tmp/new"), file("away/outside", b"x"), file("away/.wh.ours"), file("root/.wh.etc")
    )
    tree = ours(tmp_path, [lower, upper])
    assert {path: node.kind for path, node in tree.items()} == {
        b"": "folder",
        b"away": "folder",
        b"away/outside": "file",
        b"root": "folder",
        b"root/tmp": "folder",
        b"root/tmp/new": "file",
    }
    assert (tmp_path / "outside").read_text() == "untouched" and not Path("/tmp/new").exists()

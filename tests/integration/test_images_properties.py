"""Layers that nobody thought of: whatever hypothesis stacks, a container sees what umoci makes of it."""

import subprocess
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tinyo_runtime.images.image import Image, ImageConfig
from tinyo_runtime.images.store import UNPACK

from tests.support import judges
from tests.support.fuzzing import effort
from tests.support.images import image, write_layout
from tests.support.nodes import Tree, describe, differences
from tests.support.stacks import Stack, archives, stacks

TAR = "application/vnd.oci.image.layer.v1.tar"


@effort(20, rate=3)
@given(st.lists(stacks, min_size=1, max_size=12))
def test_any_stack(found: list[Stack]) -> None:
    """Several stacks at a time, each in its own folder, because most of the time goes into starting the judge."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        layers = archives(found)
        write_layout(image(layers, media_type=TAR), folder / "state/images", "x")
        theirs = describe(judges.umoci(folder / "state", "x", folder / "umoci"))
        names = [unpacked(folder / "state/layers", str(number), data) for number, data in enumerate(layers)]
        with judges.mounted(
            folder / "state", Image("", tuple(reversed(names)), ImageConfig()), folder / "ours"
        ) as root:
            different = list(differences(without_times(describe(root)), without_times(theirs)))
        assert not different, "\n".join(different)


def unpacked(layers: Path, name: str, data: bytes) -> str:
    (layers / name).mkdir(parents=True)
    done = subprocess.run([*UNPACK, layers / name, TAR], input=data, capture_output=True, check=True)
    assert b'"error"' not in done.stdout, done.stdout
    return name


def without_times(tree: Tree) -> Tree:
    """But for folders: umoci lets some of those have the time at which it worked in them."""
    for node in tree.values():
        node.time = 0 if node.kind == "folder" else node.time
    return tree

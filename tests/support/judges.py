"""The same image unpacked by us, by umoci, and by skopeo with GNU tar: three trees that must be equal.

with mounted(state, image) as ours: ...        as the runtime mounts it
umoci(state, reference, folder)                 the folder of the root file system
tar(state, reference, folder)
"""

import asyncio
import contextlib
import ctypes
import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from tinyo_runtime import roots
from tinyo_runtime.images import Image
from tinyo_runtime.spawner import enter

from tests.support.images import skopeo


@contextlib.contextmanager
def mounted(state: Path, image: Image, folder: Path) -> Iterator[Path]:
    """The root of a container of this image, by the very steps that prepare and mount it."""
    for name in ("root", "upper", "work"):
        (folder / name).mkdir(parents=True)
    asyncio.run(roots.prepare(state / "layers", image.layers, folder / "upper"))
    message: dict[str, Any] = {"layers_dir": str(state / "layers"), "layers": image.layers}
    message |= {"upper": str(folder / "upper"), "work": str(folder / "work")}
    plan = SimpleNamespace(message=message, folder=str(folder / "root"))
    with contextlib.chdir("."):
        enter.mount_root(cast(enter.Plan, plan))
    try:
        yield folder / "root"
    finally:
        if ctypes.CDLL(None).umount2(os.fsencode(folder / "root"), 0):
            raise OSError("the root cannot be unmounted")


def umoci(state: Path, reference: str, folder: Path) -> Path:
    """What `umoci unpack` makes of it."""
    command = ["umoci", "unpack", "--image", f"{state}/images:{reference}", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"umoci: {done.stderr}")
    return folder / "rootfs"


def tar(state: Path, reference: str, folder: Path) -> Path:
    """What GNU tar makes of the layers that skopeo copies, one above the other, after what they hide is removed."""
    skopeo("copy", f"oci:{state}/images:{reference}", f"dir:{folder}/copy")
    root = folder / "root"
    root.mkdir()
    for descriptor in json.loads((folder / "copy/manifest.json").read_bytes())["layers"]:
        data = (folder / "copy" / descriptor["digest"].partition(":")[2]).read_bytes()
        if descriptor["mediaType"].endswith("gzip"):
            data = gzip.decompress(data)
        _make_room(root, data)
        command = "tar -x --numeric-owner --same-owner --same-permissions --delay-directory-restore"
        command += " --xattrs --xattrs-include=* --exclude=.wh.*"
        done = subprocess.run([*command.split(), "-C", root], input=data, capture_output=True)
        if done.returncode:
            raise RuntimeError(f"tar: {done.stderr.decode(errors='replace')}")
    return root


def _make_room(root: Path, data: bytes) -> None:
    """Removes what a layer hides or replaces of those below it."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
    for member in members:
        path = root / member.name.lstrip("/")
        if path.name == ".wh..wh..opq":
            for below in path.parent.iterdir() if path.parent.is_dir() else ():
                _remove(below)
        elif path.name.startswith(".wh."):
            _remove(path.with_name(path.name.removeprefix(".wh.")))
        elif not member.isdir() or not path.is_dir() or path.is_symlink():
            _remove(path)


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

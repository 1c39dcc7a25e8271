"""How a container's root looks where overlayfs alone would show something else than the image says.

Of a folder that several layers have, overlayfs shows what the topmost says: of the root that is the container's own,
which says nothing, and of others it may be a layer that has the folder only because of what is in it. And whiteouts
are listed in a folder that one layer alone has. `unpack.implied` marks such folders; the container's own layer gets
them too, looking as the image says, before its first start.
"""

import asyncio
import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tinyo_runtime.unpack import implied

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE = b"trusted.overlay.opaque"
#: On the container's layer: this was done, and what its root looks like now is its own affair.
_PREPARED = b"trusted.tinyo.prepared"
#: Folders deep that others than the root are looked for: descriptors of all layers are open on the way there.
_MAX_DEPTH = 32
#: Folders of an image that are remembered.
_MAX_KNOWN = 1000


class _Look(NamedTuple):
    """Of a folder; its path is relative to the root, and b"" there."""

    path: bytes
    status: os.stat_result
    attributes: dict[str, bytes]


#: What was found of images, by the paths of their layers, which never change.
_known: dict[tuple[str, ...], list[_Look]] = {}


def visible(layers: Path, names: Sequence[str]) -> tuple[str, ...]:
    """The layers of an image, the topmost first, without those below one whose root is opaque: overlayfs would show
    them."""
    for count, name in enumerate(names, 1):
        if _attribute(layers / name, _OPAQUE) == b"y":
            return tuple(names[:count])
    return tuple(names)


async def prepare(layers: Path, names: Sequence[str], upper: Path) -> None:
    """Prepares a container's layer for the layers of an image, the topmost first; once. Raises OSError."""
    if not names or _attribute(upper, _PREPARED):
        return
    key = (str(layers), *names)
    if (looks := _known.get(key)) is None:
        looks = await asyncio.to_thread(_of_image, [layers / name for name in names])
        if len(looks) < _MAX_KNOWN:
            _known[key] = looks
    if len(looks) == 1:
        _give(upper, looks)
    else:
        await asyncio.to_thread(_give, upper, looks)


def _of_image(layers: Sequence[Path]) -> list[_Look]:
    with contextlib.ExitStack() as opened:
        folders = []
        for layer in layers:
            folders.append(os.open(layer, _OPEN))
            opened.callback(os.close, folders[-1])
        return list(_looks(folders, b"", 0))


def _looks(folders: Sequence[int], path: bytes, depth: int) -> Iterator[_Look]:
    """Of a folder that several layers have, the topmost first: what is to be given below it, and then to itself."""
    merged = _merged(folders)
    more = False
    for name in _leading(merged) if depth < _MAX_DEPTH else ():
        with _below(merged, name) as below:
            for look in _looks(below, path + b"/" * bool(path) + name, depth + 1) if below else ():
                more = True
                yield look
    said = [folder for folder in folders if implied.ITSELF not in _attribute(folder, implied.ATTRIBUTE)]
    best = (said or folders)[0]
    listed = len(merged) == 1 and implied.WHITEOUTS in _attribute(merged[0], implied.ATTRIBUTE)
    if more or listed or not path or best != folders[0]:
        names = [name for name in os.listxattr(best) if not name.startswith("trusted.")]
        yield _Look(path, os.fstat(best), {name: os.getxattr(best, name) for name in names})


def _merged(folders: Sequence[int]) -> Sequence[int]:
    """Those whose content is seen: to the first one that is opaque."""
    for count, folder in enumerate(folders, 1):
        if _attribute(folder, _OPAQUE) == b"y":
            return folders[:count]
    return folders


def _leading(folders: Sequence[int]) -> list[bytes]:
    """Names in a folder that is marked to have implied folders below it."""
    names = set[str]()
    for folder in folders:
        if implied.BELOW in _attribute(folder, implied.ATTRIBUTE):
            names.update(os.listdir(folder))
    return [os.fsencode(name) for name in sorted(names)]


@contextlib.contextmanager
def _below(folders: Sequence[int], name: bytes) -> Iterator[list[int]]:
    """Descriptors of the folders of that name, to the first thing that is none."""
    found: list[int] = []
    try:
        for folder in folders:
            try:
                found.append(os.open(name, _OPEN, dir_fd=folder))
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                break
        yield found
    finally:
        for folder in found:
            os.close(folder)


def _give(upper: Path, looks: Sequence[_Look]) -> None:
    """Makes folders from the root downwards; gives them their looks the other way, because new ones change times."""
    root = os.open(upper, _OPEN)
    try:
        for look in reversed(looks[:-1]):
            above, _, name = look.path.rpartition(b"/")
            with _opened(root, above) as parent, contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent)
        for look in looks:
            with _opened(root, look.path) as folder:
                os.fchown(folder, look.status.st_uid, look.status.st_gid)
                os.fchmod(folder, look.status.st_mode & 0o7777)
                for key, value in look.attributes.items():
                    os.setxattr(folder, key, value)
                os.utime(folder, ns=(look.status.st_atime_ns, look.status.st_mtime_ns))
        os.setxattr(root, _PREPARED, b"y")
    finally:
        os.close(root)


@contextlib.contextmanager
def _opened(root: int, path: bytes) -> Iterator[int]:
    """Descriptor of a folder below another; no link is followed."""
    folder = os.dup(root)
    try:
        for name in path.split(b"/") if path else ():
            above, folder = folder, os.open(name, _OPEN, dir_fd=folder)
            os.close(above)
        yield folder
    finally:
        os.close(folder)


def _attribute(folder: int | Path, name: bytes) -> bytes:
    try:
        return os.getxattr(folder, name)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return b""

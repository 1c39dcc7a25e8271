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
#: Folders deep that others than the root are looked for.
_MAX_DEPTH = 32
#: Folders of an image that are remembered.
_MAX_KNOWN = 1000


class _Folder(NamedTuple):
    """A folder as one layer has it; its path is known to whoever asks."""

    layer: Path
    #: As `implied` gave them.
    marks: bytes
    opaque: bool


class _Look(NamedTuple):
    """What a folder shows; its path is relative to the root, and b"" there."""

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
    return list(_looks([_seen(layer, b"") for layer in layers], b"", 0))


def _looks(folders: Sequence[_Folder], path: bytes, depth: int) -> Iterator[_Look]:
    """Of a folder that several layers have, the topmost first: what is to be given below it, and then to itself."""
    opaque = next((count for count, folder in enumerate(folders, 1) if folder.opaque), len(folders))
    merged = folders[:opaque]
    more = False
    for name in _leading(merged, path) if depth < _MAX_DEPTH else ():
        below = path + b"/" * bool(path) + name
        if found := _below(merged, below):
            for look in _looks(found, below, depth + 1):
                more = True
                yield look
    best = next((folder for folder in folders if implied.ITSELF not in folder.marks), folders[0])
    listed = len(merged) == 1 and implied.WHITEOUTS in merged[0].marks
    if more or listed or not path or best != folders[0]:
        with _opened(best.layer, path) as found_best:
            names = [name for name in os.listxattr(found_best) if not name.startswith("trusted.")]
            attributes = {name: os.getxattr(found_best, name) for name in names}
            yield _Look(path, os.fstat(found_best), attributes)


def _leading(folders: Sequence[_Folder], path: bytes) -> list[bytes]:
    """Names in folders that are marked to have such folders below them."""
    names = set[str]()
    for folder in folders:
        if implied.BELOW in folder.marks:
            with _opened(folder.layer, path) as opened:
                names.update(os.listdir(opened))
    return [os.fsencode(name) for name in sorted(names)]


def _below(folders: Sequence[_Folder], path: bytes) -> list[_Folder]:
    """The folders of a name in these, to the first thing that is none."""
    found: list[_Folder] = []
    for folder in folders:
        try:
            found.append(_seen(folder.layer, path))
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            break
    return found


def _seen(layer: Path, path: bytes) -> _Folder:
    with _opened(layer, path) as folder:
        return _Folder(layer, _attribute(folder, implied.ATTRIBUTE), _attribute(folder, _OPAQUE) == b"y")


def _give(upper: Path, looks: Sequence[_Look]) -> None:
    """Makes folders from the root downwards; gives them their looks the other way, because new ones change times."""
    for look in reversed(looks[:-1]):
        above, _, name = look.path.rpartition(b"/")
        with _opened(upper, above) as parent, contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
    for look in looks:
        with _opened(upper, look.path) as folder:
            os.fchown(folder, look.status.st_uid, look.status.st_gid)
            os.fchmod(folder, look.status.st_mode & 0o7777)
            for key, value in look.attributes.items():
                os.setxattr(folder, key, value)
            os.utime(folder, ns=(look.status.st_atime_ns, look.status.st_mtime_ns))
    os.setxattr(upper, _PREPARED, b"y")


@contextlib.contextmanager
def _opened(root: Path, path: bytes) -> Iterator[int]:
    """Descriptor of a folder below another; no link is followed, and no more than two are open at a time."""
    folder = os.open(root, _OPEN)
    try:
        for name in path.split(b"/") if path else ():
            above, folder = folder, os.open(name, _OPEN, dir_fd=folder)
            os.close(above)
        yield folder
    finally:
        os.close(folder)


def _attribute(folder: int | Path, name: bytes) -> bytes:
    """Empty when there is none."""
    try:
        return os.getxattr(folder, name)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return b""

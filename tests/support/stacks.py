"""Strategies for stacks of layers: entries of all kinds in any order, which replace, hide and link each other.

Few names, so that they meet often. What the judges do not agree about is left out:

- an entry below what is no folder: we refuse it, umoci follows links, others replace them;
- a hard link to what its layer does not have as a file: we refuse it, because layers stand by themselves; and one
  to itself, which means nothing to us, and which others refuse, as all do what is in a folder that it replaces;
- something hidden in a folder that is not there: we make the folder, umoci does not;
- something hidden in what the same layer hides: the same;
- something hidden where the layer already has folders that it did not describe: how they look depends on the order
  for umoci, not for us.
"""

import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from hypothesis import strategies as st

from tests.support.images import Member, file, folder, hard_link, layer, member, symlink


class Entry(NamedTuple):
    """One entry of an archive."""

    kind: str
    path: str
    #: Content of a file, target of a link, owner of a folder.
    what: str = ""
    mode: int = 0o755


Stack = list[list[Entry]]

_paths = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map("/".join)
_entries = st.builds(
    Entry,
    st.sampled_from(["file", "folder", "folder", "symlink", "hard link", "pipe", "whiteout", "opaque"]),
    _paths,
    st.sampled_from(["", "a", "b", "a/b", "b/c", "../a"]),
    st.sampled_from([0o755, 0o700, 0o4711, 0o1777]),
)
#: Layers, the lowest first.
stacks = st.lists(st.lists(_entries, max_size=7), min_size=1, max_size=3).map(
    lambda stack: list(_sensible(stack))
)


def _sensible(stack: Stack) -> Iterator[list[Entry]]:
    """The stack without what is left out."""
    lower: dict[str, str] = {}
    for entries in stack:
        own: dict[str, str] = {}
        hidden, described = set[str](), set[str]()
        kept = []
        for entry in entries:
            *above, path = _prefixes(entry.path)
            above += [path] if entry.kind == "opaque" else []
            known = lower | own
            if any(known.get(folder, "folder") != "folder" for folder in above):
                continue
            if entry.kind == "hard link" and (
                f"{entry.what}/".startswith(f"{path}/") or own.get(entry.what, "folder") == "folder"
            ):
                continue
            hides = entry.kind in ("whiteout", "opaque")
            undescribed = {name for name, kind in own.items() if kind == "folder"} - described - {entry.path}
            if hides and (
                any(known.get(folder) != "folder" for folder in above)
                or hidden.intersection(_prefixes(path))
                or any(path in _prefixes(name) for name in (hidden | undescribed))
            ):
                continue
            kept.append(entry)
            own.update((folder, "folder") for folder in above)
            if hides:
                hidden.add(path)
                continue
            if entry.kind != "folder":
                own = {name: kind for name, kind in own.items() if not name.startswith(f"{path}/")}
                described &= own.keys()
            else:
                described.add(path)
            own[path] = entry.kind
        hidden |= {path for path, kind in own.items() if kind != "folder"}
        lower = {path: kind for path, kind in lower.items() if hidden.isdisjoint(_prefixes(path))} | own
        yield kept


def _prefixes(path: str) -> list[str]:
    """ "a/b" gives "a", "a/b"."""
    parts = path.split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def archives(stacks: list[Stack]) -> list[bytes]:
    """Layers in which each stack has a folder of its own."""
    layers = []
    for height in range(max(map(len, stacks))):
        members = [folder(".")]
        for number, stack in enumerate(stacks):
            members.append(folder(f"{number}"))
            members += [
                _member(f"{number}/", entry) for entry in (stack[height] if height < len(stack) else ())
            ]
        layers.append(layer(*members))
    return layers


def _member(at: str, entry: Entry) -> Member:
    path = at + entry.path
    above, _, name = path.rpartition("/")
    match entry.kind:
        case "folder":
            return folder(path, mode=entry.mode, uid=len(entry.what))
        case "symlink":
            return symlink(path, entry.what or "nowhere")
        case "hard link":
            return hard_link(path, at + entry.what)
        case "pipe":
            return member(path, tarfile.FIFOTYPE, mode=entry.mode)
        case "whiteout":
            return file(f"{above}/.wh.{name}")
        case "opaque":
            return file(f"{path}/.wh..wh..opq")
        case _:
            return file(path, entry.what.encode(), mode=entry.mode, gid=len(entry.what))

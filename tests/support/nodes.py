"""What a tree of files is, in every respect that can be seen from inside of a container, and how two of them differ.

assert not list(differences(describe(ours), describe(theirs)))
"""

import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "pipe",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFSOCK: "socket",
}
#: Attributes that no container sees: how overlayfs and we keep things.
_HIDDEN = ("trusted.overlay.", "trusted.tinyo.")


@dataclass
class Node:
    """One name of a tree; what has several names says the same of each."""

    kind: str
    mode: str
    owner: str
    #: Nanoseconds since 1970.
    time: int
    size: int
    #: The digest of a file's, a link's target.
    content: str
    attributes: dict[str, bytes]
    #: Every name of the same file, in order; one name is no link.
    links: tuple[bytes, ...] = ()


Tree = dict[bytes, Node]


def describe(root: os.PathLike[str]) -> Tree:
    """Every name below the root, and b"" for itself. Walks by descriptors: a path may be longer than the kernel takes."""
    tree: Tree = {}
    names: dict[tuple[int, int], list[bytes]] = {}
    folder = os.open(root, _OPEN)
    tree[b""] = _node(folder, b".")
    _walk(folder, b"", tree, names)
    for same in names.values():
        for name in same:
            tree[name].links = tuple(sorted(same)) if len(same) > 1 else ()
    return tree


def differences(one: Tree, other: Tree, known: Collection[tuple[bytes, str]] = ()) -> Iterator[str]:
    """A line for each difference but those that are `known`, as paths and names of fields."""
    for path in sorted(one.keys() | other.keys()):
        mine, theirs = one.get(path), other.get(path)
        if mine is None or theirs is None:
            yield f"{path!r}: {'missing' if mine is None else 'too much'}: {mine or theirs}"
            continue
        for field in fields(Node):
            ours, judged = getattr(mine, field.name), getattr(theirs, field.name)
            if ours != judged and (path, field.name) not in known:
                yield f"{path!r}: {field.name} is {ours!r}, and should be {judged!r}"


def _walk(folder: int, path: bytes, tree: Tree, names: dict[tuple[int, int], list[bytes]]) -> None:
    """Fills both; closes the descriptor."""
    for name in map(os.fsencode, os.listdir(folder)):
        below = path + b"/" + name if path else name
        node = tree[below] = _node(folder, name)
        found = os.lstat(name, dir_fd=folder)
        if node.kind == "folder":
            _walk(os.open(name, _OPEN, dir_fd=folder), below, tree, names)
        else:
            names.setdefault((found.st_dev, found.st_ino), []).append(below)
    os.close(folder)


def _node(folder: int, name: bytes) -> Node:
    found = os.lstat(name, dir_fd=folder)
    kind = _KINDS[stat.S_IFMT(found.st_mode)]
    content = ""
    if kind == "file":
        with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    elif kind == "symbolic link":
        content = repr(os.readlink(name, dir_fd=folder))
    elif "device" in kind:
        content = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    path = b"/proc/self/fd/%d/%s" % (folder, name)
    attributes = {
        key: os.getxattr(path, key, follow_symlinks=False)
        for key in os.listxattr(path, follow_symlinks=False)
        if not key.startswith(_HIDDEN)
    }
    size = 0 if kind == "folder" else found.st_size
    mode, owner = f"{stat.S_IMODE(found.st_mode):04o}", f"{found.st_uid}:{found.st_gid}"
    return Node(kind, mode, owner, found.st_mtime_ns, size, content, attributes)

"""The program that reads an archive of images, confined: what is in it, and where. It unpacks nothing.

`python -I …/unpack/scan.py FOLDER MEDIA_TYPE DESCRIPTOR <archive` writes the archive, no longer compressed, to a
descriptor, and prints one line of JSON: `{"size", "entries", "members", "many", "twice"}`, or the error that
unpacking would print. FOLDER is empty, and all that the process sees meanwhile.
"""

import json
import os
import sys
from functools import partial
from posixpath import dirname, join, normpath

from isal import igzip

# This very installation, whatever else the interpreter may find.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tinyo_runtime.unpack import ahead, confine, extensions, formats, frames, limits, refusals, tar

#: What an archive of images has at most: files and links, and bytes of their names.
MAX_MEMBERS, MAX_NAMES = 20_000, 4 << 20
#: Documents that say what kind of archive it is.
TOP = (b"oci-layout", b"index.json", b"manifest.json")
_HARD_LINK = b"1"


class Members:
    """Files and links by name. A root file system may have too many to be kept: then it is no archive of images."""

    def __init__(self) -> None:
        #: Offset, size and, of a link, the name that it means; a sparse file has size -1.
        self.found: dict[bytes, tuple[int, int, bytes]] = {}
        self.many = False
        #: A name that is there twice: two readers could see two different things.
        self.twice = b""
        self._length = 0

    def add(self, entry: tar.Entry, offset: int) -> None:
        """Notes a member whose data stands at an offset. Raises Refused when its name leads out."""
        name = tar.beneath(entry.name)
        if entry.kind not in (tar.FILE, tar.SYMLINK, _HARD_LINK) or (self.many and name not in TOP):
            return
        if name in self.found:
            self.twice = name
        self._length += len(name) + len(entry.link)
        if not self.many and (len(self.found) >= MAX_MEMBERS or self._length > MAX_NAMES):
            self.many = True
            self.found = {top: self.found[top] for top in TOP if top in self.found}
        if entry.kind == tar.FILE:
            is_sparse = any(record.startswith(b"GNU.sparse.") for record in entry.records)
            self.found[name] = (offset, -1 if is_sparse else entry.size, b"")
        else:
            above = dirname(name) if entry.kind == tar.SYMLINK else b""
            self.found[name] = (offset, 0, normpath(join(above, entry.link)))


def scan(folder: str, media_type: str, descriptor: str) -> dict[str, object]:
    """What is in the archive. Raises Refused and OSError."""
    formats.watch_input(media_type)
    opened = frames.opened if media_type.endswith("zstd") else partial(formats.opened, media_type)
    content = opened() or igzip.IGzipFile(fileobj=sys.stdin.buffer)  # type: ignore[no-untyped-call]
    target, position = int(descriptor), 0

    def copied(size: int) -> bytes:
        """The next bytes of the archive, which are written on the way."""
        data: bytes = content.read(size)
        limits.counts.unpacked(data)
        rest = memoryview(data)
        while rest := rest[os.write(target, rest) :]:
            pass
        return data

    def read(size: int) -> bytes:
        nonlocal position
        data = archive(size)
        position += len(data)
        return data

    confine.confine(folder)
    archive = ahead.reader(copied) or copied
    members = Members()
    for entry, _ in tar.entries(read, extensions.Extensions(read).takes):
        members.add(entry, position)
    found = [(text(name), at, size, text(link)) for name, (at, size, link) in members.found.items()]
    facts = {"members": found, "many": members.many, "twice": text(members.twice)}
    return facts | {"size": position, "entries": limits.counts.entries}


def text(name: bytes) -> str:
    """A name as JSON has it."""
    return name.decode(errors="surrogateescape")


if __name__ == "__main__":
    with refusals.reported():
        print(json.dumps(scan(*sys.argv[1:])), flush=True)
    os._exit(0)  # as in `__main__`

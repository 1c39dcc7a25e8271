"""The program that reads an archive of images, confined: what is in it, and where. It unpacks nothing.

`python -I …/unpack/scan.py FOLDER MEDIA_TYPE <archive` writes the archive, no longer compressed, into FOLDER, which
is empty and all that it sees: what may be a layer into a file of its own, so that nobody has to copy it, and everything
else into `archive`. It prints one line of JSON: what is in it, or the error that unpacking would print.
"""

import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from posixpath import dirname, join, normpath

from isal import igzip

# This very installation, whatever else the interpreter may find.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tinyo_runtime.unpack import ahead, confine, extensions, formats, frames, limits, others, refusals, tar

#: What an archive of images has at most: files and links, and bytes of their names.
MAX_MEMBERS, MAX_NAMES = 20_000, 4 << 20
#: Bytes of a member that are worth a file of its own, and how many of those there may be.
LARGE, MAX_FILES = 1 << 20, 2000
#: Documents that say what kind of archive it is.
TOP = (b"oci-layout", b"index.json", b"manifest.json")


class Scan:
    """Takes the archive apart as it comes."""

    def __init__(self, read: tar.Read) -> None:
        self._read = read
        self._main = self._target = _created("archive")
        #: Bytes that went into `archive`.
        self._position = 0
        #: Those with a file of their own: where in `archive` they would be, and their size.
        self.files: list[tuple[int, int]] = []
        #: Files and links: number of its file or -1, offset there, size (-1 if sparse), and the name that a link means.
        self.members: dict[bytes, tuple[int, int, int, bytes]] = {}
        #: There are too many to be kept: it is a root file system, or nothing good.
        self.many = False
        #: A name that is there twice: two readers could see two different things.
        self.twice = b""
        self._length = 0

    def read(self, size: int) -> bytes:
        """The next bytes, which are written on the way. Raises OSError."""
        data = self._read(size)
        rest = memoryview(data)
        while rest := rest[os.write(self._target, rest) :]:
            pass
        if self._target == self._main:
            self._position += len(data)
        return data

    def run(self) -> None:
        """All of it. Raises Refused and OSError."""
        for entry, data in tar.entries(self.read, extensions.Extensions(self.read).takes):
            name = tar.beneath(entry.name)
            if entry.kind in (tar.FILE, tar.SYMLINK, others.HARD_LINK):
                self._add(name, entry, data)

    def _add(self, name: bytes, entry: tar.Entry, data: Iterator[bytes]) -> None:
        if self.many and name not in TOP:
            return
        if name in self.members:
            self.twice = name
        self._length += len(name) + len(entry.link)
        if not self.many and (len(self.members) >= MAX_MEMBERS or self._length > MAX_NAMES):
            self.many = True
            self.members = {top: self.members[top] for top in TOP if top in self.members}
        if entry.kind != tar.FILE:
            above = dirname(name) if entry.kind == tar.SYMLINK else b""
            self.members[name] = (-1, 0, 0, normpath(join(above, entry.link)))
        elif any(record.startswith(b"GNU.sparse.") for record in entry.records):
            self.members[name] = (-1, 0, -1, b"")
        elif entry.size >= LARGE and len(self.files) < MAX_FILES and _may_be_layer(name):
            self.members[name] = (len(self.files), 0, entry.size, b"")
            self._keep(entry.size, data)
        else:
            self.members[name] = (-1, self._position, entry.size, b"")

    def _keep(self, size: int, data: Iterator[bytes]) -> None:
        """Writes a member into a file of its own; what pads it belongs to the archive again."""
        self._target = _created(f"{len(self.files)}")
        self.files.append((self._position, size))
        while size:
            size -= len(next(data))
        os.close(self._target)
        self._target = self._main


def scan(folder: str, media_type: str) -> dict[str, object]:
    """What is in the archive. Raises Refused and OSError."""
    formats.watch_input(media_type)
    opened = frames.opened if media_type.endswith("zstd") else partial(formats.opened, media_type)
    content = opened() or igzip.IGzipFile(fileobj=sys.stdin.buffer)  # type: ignore[no-untyped-call]

    def read(size: int) -> bytes:
        data: bytes = content.read(size)
        limits.counts.unpacked(data)
        return data

    confine.confine(folder)
    archive = Scan(ahead.reader(read) or read)
    archive.run()
    found = [(text(name), *place, text(link)) for name, (*place, link) in archive.members.items()]
    return {
        "entries": limits.counts.entries,
        "size": limits.counts.size,
        "files": archive.files,
        "members": found,
        "many": archive.many,
        "twice": text(archive.twice),
    }


def text(name: bytes) -> str:
    """A name as JSON has it."""
    return name.decode(errors="surrogateescape")


def _may_be_layer(name: bytes) -> bool:
    return name.startswith(b"blobs/") or b".tar" in name[-8:]


def _created(name: str) -> int:
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)


if __name__ == "__main__":
    with refusals.reported():
        print(json.dumps(scan(*sys.argv[1:])), flush=True)
    os._exit(0)  # as in `__main__`

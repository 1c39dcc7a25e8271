"""An archive of images that was taken in, and is read where it lies.

It lies in a folder among what is not finished, whose files have numbers: no member is ever made under its name.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from posixpath import normpath
from typing import Any, NamedTuple, Self

import grpc

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import digests, verify
from tinyo_runtime.images.trash import Trash

#: What is left of the archive without the members that have files for themselves.
_REST = -1
#: Links that may stand one behind the other.
_MAX_LINKS = 5
_CHUNK = 1 << 20


class Member(NamedTuple):
    """A file of the archive, or a link to one."""

    name: str
    #: Number of the file that it has for itself, or -1: then it is a part of what is left of the archive.
    file: int
    offset: int
    size: int
    link: str = ""


class Archive:
    """What was taken in; it is gone when the last one leaves who entered it."""

    def __init__(self, folder: Path, facts: dict[str, Any], trash: Trash) -> None:
        self._folder, self._trash = folder, trash
        self._users = 0
        self.size: int = facts["size"]
        #: Members of any kind.
        self.entries: int = facts["entries"]
        #: Members with a file for themselves: where they would be in what is left, and their size.
        self._files: list[tuple[int, int]] = facts["files"]
        self.members = {fields[0]: Member(*fields) for fields in facts["members"]}
        #: There are more members than an archive of images has; of the others nothing is known.
        self.many: bool = facts["many"]
        #: A name that is there twice, if any is.
        self.twice: str = facts["twice"]
        #: Blobs by digest that do not stand under it, and documents that were made here; `None` is all of it.
        self.placed: dict[str, Member | bytes | None] = {}

    def __enter__(self) -> Self:
        self._users += 1
        return self

    def __exit__(self, *error: object) -> None:
        self._users -= 1
        if not self._users:
            self._trash.discard(self._folder)

    def member(self, name: str) -> Member:
        """A file, perhaps by way of links. Raises TinyoError."""
        found = self.members.get(normpath(name))
        for _ in range(_MAX_LINKS):
            if found and found.link:
                found = self.members.get(found.link)
        if not found:
            raise unusable(f"{shown(name)} is missing, or a link to what is not in it")
        if found.link:
            raise unusable(f"{shown(name)} is a link to a link, and so on without an end")
        if found.size < 0:
            raise unusable(f"{shown(name)} is a sparse file, which nobody needs here")
        return found

    def blob(self, digest: str) -> Member | bytes | None:
        """Where a blob is. Raises TinyoError."""
        if digest in self.placed:
            return self.placed[digest]
        return self.member(f"blobs/{digest.replace(':', '/', 1)}")

    def document(self, name: str) -> Any:
        """What a member says in JSON. Raises TinyoError."""
        member = self.member(name)
        if member.size > verify.MAX_DOCUMENT:
            raise unusable(f"{shown(name)} has {member.size} bytes, more than {verify.MAX_DOCUMENT}")
        return _parsed(name, b"".join(self.pieces(member)))

    def named(self, digest: str) -> Any:
        """What a blob says in JSON, if its digest is right. Raises TinyoError."""
        blob = self.blob(digest)
        name = blob.name if isinstance(blob, Member) else digest
        if isinstance(blob, Member) and blob.size > verify.MAX_DOCUMENT:
            raise unusable(f"{shown(name)} has {blob.size} bytes, more than {verify.MAX_DOCUMENT}")
        if (actual := self.digest(blob, digest)) != digest:
            raise unusable(f"{shown(name)} is not intact: its digest is {actual}")
        return _parsed(name, b"".join(self.pieces(blob)))

    def digest(self, blob: Member | bytes | None, expected: str = "") -> str:
        """What names the bytes of a blob, in the algorithm of the digest that they should have."""
        digest = digests.Digest(expected)
        for piece in self.pieces(blob):
            digest.update(piece)
        return str(digest)

    def pieces(self, blob: Member | bytes | None) -> Iterator[bytes]:
        """The bytes of a blob. Raises OSError."""
        if isinstance(blob, bytes):
            yield blob
        elif blob:
            yield from self._part(blob.file, blob.offset, blob.size)
        else:
            at = end = 0
            for number, (at, size) in enumerate(self._files):
                yield from self._part(_REST, end, at - end)
                yield from self._part(number, 0, size)
                end = at
            yield from self._part(_REST, end, self.size - end - sum(size for _, size in self._files))

    def open(self, digest: str) -> int | None:
        """Descriptor of a file that is this blob and nothing else; None when there is none. Raises TinyoError."""
        blob = self.blob(digest)
        if blob is None and not self._files:
            return self._open(_REST)
        return self._open(blob.file) if isinstance(blob, Member) and blob.file != _REST else None

    def _part(self, number: int, at: int, size: int) -> Iterator[bytes]:
        descriptor = self._open(number)
        try:
            end = at + size
            while at < end:
                piece = os.pread(descriptor, min(_CHUNK, end - at), at)
                if not piece:
                    raise OSError(errno.EIO, "an archive that was taken in has become shorter")
                at += len(piece)
                yield piece
        finally:
            os.close(descriptor)

    def _open(self, number: int) -> int:
        """A file that the confined process made, whatever it made of it."""
        path = self._folder / ("archive" if number == _REST else str(number))
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EIO, "an archive that was taken in is not a file", str(path))
        return descriptor


def shown(name: str) -> str:
    """A name for people, however long it is."""
    text = repr(name[:200])
    return text if len(name) <= 200 >= len(text) else f"{text[:200]}…'"


def unusable(why: str) -> TinyoError:
    """ARCHIVE_INVALID: it is no archive of images, or is damaged."""
    message = f"the archive cannot be used: {why}"
    return TinyoError(grpc.StatusCode.DATA_LOSS, "ARCHIVE_INVALID", message)


def _parsed(name: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise unusable(f"{shown(name)} is not JSON") from None

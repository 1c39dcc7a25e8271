"""`tinyo cp`: files of whoever runs the command, and of containers."""

import argparse
import contextlib
import os
import stat
import sys
import tarfile
import threading
from collections.abc import Iterable, Iterator
from typing import IO, BinaryIO, cast

import grpc
from tinyo.node.v1 import node_pb2 as api

from tinyo_ctl.failures import Failure, UsageError
from tinyo_ctl.services import node
from tinyo_ctl.tell import safe

#: Bytes that are sent at once.
CHUNK = 512 << 10
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def copy(options: argparse.Namespace) -> int:
    """`tinyo cp`."""
    source, target = _place(options.source), _place(options.target)
    if bool(source[0]) == bool(target[0]):
        raise UsageError("one of both is in a container, as NAME:/PATH, and the other is not")
    if source[0]:
        _copy_out(options, *source, target[1])
    else:
        _copy_in(options, source[1], *target)
    return 0


def _place(text: str) -> tuple[str, str]:
    """The name of a container, and a path in it; or no name, and a path here, such as "./a:b"."""
    name, colon, path = text.partition(":")
    if not colon or "/" in name or name.startswith("."):
        return "", text
    if not path.startswith("/"):
        path = f"/{path}"  # as docker has it
    return name, path


def _copy_in(options: argparse.Namespace, source: str, name: str, path: str) -> None:
    start = api.CopyInStart(name=name, path=path, archive=source == "-")
    if source == "-" and sys.stdin.isatty():
        raise UsageError("standard input is a terminal: send a tar to it")
    packer = None if source == "-" else Packer(source, keep=options.archive, follow=options.follow_link)

    def requests() -> Iterator[api.CopyInRequest]:
        yield api.CopyInRequest(start=start)
        with contextlib.nullcontext(sys.stdin.buffer) if packer is None else packer.opened() as file:
            while data := os.read(file.fileno(), CHUNK):
                yield api.CopyInRequest(data=data)

    with node(options.host) as calls:
        try:
            calls.CopyIn(requests())
        except grpc.RpcError:
            if packer and packer.failure:  # what gRPC says of it is less
                raise packer.failure from None
            raise
    if packer and packer.failure:
        raise packer.failure


class Packer:
    """A file or folder as a tar, made as fast as it is read."""

    def __init__(self, source: str, *, keep: bool, follow: bool) -> None:
        self._source, self._keep = source, keep
        #: What ended it.
        self.failure: Failure | None = None
        self._path = os.path.realpath(source) if follow else source
        if not os.path.lexists(self._path):
            raise Failure(f"{safe(source)} does not exist")
        contents = source.endswith("/.") or os.path.basename(source.rstrip("/")) in ("", ".", "..")
        self._name = "." if contents else os.path.basename(source.rstrip("/"))

    @contextlib.contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The tar; ends with an error of gRPC's when it cannot be made."""
        reader, writer = os.pipe()
        thread = threading.Thread(target=self._pack, args=(writer,), daemon=True)
        thread.start()
        with open(reader, "rb", buffering=0) as file:
            yield cast(BinaryIO, file)
        thread.join()
        if self.failure:
            raise self.failure

    def _pack(self, writer: int) -> None:
        try:
            with (
                open(writer, "wb") as file,
                tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar,
            ):
                tar.add(self._path, self._name, filter=self._described)
        except BrokenPipeError:
            return
        except OSError as error:
            self.failure = Failure(
                f"{safe(str(error.filename or self._source))} cannot be read: {error.strerror}"
            )

    def _described(self, member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        """Files belong to root there, unless asked otherwise."""
        if member.isdev() and not member.isfifo():
            return None
        if not self._keep:
            member.uid = member.gid = 0
        return member


def _copy_out(options: argparse.Namespace, name: str, path: str, target: str) -> None:
    if target == "-" and sys.stdout.isatty():
        raise UsageError("standard output is a terminal: send the tar to a file or program")
    request = api.CopyOutRequest(name=name, path=path, follow=options.follow_link)
    with node(options.host) as calls:
        pieces = (answer.data for answer in calls.CopyOut(request))
        if target == "-":
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        try:
            with tarfile.open(fileobj=cast("IO[bytes]", Pieces(pieces)), mode="r|", errorlevel=2) as archive:
                _unpack(archive, target, keep=options.archive)
        except tarfile.TarError as error:
            raise Failure(f"what came of {safe(path)} is not complete: {safe(str(error))}") from None
        except OSError as error:
            raise Failure(
                f"{safe(str(error.filename or target))} cannot be written: {error.strerror}"
            ) from None


class Pieces:
    """What comes, as a file."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces, self._rest = iter(pieces), b""

    def read(self, size: int) -> bytes:
        """So many bytes, or all that are left."""
        found = [self._rest]
        length = len(self._rest)
        while length < size and (piece := next(self._pieces, b"")):
            found.append(piece)
            length += len(piece)
        data = b"".join(found)
        self._rest = data[size:]
        return data[:size]


def _unpack(archive: tarfile.TarFile, target: str, *, keep: bool) -> None:
    """By the rules of docker: into a folder that is there, or in place of what is not. Whatever the archive says, it
    stays in there: it comes from a container."""
    folder, rename, described = -1, "", list[tuple[tuple[str, ...], tarfile.TarInfo]]()
    for member in archive:
        if folder < 0:
            folder, rename = _landing(member, target)
        parts = _parts(member.name, rename)
        if not parts:
            continue
        parent = _opened(folder, parts[:-1])
        if member.isdir():
            with contextlib.suppress(FileExistsError):
                os.mkdir(parts[-1], 0o700, dir_fd=parent)
            described.append((parts, member))
        else:
            _one(
                archive,
                member,
                parent,
                parts[-1],
                folder,
                _parts(member.linkname, rename) if member.islnk() else (),
            )
            if keep and not member.islnk():
                os.chown(parts[-1], member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
            if member.isreg():
                os.chmod(parts[-1], member.mode & (0o7777 if keep else 0o777), dir_fd=parent)
                os.utime(parts[-1], (member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)
        os.close(parent)
    for parts, member in reversed(described):
        fd = _opened(folder, parts)
        if keep:
            os.fchown(fd, member.uid, member.gid)
        os.fchmod(fd, member.mode & (0o7777 if keep else 0o777))
        os.utime(fd, (member.mtime, member.mtime))
        os.close(fd)


def _landing(first: tarfile.TarInfo, target: str) -> tuple[int, str]:
    """The folder that entries go into, and what the first part of their names becomes."""
    if os.path.isdir(target):
        return os.open(target, os.O_RDONLY | os.O_DIRECTORY), ""
    if os.path.lexists(target) and first.isdir():
        raise Failure(f"{safe(target)} is a file, and a folder cannot take its place")
    if target.endswith("/") and not first.isdir():
        raise Failure(f"there is no folder {safe(target)}")
    above, name = os.path.split(target.rstrip("/"))
    try:
        return os.open(above or ".", os.O_RDONLY | os.O_DIRECTORY), name
    except FileNotFoundError:
        raise Failure(f"there is no folder {safe(above)}") from None


def _parts(name: str, rename: str) -> tuple[str, ...]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if rename:
        parts = [rename, *parts[name.split("/", 1)[0] not in (".", "") :]]
    if ".." in parts:
        raise Failure(f"{safe(name)} would lead out of where it belongs")
    return tuple(parts)


def _opened(folder: int, parts: tuple[str, ...]) -> int:
    """A folder below another; no link is followed."""
    found = os.dup(folder)
    for part in parts:
        above = found
        with contextlib.suppress(FileExistsError):
            os.mkdir(part, 0o755, dir_fd=above)
        found = os.open(part, _OPEN_FOLDER, dir_fd=above)
        os.close(above)
    return found


def _one(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    parent: int,
    name: str,
    folder: int,
    linked: tuple[str, ...],
) -> None:
    """A file, link or pipe, in place of what has its name."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
            raise Failure(f"{safe(name)} is a folder here, and something else in the container")
        os.unlink(name, dir_fd=parent)
    if member.isreg():
        data = cast(BinaryIO, archive.extractfile(member))
        with open(os.open(name, _NEW_FILE, 0o600, dir_fd=parent), "wb") as file:
            while piece := data.read(CHUNK):
                file.write(piece)
    elif member.issym():
        os.symlink(member.linkname, name, dir_fd=parent)
    elif member.islnk():
        above = _opened(folder, linked[:-1])
        os.link(linked[-1], name, src_dir_fd=above, dst_dir_fd=parent, follow_symlinks=False)
        os.close(above)
    elif member.isfifo():
        os.mkfifo(name, member.mode & 0o777, dir_fd=parent)

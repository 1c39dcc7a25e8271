"""`tinyo image import` and `export`: archives are files of whoever runs the command, and go to the node as bytes."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import grpc
from tinyo.node.v1 import node_pb2 as api
from tinyo.v1.image_pb2 import Image, ImportSpec

from tinyo_ctl.failures import Failure, UsageError
from tinyo_ctl.render import size, succeed
from tinyo_ctl.services import node
from tinyo_ctl.tell import safe

#: Bytes that are sent at once.
CHUNK = 512 << 10


def import_images(options: argparse.Namespace) -> int:
    """`tinyo image import`."""
    from tinyo_ctl.progress import Progress

    spec = ImportSpec(
        references=options.references, name=options.name, platform=options.platform, changes=options.change
    )
    source = Source(options.file)
    with node(options.host) as calls, Progress("importing") as progress:
        try:
            for answer in calls.ImportImages(source.requests(spec)):
                if answer.HasField("progress"):
                    progress.show(answer.progress)
                else:
                    progress.close()
                    tell(answer.image)
        except grpc.RpcError:
            if source.failure:  # what gRPC says of it is less
                raise source.failure from None
            raise
    return 0


class Source:
    """What is imported: a file, standard input, or the folder of an OCI layout. Raises Failure when it cannot be."""

    def __init__(self, path: str) -> None:
        #: What ended the sending.
        self.failure: Exception | None = None
        self._name = "standard input" if path == "-" else safe(path)
        self._chunks: Iterable[bytes]
        if path == "-":
            if sys.stdin.isatty():
                raise UsageError("standard input is a terminal: name a file, or send an archive to it")
            self._chunks = pieces(sys.stdin.buffer)
        elif os.path.isdir(path):
            from tinyo_ctl import layouts  # only for a folder

            self._chunks = layouts.packed(path)
        else:
            try:
                self._chunks = pieces(open(path, "rb", buffering=0))  # noqa: SIM115 - open as long as we send
            except OSError as error:
                raise self._unreadable(error) from None

    def requests(self, spec: ImportSpec) -> Iterator[api.ImportImagesRequest]:
        """What is sent. gRPC asks for each when the node can take it, in a thread of its own."""
        yield api.ImportImagesRequest(start=spec)
        try:
            for chunk in self._chunks:
                yield api.ImportImagesRequest(data=chunk)
        except OSError as error:
            self.failure = self._unreadable(error)
            raise
        except Failure as error:
            self.failure = error
            raise

    def _unreadable(self, error: OSError) -> Failure:
        name = safe(str(error.filename)) if error.filename else self._name
        return Failure(f"{name} cannot be read: {error.strerror}")


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """A file, as it comes."""
    while piece := os.read(file.fileno(), CHUNK):
        yield piece


def export_images(options: argparse.Namespace) -> int:
    """`tinyo image export`."""
    if options.layout and options.output:
        raise UsageError("--output is for an archive, and --layout for a folder: use one of them")
    to_stdout = not options.layout and options.output in ("", "-")
    if to_stdout and sys.stdout.isatty():
        raise UsageError("standard output is a terminal: use -o FILE, or send it to a file or program")
    content: list[Image] = []
    with node(options.host) as calls:
        answers = calls.ExportImages(api.ExportImagesRequest(references=options.references))
        if options.layout:
            from tinyo_ctl import layouts  # only for a folder

            layouts.unpack(received(answers, content), options.layout)
        elif to_stdout:
            for data in received(answers, content):
                sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            from tinyo_ctl.whole import written

            written(options.output, received(answers, content))
    if not to_stdout:
        for image in content:
            tell(image)
    return 0


def received(answers: Iterable[api.ExportImagesResponse], content: list[Image]) -> Iterator[bytes]:
    """The bytes of an archive; what is in it is added to a list."""
    for answer in answers:
        if answer.HasField("content"):
            content.extend(answer.content.images)
        else:
            yield answer.data


def tell(image: Image) -> None:
    """Says what came, or went."""
    succeed(safe(", ".join(image.references) or "<none>"), safe(image.digest), size(image.size_bytes))

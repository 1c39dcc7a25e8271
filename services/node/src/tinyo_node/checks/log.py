"""How much of what a container writes is kept."""

from collections.abc import Iterator

from tinyo.v1.container_pb2 import ContainerSpec

MIN_SIZE, MAX_SIZE = 64 << 10, 1 << 40
MAX_FILES = 1000


def check(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    """All that is wrong."""
    if (size := spec.log.max_size_bytes) and not MIN_SIZE <= size <= MAX_SIZE:
        yield "log.max_size_bytes", f"a log's file has 64k to 1024g, and not {size} bytes"
    if spec.log.max_files > MAX_FILES:
        yield "log.max_files", f"a log has {MAX_FILES} files at most"

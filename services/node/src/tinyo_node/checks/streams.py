"""What a container reads and writes."""

from collections.abc import Iterator

from tinyo.v1.container_pb2 import ContainerSpec
from tinyo.v1.stdin_pb2 import STANDARD_INPUT_OPEN, STANDARD_INPUT_UNSPECIFIED, StandardInput


def fill(spec: ContainerSpec) -> None:
    """An open standard input is what each has, however that was said."""
    if spec.stdin == STANDARD_INPUT_OPEN:
        spec.stdin = STANDARD_INPUT_UNSPECIFIED


def check(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    """All that is wrong."""
    if spec.stdin not in StandardInput.values():
        yield "stdin", f"stdin {spec.stdin} is unknown: say open, closed, or once"

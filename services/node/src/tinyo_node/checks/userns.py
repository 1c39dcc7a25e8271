"""Whether a container gets a user namespace."""

from collections.abc import Iterator

from tinyo.v1.container_pb2 import ContainerSpec
from tinyo.v1.userns_pb2 import UserNamespace


def check(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    """The runtime decides where nothing is said."""
    if spec.userns not in UserNamespace.values():
        yield "userns", f"userns {spec.userns} is unknown: say on, off, or nothing"

"""A write that fails is undone in memory."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from tinyo.v1.container_pb2 import Container

if TYPE_CHECKING:
    from tinyo_node.cluster import Key, State


@contextlib.contextmanager
def on_failure(state: "State", wanted: "Mapping[Key, Container | None]") -> Iterator[None]:
    """Puts back what was wanted before under these names, except where somebody wanted something else since."""
    before = {key: state.containers.get(key) for key in wanted}
    try:
        yield
    except BaseException:
        for key, container in before.items():
            if state.containers.get(key) is wanted[key]:
                state.containers.pop(key, None)
                if container:
                    state.containers[key] = container
        raise


@contextlib.contextmanager
def unwritten(state: "State", containers: Iterable[Container]) -> Iterator[None]:
    """What cannot be written is in memory as it was written last, so that the next look sees what is to be done."""
    try:
        yield
    except OSError:
        for container in containers:
            for value in state.table.read(f"clusters/{container.cluster}/containers/{container.spec.name}"):
                written = Container.FromString(value)
                if written.id == container.id:
                    container.CopyFrom(written)
        raise

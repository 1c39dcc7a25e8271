"""Finding containers: by name, by id, by the beginning of an id, by the Statefile that they came from."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import grpc
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1

from tinyo_node.errors import TinyoError
from tinyo_node.specs import NAME

if TYPE_CHECKING:
    from tinyo_node.cluster import State


def cluster_name(name: str) -> str:
    """The cluster that a request means. INVALID_SPEC for a malformed name."""
    if name and not NAME.fullmatch(name):
        message = f"{name!r} is no name for a cluster"
        raise TinyoError(
            grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", message, violations={"cluster": message}
        )
    return name or "default"


def find(state: "State", cluster: str, name: str) -> v1.Container:
    """By name, id, or the beginning of an id (4 digits at least). CONTAINER_NOT_FOUND when it is not one."""
    cluster = cluster_name(cluster)
    if exact := state.containers.get((cluster, name)):
        return exact
    here = [container for key, container in state.containers.items() if key[0] == cluster]
    found = [container for container in here if len(name) >= 4 and container.id.startswith(name)]
    if len(found) == 1:
        return found[0]
    message = f"there is no container {name!r} in cluster {cluster!r}: `tinyo ls -a` shows all"
    if found:
        message = f"{name!r} is the beginning of several ids: {', '.join(c.id for c in found)}"
    raise TinyoError(grpc.StatusCode.NOT_FOUND, "CONTAINER_NOT_FOUND", message, {"name": name})


def find_all(state: "State", cluster: str, names: Iterable[str]) -> list[v1.Container]:
    """Each once, in the order of the names."""
    found = [find(state, cluster, name) for name in names]
    return list({container.id: container for container in found}.values())


def arrange(found: list[v1.Container], request: pb.ListRequest) -> None:
    """Leaves those of one Statefile, if one is named, in the order of their names."""
    found[:] = sorted(
        (container for container in found if request.origin in ("", container.origin)),
        key=lambda container: container.spec.name,
    )


def resolve(state: "State", request: pb.RemoveRequest) -> None:
    """Turns ids, and the Statefile, of a request into names. CONTAINER_NOT_FOUND when one means nothing."""
    found = find_all(state, request.cluster, request.names)
    if request.origin:
        cluster = cluster_name(request.cluster)
        of_file = [
            container
            for key, container in state.containers.items()
            if key[0] == cluster and container.origin == request.origin
        ]
        if not of_file:
            message = f"no container belongs to {request.origin}: `tinyo ls -a` shows all"
            raise TinyoError(
                grpc.StatusCode.NOT_FOUND, "CONTAINER_NOT_FOUND", message, {"name": request.origin}
            )
        found += of_file
    request.names[:] = dict.fromkeys(container.spec.name for container in found)

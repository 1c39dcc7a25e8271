"""What is executed, from image and spec together: program and arguments."""

from typing import TYPE_CHECKING

from tinyo_runtime import failures

if TYPE_CHECKING:
    from tinyo.v1.container_pb2 import ContainerSpec

    from tinyo_runtime.images.image import ImageConfig


def of(spec: "ContainerSpec", image: "ImageConfig") -> list[str]:
    """As docker has it: with an entrypoint of its own the image's Cmd is not used. Raises TinyoError COMMAND_NOT_FOUND
    when nothing is left."""
    own = spec.HasField("entrypoint")
    before = spec.entrypoint.words if own else image.entrypoint
    default = () if own or spec.args else image.cmd
    argv = [*before, *(spec.command or default), *spec.args]
    if not argv:
        raise failures.no_command()
    return argv

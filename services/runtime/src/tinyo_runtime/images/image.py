"""What an image is once it is complete here."""

from typing import Any, NamedTuple

#: A JSON object of the OCI image specification, with its names.
Document = dict[str, Any]


class ImageConfig(NamedTuple):
    """What the image says about its process."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    #: "NAME=value".
    env: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    #: "SIGTERM", "15" or empty.
    stop_signal: str = ""


class Image(NamedTuple):
    """An image that is verified and unpacked."""

    #: Of its manifest.
    digest: str
    #: Names of folders below `layers/`, the top layer first.
    layers: tuple[str, ...]
    config: ImageConfig
    #: Complete names; none when another image has taken them over.
    references: tuple[str, ...] = ()
    #: "linux/amd64".
    platform: str = ""
    #: Bytes of compressed layers and configuration.
    size: int = 0
    #: Seconds since 1970, 0 when unknown.
    created: int = 0

"""What goes wrong with images, in the words and reasons that callers see."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from tinyo_runtime.errors import TinyoError

if TYPE_CHECKING:
    from tinyo_runtime.images.reference import Reference


class Malformed(Exception):
    """A document of an image is not what the OCI image specification says; the text says where."""


@contextmanager
def explained(reference: "Reference") -> Iterator[None]:
    """What a pull raises becomes what its callers are told; of many layers, the first that failed counts."""
    try:
        yield
    except TinyoError:
        raise
    except ExceptionGroup as group:
        first = group.exceptions[0]
        raise (first if isinstance(first, TinyoError) else _told(reference, first)) from None
    except Exception as error:
        if (told := _told(reference, error)) is error:
            raise
        raise told from error


def _told(reference: "Reference", error: Exception) -> Exception:
    import httpx  # when it is needed: it takes long

    if isinstance(error, Malformed):
        return corrupt(reference, str(error))
    if isinstance(error, httpx.RequestError | httpx.InvalidURL):
        return unreachable(reference, said(error))
    return TinyoError.of(error) if isinstance(error, OSError) else error


def said(error: BaseException) -> str:
    """The text of an error, or of the nearest one that led to it and has one: a library's own often has none.

    Without numbers, which say nothing to people.
    """
    found: BaseException | None = error
    while found and not str(found):
        found = found.__cause__ or found.__context__
    text = str(found) if found else type(error).__name__
    return re.sub(r"^\[Errno -?\d+\] ", "", text)


def may_pass(error: BaseException) -> bool:
    """Whether the same pull may go further later: it was cancelled, or its registry could not be reached."""
    import httpx  # when it is needed: it takes long

    if isinstance(error, TinyoError):
        return error.reason == "REGISTRY_UNREACHABLE"
    return isinstance(error, asyncio.CancelledError | httpx.RequestError)


def is_full(error: Exception) -> bool:
    """Whether the disk could not take it; of many layers, any."""
    if isinstance(error, ExceptionGroup):
        return any(map(is_full, error.exceptions))
    return TinyoError.of(error).reason == "DISK_FULL"


def no_room(folder: Path, percent: float, lacking: int) -> TinyoError:
    """DISK_FULL, before it is."""
    message = (
        f"the disk at {folder} is {percent:.0f} % full, and some of it stays free (disk_reserve in "
        f"runtime.toml): {max(0.1, lacking / 1e6):.1f} MB more are needed, `tinyo image prune -a` may free them"
    )
    return TinyoError(grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL", message, {"path": str(folder)})


def reference_invalid(text: str) -> TinyoError:
    """IMAGE_REFERENCE_INVALID."""
    shown = text if len(text) <= 100 else text[:100] + "…"
    return TinyoError(
        grpc.StatusCode.INVALID_ARGUMENT,
        "IMAGE_REFERENCE_INVALID",
        f"{shown!r} is not the name of an image: write it like alpine, alpine:3.20 or host:5000/team/app:1.2",
        {"reference": shown},
    )


def not_here(reference: str) -> TinyoError:
    """IMAGE_NOT_FOUND on this machine."""
    return TinyoError(
        grpc.StatusCode.NOT_FOUND,
        "IMAGE_NOT_FOUND",
        f"image {reference} is not here: `tinyo image ls` lists what is",
        {"reference": reference},
    )


def not_there(reference: "Reference") -> TinyoError:
    """IMAGE_NOT_FOUND in its registry."""
    return TinyoError(
        grpc.StatusCode.NOT_FOUND,
        "IMAGE_NOT_FOUND",
        f"image {reference} was not found: registry {reference.registry} does not have it",
        {"reference": str(reference), "registry": reference.registry},
    )


def in_use(reference: str, digest: str) -> TinyoError:
    """IMAGE_IN_USE."""
    return TinyoError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "IMAGE_IN_USE",
        f"image {reference} is used by a container: remove the container first",
        {"reference": reference, "digest": digest},
    )


def unreadable(reference: str) -> TinyoError:
    """IMAGE_CORRUPT: its documents here are missing or damaged."""
    return TinyoError(
        grpc.StatusCode.DATA_LOSS,
        "IMAGE_CORRUPT",
        f"image {reference} cannot be read here, so nobody knows what it needs: `tinyo image pull` its reference "
        "again, or `tinyo image rm` it",
        {"reference": reference},
    )


def no_name(reference: str) -> TinyoError:
    """IMAGE_REFERENCE_INVALID: a digest cannot be given."""
    return TinyoError(
        grpc.StatusCode.INVALID_ARGUMENT,
        "IMAGE_REFERENCE_INVALID",
        f"{reference!r} has a digest, which nobody can give an image: write a name like team/app:1.2",
        {"reference": reference},
    )


def denied(reference: "Reference") -> TinyoError:
    """REGISTRY_DENIED."""
    return TinyoError(
        grpc.StatusCode.PERMISSION_DENIED,
        "REGISTRY_DENIED",
        f"registry {reference.registry} denies access to {reference}: it does not exist there, or is not public "
        f"(`tinyo login {reference.registry}` may help)",
        {"reference": str(reference), "registry": reference.registry},
    )


def login_denied(registry: str) -> TinyoError:
    """REGISTRY_DENIED to whoever wants to log in."""
    return TinyoError(
        grpc.StatusCode.PERMISSION_DENIED,
        "REGISTRY_DENIED",
        f"registry {registry} does not accept this user and password: nothing was kept",
        {"registry": registry},
    )


def login_invalid(registry: str, why: str) -> TinyoError:
    """LOGIN_INVALID."""
    shown = registry[:100]
    message = f"there is no login for {shown!r}: {why}"
    return TinyoError(grpc.StatusCode.INVALID_ARGUMENT, "LOGIN_INVALID", message, {"registry": shown})


def misconfigured(file: str, why: str) -> TinyoError:
    """REGISTRY_MISCONFIGURED: a file on this machine, about registries, is of no use."""
    message = f"{file} is of no use: {why}: correct it, or take it away"
    return TinyoError(grpc.StatusCode.FAILED_PRECONDITION, "REGISTRY_MISCONFIGURED", message, {"file": file})


def unreachable(reference: "Reference", why: str) -> TinyoError:
    """REGISTRY_UNREACHABLE."""
    return TinyoError(
        grpc.StatusCode.UNAVAILABLE,
        "REGISTRY_UNREACHABLE",
        f"registry {reference.registry} cannot be reached: {why}",
        {"registry": reference.registry},
    )


def busy(reference: "Reference", status: int, wait: float) -> TinyoError:
    """REGISTRY_UNREACHABLE, and for longer than anybody wants to wait."""
    why = f"it answers with status {status}, and wants to be asked again in {wait:.0f} seconds"
    return unreachable(reference, why)


def platform_invalid(text: str) -> TinyoError:
    """PLATFORM_INVALID."""
    shown = text if len(text) <= 100 else text[:100] + "…"
    message = f"{shown!r} is not a platform: write it like linux/amd64, linux/arm/v7 or arm64"
    return TinyoError(grpc.StatusCode.INVALID_ARGUMENT, "PLATFORM_INVALID", message, {"platform": shown})


def platform_missing(reference: "Reference", platform: str, available: list[str]) -> TinyoError:
    """IMAGE_PLATFORM_MISSING."""
    offered = ", ".join(available) or "none"
    return TinyoError(
        grpc.StatusCode.NOT_FOUND,
        "IMAGE_PLATFORM_MISSING",
        f"image {reference} is not made for {platform}, but for {offered}",
        {"reference": str(reference), "platform": platform, "available": offered},
    )


def only_here(reference: "Reference", platform: str, available: str, error: Exception) -> TinyoError:
    """IMAGE_PLATFORM_MISSING: an image is here for another platform, and its registry does not help."""
    return TinyoError(
        grpc.StatusCode.NOT_FOUND,
        "IMAGE_PLATFORM_MISSING",
        f"image {reference} is here for {available}, and not for {platform}; and {said(error)}",
        {"reference": str(reference), "platform": platform, "available": available},
    )


def corrupt(reference: "Reference", why: str, **facts: str) -> TinyoError:
    """IMAGE_CORRUPT: what was served is not what was promised, or breaks the rules."""
    message = f"image {reference} is not intact and was not kept: {why}"
    return TinyoError(
        grpc.StatusCode.DATA_LOSS, "IMAGE_CORRUPT", message, {"reference": str(reference), **facts}
    )


def not_unpacked(reference: "Reference", layer: str, why: str) -> TinyoError:
    """INTERNAL: the process that unpacks did not do its work, whosever fault that is."""
    message = (
        f"layer {layer} of image {reference} was not unpacked, because of the process that does it: {why}"
    )
    return TinyoError(grpc.StatusCode.INTERNAL, "INTERNAL", message)


def unsupported(reference: "Reference", media_type: str, why: str = "it is not known here") -> TinyoError:
    """IMAGE_UNSUPPORTED: a kind of content that is not known here."""
    return TinyoError(
        grpc.StatusCode.UNIMPLEMENTED,
        "IMAGE_UNSUPPORTED",
        f"image {reference} has content of type {media_type[:100]!r} that cannot be used: {why}",
        {"reference": str(reference), "media_type": media_type[:100]},
    )


def too_large(reference: "Reference", limit: int) -> TinyoError:
    """REGISTRY_UNREACHABLE, because what it answers cannot be meant."""
    return unreachable(reference, f"it answers with a document of more than {limit} bytes")

"""What registries answer to who brings something, and what that means to people."""

import json
import re
from typing import TYPE_CHECKING, Any

import grpc

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import answers, failures
from tinyo_runtime.images.reference import Reference

if TYPE_CHECKING:
    import httpx

#: Characters that are shown of what a registry says.
MAX_WORDS = 300


def of(target: Reference, response: "httpx.Response", body: bytes) -> TinyoError:
    """The error that an answer means; Passing when the registry may take the same later."""
    status = response.status_code
    code, words = _said(body)
    said = f" ({words})" if words else ""
    if status in (401, 403):
        return denied(target, said)
    if status in (408, 425, 429) or (status >= 500 and status != 507):
        return _later(target, response, said)
    if code == "NAME_UNKNOWN" or (status == 404 and not code):
        why = f"it has no repository {target.repository}{said}: create it there first"
    elif status == 405:
        why = f"it takes nothing: it can only be read from{said}"
    elif status == 413:
        why = f"a part of the image is larger than what it, or a proxy before it, takes{said}"
    elif status == 507:
        why = f"it has no space left{said}"
    else:
        why = f"it answers with status {status}{said}"
    return rejected(target, why, status=str(status))


def _later(target: Reference, response: "httpx.Response", said: str) -> TinyoError:
    """When a registry may take the same, by the rules for all answers."""
    later = failures.unreachable(target, f"it answers with status {response.status_code}{said}")
    try:
        answers.check(target, response)
    except answers.Passing as passing:
        return answers.Passing(later, passing.after)
    except TinyoError as error:
        return error
    return later


def rejected(target: Reference, why: str, **facts: str) -> TinyoError:
    """REGISTRY_REJECTED: it does not take what we bring."""
    return TinyoError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "REGISTRY_REJECTED",
        f"registry {target.registry} does not take {target}: {why}",
        {"reference": str(target), "registry": target.registry, **facts},
    )


def denied(target: Reference, said: str = "") -> TinyoError:
    """REGISTRY_DENIED to who wants to push."""
    return TinyoError(
        grpc.StatusCode.PERMISSION_DENIED,
        "REGISTRY_DENIED",
        f"registry {target.registry} does not let us push {target}{said}: `tinyo login {target.registry}` as "
        "somebody who may",
        {"reference": str(target), "registry": target.registry},
    )


def altered(target: Reference, expected: str, actual: str) -> TinyoError:
    """IMAGE_CORRUPT: it does not keep what we brought."""
    shown = actual[:150]
    return TinyoError(
        grpc.StatusCode.DATA_LOSS,
        "IMAGE_CORRUPT",
        f"registry {target.registry} keeps {shown} instead of {expected}: do not rely on {target} there",
        {"reference": str(target), "expected": expected, "actual": shown},
    )


def damaged(reference: str, kind: str, digest: str, what: str) -> TinyoError:
    """IMAGE_CORRUPT: a blob that is here is not what its digest says."""
    return unfit(reference, f"the {kind} {digest} {what}: `tinyo image pull` the image again", digest=digest)


def partial(reference: str, offered: int, missing: int) -> TinyoError:
    """IMAGE_CORRUPT: an index cannot be pushed without all that it names."""
    return unfit(
        reference,
        f"it is an index of {offered} manifests, of which {missing} are not here: `tinyo image tag {reference} NEW` "
        "gives NEW to the one for this machine, which can be pushed",
    )


def unfit(reference: str, why: str, **facts: str) -> TinyoError:
    """IMAGE_CORRUPT: what is here cannot be pushed."""
    message = f"image {reference} was not pushed: {why}"
    return TinyoError(grpc.StatusCode.DATA_LOSS, "IMAGE_CORRUPT", message, {"reference": reference, **facts})


def not_ours(reference: str, media_type: str) -> TinyoError:
    """IMAGE_UNSUPPORTED: a layer must not be given to others."""
    shown = media_type[:100]
    message = f"image {reference} was not pushed: it has a layer of type {shown!r}, which may not be given to others"
    facts = {"reference": reference, "media_type": shown}
    return TinyoError(grpc.StatusCode.UNIMPLEMENTED, "IMAGE_UNSUPPORTED", message, facts)


def nowhere(reference: str) -> TinyoError:
    """IMAGE_REFERENCE_INVALID: it does not say to which registry."""
    message = (
        f"{reference!r} does not say where to push to: add a reference like registry.example.com/team/app:1.2"
    )
    return TinyoError(
        grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_REFERENCE_INVALID", message, {"reference": reference}
    )


def _said(body: bytes) -> tuple[str, str]:
    """The code of the first error in an answer (OCI distribution, "Error Codes"), and all that it says."""
    try:
        error: Any = json.loads(body)["errors"][0]
        code, message = error.get("code"), error.get("message")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return "", ""
    texts = [text for text in (code, message) if isinstance(text, str) and text.strip()]
    words = ": ".join(" ".join(text.split()) for text in texts)
    shown = words if len(words) <= MAX_WORDS else f"{words[:MAX_WORDS]}…"
    return (code if isinstance(code, str) and re.fullmatch(r"[A-Z_]+", code) else ""), shown

"""Which images of an archive are wanted, and what they are called here."""

import re

import grpc
from tinyo.v1.image_pb2 import ImportSpec

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import failures, offers
from tinyo_runtime.images.archive import shown, unusable
from tinyo_runtime.images.offers import Offer
from tinyo_runtime.images.reference import Reference

#: So much of a digest is enough to mean it.
_DIGEST = r"sha(256|512):[0-9a-f]{12,128}"


def chosen(found: list[Offer], spec: ImportSpec) -> list[Offer]:
    """The offers that are wanted, in the order of the archive. Raises TinyoError."""
    wanted = dict.fromkeys(spec.references)
    if len(wanted) > offers.MAX_IMAGES:
        raise invalid("references", f"{len(wanted)} images are more than an archive has")
    called = [{*offer.names, *(str(_parsed(name)) for name in offer.names)} for offer in found]
    found_here: dict[int, Offer] = {}
    for reference in wanted:
        is_digest = re.fullmatch(_DIGEST, reference)
        name = reference if is_digest else str(Reference.parse(reference))
        meant = {
            number: offer
            for number, offer in enumerate(found)
            if not called[number].isdisjoint((reference, name))
            or (is_digest and any(digest.startswith(name) for digest in (offer.digest, offer.id)))
        }
        if not meant:
            raise _not_there(reference, found)
        found_here |= meant
    result = [found_here[number] for number in sorted(found_here)] or found
    if spec.name and len(result) > 1:
        raise invalid("name", f"a name is for one image: say which of these is meant: {_shown(result)}")
    return result


def references(offer: Offer, spec: ImportSpec) -> list[Reference]:
    """Which names an image gets, at least one. Raises TinyoError."""
    if spec.name:
        return [complete(spec.name)]
    if not offer.names:
        raise invalid("name", f"image {offer.digest} has no name in the archive: give it one with --name")
    result = []
    for name in offer.names:
        if not (reference := _parsed(name)) or reference.digest:
            raise unusable(f"it calls an image {shown(name)}, which is no name: give it another with --name")
        result.append(reference)
    return result


def complete(name: str) -> Reference:
    """A complete name. Raises TinyoError."""
    if (reference := Reference.parse(name)).digest:
        raise failures.no_name(name)
    return reference


def _parsed(name: str) -> Reference | None:
    """A name that an archive gives, if it is one."""
    try:
        return Reference.parse(name)
    except TinyoError:
        return None


def _shown(found: list[Offer]) -> str:
    """A few of them, for people."""
    few = [", ".join(offer.names)[:200] or offer.digest for offer in found[:20]]
    return "; ".join([*few, *(["and more"] if len(found) > 20 else [])])


def _not_there(reference: str, found: list[Offer]) -> TinyoError:
    """IMAGE_NOT_FOUND in an archive."""
    message = f"image {reference[:300]} is not in the archive, which has {_shown(found)}"
    metadata = {"reference": reference[:300]}
    return TinyoError(grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND", message, metadata)


def invalid(field: str, why: str) -> TinyoError:
    """INVALID_SPEC."""
    return TinyoError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", why, field=field)

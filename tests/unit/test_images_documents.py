"""Documents and headers that nobody would write: understood, or refused in a sentence, whatever they are."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import answers, catalog, choice, kinds, names, order, platforms, verify
from tinyo_runtime.images.failures import Malformed
from tinyo_runtime.images.reference import Reference

from tests.support.images import GZIP, INDEX, MANIFEST

REFERENCE = Reference.parse("registry.test/x:1")
DIGESTS = [f"sha256:{'0a' * 32}", f"sha512:{'0a' * 64}", "sha256:0", "sha256:../../x", ""]
WORDS = ["linux", "amd64", "arm", "v7", "v", "7", "unknown", "windows", "\0", "\x1b[2J", "\ud800", "²"]
TYPES = [MANIFEST, INDEX, GZIP, "application/vnd.oci.image.config.v1+json", "", "x"]
KEYS = [
    "mediaType",
    "digest",
    "size",
    "platform",
    "annotations",
    "os",
    "architecture",
    "variant",
    "artifactType",
]
KEYS += [
    "manifests",
    "layers",
    "config",
    "rootfs",
    "diff_ids",
    "created",
    "Cmd",
    "Env",
    "User",
    "schemaVersion",
]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 2**70)
    | st.floats()
    | st.sampled_from(DIGESTS + WORDS + TYPES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=8,
)
platform = st.fixed_dictionaries(
    {}, optional={key: st.sampled_from(WORDS) for key in platforms.Platform._fields}
)
descriptor = st.fixed_dictionaries(
    {"mediaType": st.sampled_from(TYPES), "digest": st.sampled_from(DIGESTS), "size": st.integers(-1, 10)},
    optional={"platform": platform | values, "annotations": values, "artifactType": values},
)
document = values | st.fixed_dictionaries(
    {},
    optional={
        "schemaVersion": st.integers(0, 3),
        "mediaType": st.sampled_from(TYPES) | values,
        "manifests": st.lists(descriptor | values, max_size=5) | values,
        "layers": st.lists(descriptor | values, max_size=5) | values,
        "config": descriptor | values,
        "rootfs": st.fixed_dictionaries({"diff_ids": st.lists(st.sampled_from(DIGESTS)) | values}) | values,
        "architecture": st.sampled_from(WORDS) | values,
        "os": st.sampled_from(WORDS) | values,
        "variant": st.sampled_from(WORDS) | values,
    },
)
objects = document.filter(lambda one: isinstance(one, dict))
much = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.filter_too_much]
)


@pytest.fixture(scope="module", autouse=True)
def pull() -> Iterator[order.Order]:
    with order.entered(order.Order(platform=platforms.of("linux/arm/v7"))) as _:
        yield order.current()


def understood(read: Callable[[], object]) -> None:
    """Or refused, with nothing in the text that a terminal obeys."""
    try:
        read()
    except TinyoError as error:
        assert error.message.isprintable()
    except Malformed:
        pass


@much
@given(objects, st.sampled_from(TYPES))
def test_manifests(given: dict[str, Any], said: str) -> None:
    def read() -> None:
        kinds.check_content(REFERENCE, given, said)
        verify.manifest(given)
        kinds.check_config(REFERENCE, given["config"]["mediaType"])
        for layer in given["layers"]:
            kinds.check_layer(REFERENCE, layer["mediaType"])

    understood(read)


@much
@given(objects, st.sampled_from(["linux/arm/v7", "linux/amd64", "windows"]))
def test_indexes(given: dict[str, Any], wanted: str) -> None:
    def read() -> None:
        offered = choice.offers(given)
        found = choice.best(offered, platforms.of(wanted))
        assert found is None or found in offered
        for entry in choice.nested(offered, platforms.of(wanted)):
            assert entry in offered
        ", ".join(choice.names(offered))

    understood(read)


@much
@given(objects, objects, platform)
def test_configurations(given: dict[str, Any], manifest: dict[str, Any], offered: dict[str, str]) -> None:
    def read() -> None:
        pull = order.Order(platform=platforms.of("linux/arm/v7"), offered=offered)
        pull.manifest = verify.manifest(manifest)
        verify.configuration(REFERENCE, given, pull)

    understood(read)


@much
@given(objects)
def test_entries_that_other_tools_wrote(given: dict[str, Any]) -> None:
    names.name_of(given)
    names.resolved_of(given)
    catalog.references_of([given])


@much
@given(st.text(max_size=50) | st.sampled_from(["Wed, 21 Oct 2015 07:28:00 GMT", "-1", "1e9", "9" * 400, "²"]))
def test_times_and_parts_that_a_registry_says(text: str) -> None:
    """Never a wait that is not a number of seconds, whatever the header says."""
    raw = [
        (key, text.encode(errors="replace"))
        for key in (b"Retry-After", b"Content-Range", b"Docker-Content-Digest")
    ]
    response = httpx.Response(429, headers=raw)
    assert answers._wait(response) >= 0
    answers._start(response)
    assert len(answers.promise(response).digest) in (0, 71, 135)


@much
@given(st.text(max_size=30) | st.lists(st.sampled_from(WORDS), max_size=4).map("/".join))
def test_platforms(text: str) -> None:
    def read() -> None:
        found = platforms.of(text)
        assert platforms.of(platforms.name(found)) == found
        assert platforms.rank(found, found) == 0

    understood(read)

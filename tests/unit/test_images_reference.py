"""Names of images: what people write, and what must be refused."""

import grpc
import pytest
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images.reference import Reference

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("written", "complete"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/library/alpine", "docker.io/library/alpine:latest"),
        ("localhost/demo", "localhost/demo:latest"),
        ("localhost:5000/a/b__c/d-e:1", "localhost:5000/a/b__c/d-e:1"),
        ("ghcr.io/o/x@" + DIGEST, "ghcr.io/o/x@" + DIGEST),
        ("ghcr.io/o/x:1@" + DIGEST, "ghcr.io/o/x:1@" + DIGEST),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
    ],
)
def test_complete(written: str, complete: str) -> None:
    assert str(Reference.parse(written)) == complete
    assert Reference.parse(complete) == Reference.parse(written)


@pytest.mark.parametrize(
    "written",
    [
        "",
        ":",
        "@",
        "/",
        "Alpine",
        "a//b",
        "../etc",
        "a/../b",
        "alpine:",
        "alpine@",
        "alpine:-x",
        "alpine@sha256:12",
        "alpine@md5:" + "0" * 32,
        "alpine:" + "x" * 129,
        "host:99999/x",
        "host:/x",
        "[::zz]/x",
        "1.2.3.999/x",
        "a b",
        "alpine\n",
        "alpine\0",
        "x" * 300,
        "http://host/x",
        "host.de/x?y",
        "user:pw@host.de/x",
        "ünïcödé",
        "\x1b[31m",
    ],
)
def test_refused(written: str) -> None:
    with pytest.raises(TinyoError) as caught:
        Reference.parse(written)
    assert caught.value.reason == "IMAGE_REFERENCE_INVALID"
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.message.isprintable()

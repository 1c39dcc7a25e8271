"""The calls that containers may make are Docker's, save those that differ on purpose."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tinyo_node.checks import seccomp
from tinyo_runtime import libseccomp
from tinyo_runtime.options import capabilities, filters, profile, profiles

from tests.unit.test_filters import I386, X32, X86_64, answer

#: The package that has Docker's own profile, and where.
PACKAGE = "golang-github-docker-docker-dev"
JSON = "usr/share/gocode/src/github.com/docker/docker/profiles/seccomp/default.json"
#: Ours alone refuses these, or looks at their arguments.
ON_PURPOSE = {"io_uring_enter", "io_uring_register", "io_uring_setup", "socket", "socketcall"}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Docker's profile."""
    folder = tmp_path_factory.mktemp("docker")
    fetched = subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, capture_output=True, text=True)
    if fetched.returncode:
        pytest.skip(f"{PACKAGE} cannot be had: {fetched.stderr.strip()}")
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    return Path(folder, JSON).read_text()


@pytest.fixture(scope="module")
def rules(text: str) -> list[dict[str, Any]]:
    """Docker's rules without arguments that allow."""
    syscalls = json.loads(text)["syscalls"]
    return [
        rule
        for rule in syscalls
        if rule["action"] == "SCMP_ACT_ALLOW" and not rule["args"] and machine(rule["includes"])
    ]


def machine(includes: dict[str, list[str]]) -> bool:
    """Whether a rule is for machines that we run on."""
    return not {*includes.get("arches", ())}.isdisjoint({"amd64", "arm64"}) or "arches" not in includes


def test_the_calls_of_every_container_are_dockers(rules: list[dict[str, Any]]) -> None:
    theirs = {name for rule in rules if "caps" not in rule["includes"] for name in rule["names"]}
    assert theirs ^ profile.ALLOWED == ON_PURPOSE


def test_the_calls_that_need_a_capability_are_dockers(rules: list[dict[str, Any]]) -> None:
    theirs = {rule["includes"]["caps"][0]: set(rule["names"]) for rule in rules if "caps" in rule["includes"]}
    assert theirs == profile.WITH_CAPABILITY


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the entries are those of x86-64")
@pytest.mark.parametrize("more", [0, 1 << 21, 1 << 19 | 1 << 25])
def test_dockers_profile_as_somebodys_own_does_the_same(text: str, more: int) -> None:
    """By every entry, and whatever the capabilities are: they open the same calls in both."""
    seccomp.profile(text)
    caps = capabilities.names(0x800405FB | more)
    theirs, ours = profiles.compiled(text, caps), filters.compiled(caps)
    on_purpose = {libseccomp.number_of(name) for name in ON_PURPOSE}
    for entry, keys in ((X86_64, range(248, 251)), (I386, range(286, 289)), (X32, range(248, 251))):
        differ = {
            number for number in range(512) if answer(theirs, entry, number) != answer(ours, entry, number)
        }
        assert differ - {*keys, 102 if entry == I386 else -1} <= on_purpose, hex(entry)
    for argument in (0, 1 << 28, 0x20000, 1 << 17 | 17, 8):
        for number in (56, 135):  # clone, personality
            assert answer(theirs, X86_64, number, argument) == answer(ours, X86_64, number, argument)

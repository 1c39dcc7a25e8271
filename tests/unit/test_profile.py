"""The calls that containers may make are Docker's, save those that differ on purpose."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tinyo_runtime.options import profile

#: The package that has Docker's own profile, and where.
PACKAGE = "golang-github-docker-docker-dev"
JSON = "usr/share/gocode/src/github.com/docker/docker/profiles/seccomp/default.json"
#: Ours alone refuses these, or looks at their arguments.
ON_PURPOSE = {"io_uring_enter", "io_uring_register", "io_uring_setup", "socket", "socketcall"}


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Docker's rules without arguments that allow."""
    folder = tmp_path_factory.mktemp("docker")
    fetched = subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, capture_output=True, text=True)
    if fetched.returncode:
        pytest.skip(f"{PACKAGE} cannot be had: {fetched.stderr.strip()}")
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    syscalls = json.loads(Path(folder, JSON).read_text())["syscalls"]
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

"""The key `security` of Statefiles: what it means, and what is no such thing; and profiles of system calls."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tinyo.v1 import security_pb2 as v1
from tinyo.v1.container_pb2 import ContainerSpec
from tinyo_ctl.mistakes import StatefileError, place
from tinyo_ctl.statefile import load
from tinyo_node.checks import security
from tinyo_runtime.options import capabilities, filters, profiles

from tests.unit.test_filters import X86_64, answer

ALLOW_ALL = '{"defaultAction": "SCMP_ACT_ALLOW"}'


def changed(add: list[Any], drop: list[Any]) -> v1.CapabilityChange:
    return v1.CapabilityChange(add=add, drop=drop)


def spec_of(folder: Path, text: str) -> ContainerSpec:
    file = folder / "web.yml"
    file.write_text(f"container: a\n{text}\n")
    return load(str(file)).containers[0]


def test_what_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "web.json").write_text(ALLOW_ALL)
    (tmp_path / "default").write_text("[]")
    own = v1.Seccomp(kind=v1.SECCOMP_KIND_PROFILE, file="web.json", profile=ALLOW_ALL)
    for text, meant in {
        "capabilities: {add: NET_ADMIN}": v1.Security(
            capabilities=v1.CapabilityChange(add=[v1.CAPABILITY_NET_ADMIN])
        ),
        "capabilities: {add: [cap_net_raw, SYS_TIME], drop: all}": v1.Security(
            capabilities=v1.CapabilityChange(
                add=[v1.CAPABILITY_NET_RAW, v1.CAPABILITY_SYS_TIME], drop=[v1.CAPABILITY_ALL]
            )
        ),
        "seccomp: default": v1.Security(seccomp=v1.Seccomp()),
        "seccomp: unconfined": v1.Security(seccomp=v1.Seccomp(kind=v1.SECCOMP_KIND_UNCONFINED)),
        "seccomp: web.json": v1.Security(seccomp=own),
        f"seccomp: {tmp_path}/web.json": v1.Security(seccomp=own),
        "no_new_privileges: true": v1.Security(),
        "no_new_privileges: false": v1.Security(new_privileges=True),
        "apparmor: default": v1.Security(),
        "apparmor: unconfined": v1.Security(apparmor="unconfined"),
        "apparmor: mine": v1.Security(apparmor="mine"),
    }.items():
        spec = spec_of(tmp_path, f"security: {{{text}}}")
        assert spec.security == meant
        assert not list(security.check(spec))


@pytest.mark.parametrize(
    ("text", "at", "said"),
    [
        ("capabilities: {add: [NET_ADMIM]}", 33, "unknown capability 'NET_ADMIM': did you mean 'NET_ADMIN'?"),
        ("capabilities: [NET_ADMIN]", 26, "lines with 'key: value' are expected here"),
        ("capability: {}", 12, "unknown key 'capability': did you mean 'capabilities'?"),
        ("seccomp: none.json", 21, "the profile FOLDER/none.json cannot be read: No such file or directory"),
        ("seccomp: large.json", 21, "the profile FOLDER/large.json is larger than 128 KiB"),
        ("seccomp: binary.json", 21, "the profile FOLDER/binary.json is not UTF-8"),
        ("seccomp: .", 21, "the profile FOLDER/. cannot be read: Is a directory"),
        ("seccomp: ''", 21, "write default, unconfined, or the file of a profile"),
        ("no_new_privileges: no", 31, "'no' is neither true nor false"),
        ("apparmor: ''", 22, "write default, unconfined, or the name of a profile that is loaded"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, text: str, at: int, said: str) -> None:
    (tmp_path / "large.json").write_text(" " * (128 << 10) + "{}")
    (tmp_path / "binary.json").write_bytes(b"\xff")
    with pytest.raises(StatefileError) as caught:
        spec_of(tmp_path, f"security: {{{text}}}")
    told = str(caught.value).splitlines()[0].removeprefix(f"{tmp_path}/").replace(str(tmp_path), "FOLDER")
    assert told == f"web.yml:2:{at}: {said}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is no JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[]", "it is no JSON object"),
        ("[" * 100_000, "it nests too deeply"),
        ("1" * 10_000, "it is no JSON: "),
        (" " * (128 << 10) + "{}", "it is larger than 128 KiB"),
        ('{"syscalls": [], "syscalls": []}', "\"syscalls\" is there twice in one object"),
        ("{}", "defaultAction: null is no action; there are SCMP_ACT_ALLOW, "),
        ({"defaultAction": "ALLOW"}, 'defaultAction: "ALLOW" is no action'),
        ({"defaultAction": "x" * 200}, f'defaultAction: "{"x" * 58}… is no action'),
        ({"defaultErrnoRet": 4096}, "defaultErrnoRet: 4096 is no number from 0 to 4095"),
        ({"listenerPath": "/run/x"}, "listenerPath: there is no listener beside a container"),
        ({"syscalls": {"a": 1}}, "syscalls: a list is expected here"),
        ({"syscalls": [1]}, "syscalls[0]: an object is expected here"),
        ({"architectures": ["x86"]}, 'architectures[0]: "x86" is no architecture, such as SCMP_ARCH_X86_64'),
        ({"architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86"}]}, "architectures: "),
        ({"archMap": [{"subArchitectures": []}]}, "archMap[0].architecture: null is no architecture"),
        ([{"action": "SCMP_ACT_NOTIFY"}], "syscalls[0].action: SCMP_ACT_NOTIFY needs a program beside the container"),
        ([{"action": "SCMP_ACT_TRACE"}], "syscalls[0].action: SCMP_ACT_TRACE needs a program beside the container"),
        ([{"errnoRet": True}], "syscalls[0].errnoRet: true is no number"),
        ([{"names": "mkdir"}], "syscalls[0].names: a list is expected here"),
        ([{"names": ["a\0b"]}], 'syscalls[0].names[0]: "a\\u0000b" is no name of a system call'),
        ([{"name": "a", "names": ["b"]}], "syscalls[0]: say `name` or `names`, and not both"),
        ([{"args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}], "syscalls[0].args[0].index: 6 is no number from 0 to 5"),
        ([{"args": [{"value": -1, "op": "SCMP_CMP_EQ"}]}], "syscalls[0].args[0].value: -1 is no number"),
        ([{"args": [{"value": 1}]}], "syscalls[0].args[0].op: null is none of SCMP_CMP_NE"),
        ([{"includes": []}], "syscalls[0].includes: an object is expected here"),
        ([{"excludes": {"caps": [1]}}], "syscalls[0].excludes.caps[0]: a text is expected here"),
        ([{"includes": {"minKernel": "new"}}], 'syscalls[0].includes.minKernel: "new" is no version of a kernel'),
        ([{"args": [{"op": "SCMP_CMP_EQ"}, {"index": 1, "op": "SCMP_CMP_EQ"}]}] * 33, "syscalls[32].args: too many "),
        ([{"names": ["a"] * 1025, "args": [{"op": "SCMP_CMP_EQ"}]}], "syscalls[0].args: too many arguments "),
        ([{"comment": "what is unknown", "names": ["no_such_call", "mkdir"], "args": None, "includes": {}}], None),
    ],
)  # fmt: skip
def test_profiles_that_mean_nothing(tmp_path: Path, text: Any, said: str | None) -> None:
    if isinstance(text, list):
        text = {"syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"} | rule for rule in text]}
    if isinstance(text, dict):
        text = json.dumps({"defaultAction": "SCMP_ACT_ALLOW"} | text)
    seccomp = v1.Seccomp(kind=v1.SECCOMP_KIND_PROFILE, file="web.json", profile=text)
    spec = ContainerSpec(security=v1.Security(seccomp=seccomp))
    found = list(security.check(spec))
    if said is None:
        assert not found
        assert profiles.compiled(text, frozenset())
        return
    ((field, sentence),) = found
    assert (field, sentence[: len(said) + 18]) == ("security.seccomp", f"profile web.json: {said}")
    assert len(sentence) < 500
    written = "container: a\nsecurity:\n  seccomp: web.json\n"
    assert place(written, f"containers[0].{field}") == (3, 12)


@pytest.mark.parametrize(
    ("spec", "field", "said"),
    [
        (v1.Security(capabilities=changed([100], [100])), "capabilities.drop[0]", "ALL is added and dropped"),
        (v1.Security(capabilities=changed([4], [1, 4])), "capabilities.drop[1]", "FOWNER is added and dropped"),
        (v1.Security(capabilities=changed([0], [])), "capabilities.add[0]", "0 is no capability"),
        (v1.Security(capabilities=changed([], [77])), "capabilities.drop[0]", "77 is no capability"),
        (v1.Security(apparmor="a\nb"), "apparmor", "'a\\nb' is no name of an AppArmor profile"),
        (v1.Security(apparmor="a" * 256), "apparmor", "'aaa"),
        (v1.Security(seccomp=v1.Seccomp(profile="{}")), "seccomp", "a profile of system calls is there, and is not asked for"),
    ],
)  # fmt: skip
def test_what_the_node_refuses(spec: v1.Security, field: str, said: str) -> None:
    ((found, sentence),) = security.check(ContainerSpec(security=spec))
    assert (found, sentence[: len(said)]) == (f"security.{field}", said)


def test_what_is_left_of_the_eleven() -> None:
    def mask(add: list[Any], drop: list[Any]) -> int:
        return capabilities.mask(changed(add, drop))

    assert mask([], []) == 0x800405FB
    assert mask([v1.CAPABILITY_SYS_ADMIN], [v1.CAPABILITY_CHOWN]) == 0x800405FB ^ 1 | 1 << 21
    assert mask([v1.CAPABILITY_KILL], [v1.CAPABILITY_ALL]) == 1 << 5
    assert mask([v1.CAPABILITY_ALL], [v1.CAPABILITY_CHOWN]) == capabilities.ours() ^ 1
    assert capabilities.names(1 << 21 | 1) == {"CAP_SYS_ADMIN", "CAP_CHOWN"}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")
def test_when_a_rule_counts() -> None:
    """For mkdir(2), which has number 83: whether the rule refuses it, by what its container and its machine are."""
    refused = filters.ERRNO | errno.EPERM
    for condition, with_admin, without in (
        ({}, True, True),
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, True, False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, False, True),
        ({"includes": {"arches": ["amd64", "arm64"]}}, True, True),
        ({"includes": {"arches": ["s390x"]}}, False, False),
        ({"excludes": {"arches": ["amd64", "arm64"]}}, False, False),
        ({"includes": {"minKernel": "3.0"}}, True, True),
        ({"includes": {"minKernel": "99.0"}}, False, False),
        ({"excludes": {"minKernel": "3.0"}}, False, False),
    ):
        rule = {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"} | condition
        text = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
        for caps, expected in ((frozenset({"CAP_SYS_ADMIN"}), with_admin), (frozenset[str](), without)):
            found = answer(profiles.compiled(text, caps), X86_64, 83)
            assert found == (refused if expected else filters.ALLOW), condition


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")
def test_actions_and_arguments() -> None:
    def rule(name: str, action: str, **more: Any) -> dict[str, Any]:
        return {"names": [name], "action": f"SCMP_ACT_{action}"} | more

    masked = {"index": 0, "value": 0xFF, "valueTwo": 7, "op": "SCMP_CMP_MASKED_EQ"}
    either = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (3, 4)]
    text = json.dumps(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "syscalls": [
                rule("mkdir", "ERRNO", errnoRet=13),
                rule("rmdir", "KILL_PROCESS"),
                rule("close", "LOG"),
                rule("dup", "ALLOW", args=[masked]),
                rule("fsync", "ALLOW", args=either),
                rule("read", "ERRNO", errnoRet=38),
            ],
        }
    )
    program = profiles.compiled(text, frozenset())
    default = filters.ERRNO | 38
    for number, argument, expected in (
        (83, 0, filters.ERRNO | 13),
        (84, 0, 0x80000000),
        (3, 0, 0x7FFC0000),
        (32, 0x1007, filters.ALLOW),
        (32, 0x1008, default),
        (74, 3, filters.ALLOW),
        (74, 4, filters.ALLOW),
        (74, 5, default),
        (0, 0, default),
    ):
        assert answer(program, X86_64, number, argument) == expected, (number, argument)
    assert answer(program, 0x40000003, 39) == filters.ERRNO | errno.ENOSYS, "i386 was not asked for"

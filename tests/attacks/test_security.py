"""Attacks by somebody in a container on what capabilities, system calls and no_new_privs keep from them: each fails, and
is seen to succeed when that one defence is taken away."""

import asyncio
import json
import os
from collections.abc import Sequence
from typing import Any

import pytest
from tinyo.v1.security_pb2 import (
    CAPABILITY_ALL,
    CAPABILITY_CHOWN,
    CAPABILITY_NET_RAW,
    CAPABILITY_SYS_ADMIN,
    Capability,
    CapabilityChange,
    Seccomp,
)
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.failures import SpawnError
from tinyo_runtime.options import capabilities, seccomp
from tinyo_runtime.spawner import harden

from tests.support.box import Box, InBox, line

CHOWN = "busybox chown 5 /etc/group && echo done || echo kept"
MKDIR = "busybox mkdir /new && echo done || echo kept"
MOUNT = "mount -t tmpfs tmpfs /dev/shm && echo done || echo kept"


def caps(
    add: Sequence[Capability.ValueType] = (), drop: Sequence[Capability.ValueType] = ()
) -> dict[str, Any]:
    """Of a plan."""
    return {"capabilities": capabilities.mask(CapabilityChange(add=add, drop=drop))}


def profile(**more: Any) -> str:
    """A profile that allows all but what is said."""
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "archMap": ARCHITECTURES} | more)


ARCHITECTURES = [
    {
        "architecture": "SCMP_ARCH_X86_64",
        "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_S390X"],
    },
    {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
]
NO_MKDIR = [
    {"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "args": None, "errnoRet": 30}
]


def own(text: str, mask: int = harden.DEFAULT_CAPABILITIES) -> dict[str, Any]:
    """Of a plan."""
    return {"seccomp": seccomp.own(Seccomp(file="web.json", profile=text), mask)}


async def said(box: Box, how: str, script: str, **plan: Any) -> list[str]:
    """What a script says, as a container or as a further process in one; both have the same plan."""
    if how == "start":
        return (await box.run(script, **plan))[1].splitlines()
    container = await box.start("c", "sh", **plan)
    process = await box.join(container, "e", "sh", "-c", f"exec 2>&1; {script}", **plan)
    await asyncio.wait_for(process.exited, 20)
    os.set_blocking(process.stdout, False)
    return os.read(process.stdout, 1 << 16).decode().splitlines()


both = pytest.mark.parametrize("how", ["start", "exec"])


@both
@pytest.mark.parametrize(
    ("plan", "result"),
    [
        ({}, "done"),
        (caps(), "done"),
        (caps(drop=[CAPABILITY_CHOWN]), "kept"),
        (caps(drop=[CAPABILITY_ALL]), "kept"),
        (caps(add=[CAPABILITY_CHOWN], drop=[CAPABILITY_ALL]), "done"),
        (caps(add=[CAPABILITY_ALL], drop=[CAPABILITY_CHOWN]), "kept"),
    ],
)
def test_who_has_not_the_capability_changes_no_owner(
    box: InBox, how: str, plan: dict[str, Any], result: str
) -> None:
    async def check(box: Box) -> None:
        assert (await said(box, how, CHOWN, **plan))[-1] == result

    box(check)


@both
@pytest.mark.parametrize("user", ["", "bob"])
@pytest.mark.parametrize("gains", [False, True])
def test_the_five_sets(box: InBox, how: str, user: str, gains: bool) -> None:
    """Nothing is inheritable or ambient; who is not root has nothing, and can gain what root has."""

    async def check(box: Box) -> None:
        for change, mask in (
            (caps(), 0x800405FB),
            (caps(add=[CAPABILITY_NET_RAW], drop=[CAPABILITY_CHOWN]), 0x800405FB ^ 1 | 1 << 13),
            (caps(add=[CAPABILITY_ALL]), capabilities.ours()),
            (caps(drop=[CAPABILITY_ALL]), 0),
        ):
            plan = change | {"user": user, "new_privileges": gains, "seccomp": seccomp.program()}
            lines = await said(box, how, "grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status", **plan)
            found = {name: int(value, 16) for name, value in (one.split(":\t") for one in lines)}
            own = 0 if user else mask
            assert found == {"CapInh": 0, "CapPrm": own, "CapEff": own, "CapBnd": mask, "CapAmb": 0} | {
                "NoNewPrivs": int(not gains),
                "Seccomp": 2,
            }
            for process in [*box.client.processes.values()]:
                await box.end(process)

    box(check)


def test_a_capability_opens_its_calls_and_no_others_do(box: InBox) -> None:
    """The filter is that of the capabilities which the container has: neither alone lets anybody mount."""
    admin = caps(add=[CAPABILITY_SYS_ADMIN])
    opened = {"seccomp": seccomp.program(admin["capabilities"])}

    async def check(box: Box) -> None:
        for plan, result in (
            (admin | opened, "done"),
            (admin | {"seccomp": seccomp.program()}, "kept"),
            (opened, "kept"),
        ):
            assert (await box.run(MOUNT, **plan))[1].splitlines()[-1] == result

    box(check)


@both
def test_calls_that_a_profile_refuses(box: InBox, how: str) -> None:
    async def check(box: Box) -> None:
        assert await said(box, how, MKDIR, **own(profile(syscalls=NO_MKDIR))) == [
            "mkdir: can't create directory '/new': Read-only file system",
            "kept",
        ]

    box(check)


def test_without_the_profile_they_reach_the_kernel(box: InBox) -> None:
    async def check(box: Box) -> None:
        for program in (seccomp.program(), None, own(profile())["seccomp"]):
            script = f"{MKDIR}; busybox rmdir /new; grep Seccomp: /proc/self/status"
            mode = "0" if program is None else "2"
            assert (await box.run(script, seccomp=program))[1].splitlines() == ["done", f"Seccomp:\t{mode}"]

    box(check)


@pytest.mark.parametrize("gains", [False, True])
def test_a_set_user_id_program_makes_nobody_root(box: InBox, gains: bool) -> None:
    def inside() -> None:
        import os
        import shutil

        shutil.copy("/usr/bin/cat", "/program")
        with open("/secret", "w") as file:
            file.write("secret")
        os.chmod("/secret", 0o600)
        os.chmod("/program", 0o4755)
        print(flush=True)
        input()

    async def check(box: Box) -> None:
        container = await box.run_python("c", inside)
        await line(container.stdout)
        plan = {"user": "bob", "new_privileges": gains, "seccomp": seccomp.program()}
        process = await box.join(container, "e", "/program", "/secret", **plan)
        assert (await asyncio.wait_for(process.exited, 20)).code == int(not gains)
        os.set_blocking(process.stdout, False)
        assert os.read(process.stdout, 100) == (b"secret" if gains else b"")

    box(check)


@both
@pytest.mark.parametrize("user", ["", "bob"])
def test_a_profile_without_capset_takes_nothing_from_who_gains_privileges(
    box: InBox, how: str, user: str
) -> None:
    """CAP_SYS_ADMIN, which loading the filter needs then, has gone with exec all the same."""

    async def check(box: Box) -> None:
        refused = [{"names": ["capset"], "action": "SCMP_ACT_KILL_PROCESS"}]
        plan = own(profile(syscalls=refused)) | {"user": user, "new_privileges": True}
        lines = await said(box, how, "grep -E '^(Cap(Prm|Eff|Bnd)|Seccomp:)' /proc/self/status", **plan)
        mask = "0000000000000000" if user else "00000000800405fb"
        expected = [f"CapPrm:\t{mask}", f"CapEff:\t{mask}", "CapBnd:\t00000000800405fb", "Seccomp:\t2"]
        assert lines == expected

    box(check)


def test_a_profile_that_refuses_what_a_start_needs_says_so(box: InBox) -> None:
    async def check(box: Box) -> None:
        rules = [{"name": "execve", "action": "SCMP_ACT_ERRNO"}]
        with pytest.raises(SpawnError) as caught:
            await box.start("c", "true", **own(profile(syscalls=rules)))
        assert (caught.value.step, caught.value.errno) == ("execute", 1)

    box(check)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        "[" * 100_000,
        '{"defaultAction": ["SCMP_ACT_ALLOW"]}',
        '{"defaultAction": "SCMP_ACT_NOTIFY"}',
        profile(syscalls=[1]),
        profile(syscalls={"a": 1}),
        profile(syscalls=[{"names": ["mkdir"], "action": "SCMP_ACT_TRACE"}]),
        profile(syscalls=[{"names": ["mkdir\0rest"], "action": "SCMP_ACT_ERRNO"}]),
        profile(syscalls=[{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"op": "SCMP_CMP_XX"}]}]),
        profile(
            syscalls=[
                {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 9, "op": "SCMP_CMP_EQ"}]}
            ]
        ),
        profile(
            syscalls=[{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "a.b"}}]
        ),
        profile(
            syscalls=[
                {"names": ["openat"], "action": "SCMP_ACT_ERRNO", "args": [{"value": n, "op": "SCMP_CMP_EQ"}]}
                for n in range(2000)
            ]
        ),
    ],
    ids=lambda text: text[:30],
)
def test_what_is_no_profile_starts_nothing(text: str) -> None:
    """Also when no node has looked at it."""
    with pytest.raises(TinyoError) as caught:
        own(text)
    assert caught.value.reason == "SECCOMP_UNUSABLE"
    assert caught.value.message.startswith("the profile web.json of system calls cannot be used: ")

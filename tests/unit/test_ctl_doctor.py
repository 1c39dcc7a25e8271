"""`tinyo doctor` with a node that says what a test wants, and the programs that attacks are made of."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tinyo.v1.diagnosis_pb2 import Finding, FindingState
from tinyo.v1.version_pb2 import Version
from tinyo_ctl.attacking import ATTACKS
from tinyo_ctl.attacks import calls, elf

from tests.support.fake_node import FakeNode

TINYO = Path(sys.executable).with_name("tinyo")
ON, OFF, IMPOSSIBLE = (
    FindingState.FINDING_STATE_ON,
    FindingState.FINDING_STATE_OFF,
    FindingState.FINDING_STATE_IMPOSSIBLE,
)


def doctor(node: FakeNode, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TINYO_HOST": node.address, "TINYO_INSTANCE": "nobody"}
    return subprocess.run(
        [TINYO, "doctor", *arguments], env=environment, capture_output=True, text=True, timeout=60
    )


def test_what_is_off_says_what_to_do(node: FakeNode) -> None:
    node.runtime = Version(program="9.8.7")
    node.diagnosis = [
        Finding(name="seccomp", state=ON, why="libseccomp 2.5.4", remedy="never shown"),
        Finding(name="disk", state=OFF, why="full\x1b[2J", remedy="tinyo image prune -a"),
        Finding(name="clock", state=OFF, optional=True, why="nobody keeps it right", remedy="run NTP"),
        Finding(name="AppArmor", state=IMPOSSIBLE, why="this kernel has none"),
    ]
    done = doctor(node)
    assert done.returncode == 1, done.stderr
    rows = done.stdout.splitlines()
    shown = next(number for number, line in enumerate(rows) if line.startswith("✗ disk"))
    assert "full\\x1b[2J" in rows[shown], "a terminal does not obey what others say"
    assert rows[shown + 1].strip() == "→ tinyo image prune -a"
    assert any(line.startswith("· clock") for line in rows)
    assert "- AppArmor                    impossible  this kernel has none" in rows
    assert "never shown" not in done.stdout and "Not all is well: " in rows[-1]
    found = [json.loads(line) for line in doctor(node, "-o", "json").stdout.splitlines()]
    assert {
        "name": "clock",
        "state": "off",
        "optional": True,
        "why": "nobody keeps it right",
        "remedy": "run NTP",
    } in found


def test_services_of_another_version_are_told(node: FakeNode) -> None:
    node.runtime = Version(program="9.8.6")
    (services,) = map(json.loads, doctor(node, "-o", "json").stdout.splitlines())
    assert services["state"] == "off"
    assert "tinyo-node 9.8.7, tinyo-runtime 9.8.6" in services["why"]


@pytest.mark.parametrize(
    ("made", "code"),
    [
        ((calls.call("getpid"),), 0),
        ((calls.call("close", -1),), errno.EBADF),
        ((calls.call("getpid"), calls.call("access", -100, b"/etc/passwd", 0)), 0),
        (
            (calls.call("access", -100, b"/etc/passwd", 0), calls.call("access", -100, b"/nowhere", 0)),
            errno.ENOENT,
        ),
    ],
)
def test_a_program_ends_with_the_error_of_its_last_call(
    tmp_path: Path, made: tuple[elf.Call, ...], code: int
) -> None:
    path = tmp_path / "program"
    path.write_bytes(elf.program(*made))
    path.chmod(0o755)
    assert subprocess.run([path]).returncode == code


def test_a_program_for_arm64_is_what_an_assembler_makes() -> None:
    program = elf.program((172, ()), machine="aarch64")
    words = [int.from_bytes(program[at : at + 4], "little") for at in range(elf.HEADERS, len(program), 4)]
    # mov x8, 172; svc 0; cmp x0, 0; csneg x0, xzr, x0, ge; mov x8, 93; svc 0
    assert words[0] == 0xD2801588 and words[4:7] == [0xD4000001, 0xF100001F, 0xDA80A7E0]
    assert words[7] == 0xD2800BA8 and words[-1] == 0xD4000001


def test_attacks_have_names_of_their_own() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(set(names)) == len(names) and all(name.isascii() for name in names)

"""Platforms: what people write, what a machine can run in their place, and what it prefers."""

import pytest
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import platforms
from tinyo_runtime.images.platforms import Platform

#: What processors of each level have, as /proc/cpuinfo says it (x86-64 psABI, table 3.1).
V2 = "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"
V3 = f"{V2} avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A machine whose processor has AVX2."""
    found = Platform("linux", "amd64", "v3")
    monkeypatch.setattr(platforms, "host", lambda: found)
    return found


@pytest.mark.parametrize(
    ("written", "platform"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/X86-64/V1", "linux/amd64"),
        ("linux/amd64/v2", "linux/amd64/v2"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("arm64", "linux/arm64"),
        ("s390x", "linux/s390x"),
        ("linux", "linux/amd64"),
        ("", "linux/amd64/v3"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_usual_form(host: Platform, written: str, platform: str) -> None:
    assert platforms.name(platforms.want(written)) == platform


@pytest.mark.parametrize("written", ["/", "linux/", "linux/arm/v7/x", "linux arm", "\x1b[31m", " ", "x" * 40])
def test_no_platform(written: str) -> None:
    with pytest.raises(TinyoError) as caught:
        platforms.of(written)
    assert caught.value.reason == "PLATFORM_INVALID" and caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("wanted", "offered"),
    [
        ("", ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"]),
        ("linux/amd64/v2", ["linux/amd64/v2", "linux/amd64"]),
        ("linux/amd64", ["linux/amd64"]),
        ("linux/arm/v7", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/arm", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/arm/v6", ["linux/arm/v6", "linux/arm/v5"]),
        ("linux/arm64", ["linux/arm64"]),
        ("linux/riscv64", ["linux/riscv64"]),
    ],
)
def test_what_suits_in_order(host: Platform, wanted: str, offered: list[str]) -> None:
    everything = [
        *("linux/386", "linux/amd64", "linux/amd64/v2", "linux/amd64/v3", "linux/amd64/v4", "linux/arm/v5"),
        *("linux/arm/v6", "linux/arm/v7", "linux/arm/v8", "linux/arm64", "linux/riscv64", "windows/amd64"),
    ]
    ranks = {one: platforms.rank(platforms.want(wanted), platforms.of(one)) for one in everything}
    suiting = {one: rank for one, rank in ranks.items() if rank is not None}
    assert sorted(suiting, key=lambda one: suiting[one]) == offered


def test_an_arm_machine_runs_32_bits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platforms, "host", lambda: Platform("linux", "arm64"))
    ranks = [platforms.rank(platforms.want(""), platforms.of(f"linux/{one}")) for one in ("arm64", "arm/v7")]
    assert ranks == [0, 2]


def test_what_nobody_checked_is_no_platform() -> None:
    assert platforms.rank({"os": "linux"}, {"os": ["linux"], "architecture": 7}) is None


@pytest.mark.parametrize(("flags", "level"), [("", 1), (V2, 2), (V3, 3), (V4, 4), (V4.replace("pni", ""), 1)])
def test_levels_of_processors(flags: str, level: int) -> None:
    assert platforms.level(set(flags.split())) == level


def test_this_machine() -> None:
    mine = platforms.want("")
    assert platforms.host().os == "linux" and platforms.rank(mine, mine) == 0


def test_whoever_wants_no_platform_takes_any() -> None:
    assert platforms.of("") == {} and platforms.rank({}, {"os": "plan9"}) == 0

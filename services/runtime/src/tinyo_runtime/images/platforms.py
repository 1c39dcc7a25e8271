"""Platforms as people and images write them, and which of them a machine can run, the best first.

"linux/arm/v7" or an object of the OCI image specification; what means the same is one. The order is containerd's:
arm v7 takes v6 and v5 as well, amd64 v3 takes v2 and v1, and a machine also what its processor runs in 32 bits.
Versions and features of an operating system say nothing about Linux and are passed over.
"""

import functools
import platform as machine
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tinyo_runtime.images import failures

_WORD = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
#: What the same architecture is called elsewhere, with the variant that this means.
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armel": ("arm", "v6"),
    "armhf": ("arm", "v7"),
    "armv5tel": ("arm", "v5"),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v8"),
    "loongarch64": ("loong64", ""),
}
_KNOWN = {architecture for architecture, _ in _ARCHITECTURES.values()} | {
    "mips64le",
    "ppc64le",
    "riscv64",
    "s390x",
    *_ARCHITECTURES,
}
#: The variants that nearly every machine of an architecture has, which go without saying.
_PLAIN = {"amd64": "v1", "arm64": "v8"}
#: What each level of the x86-64 ABI has beyond the one before it, as /proc/cpuinfo calls it.
_LEVELS = (
    {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"},
    {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"},
    {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
)


class Platform(NamedTuple):
    """A platform in its usual form; the variant is empty where it goes without saying."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, self))

    def document(self) -> dict[str, str]:
        """As the OCI image specification has it."""
        return {key: value for key, value in self._asdict().items() if value}


def of(text: str) -> dict[str, str]:
    """What somebody asks for: "linux/arm/v7", "arm64", "linux". Raises TinyoError PLATFORM_INVALID."""
    parts = text.strip().lower().split("/") if text else []
    if len(parts) > 3 or not all(map(_WORD.fullmatch, parts)):
        raise failures.platform_invalid(text)
    if len(parts) == 1:
        parts = ["linux", *parts] if parts[0] in _KNOWN else [*parts, host().architecture]
    return _usual(*parts).document() if parts else {}


def want(text: str) -> dict[str, str]:
    """The same; for nothing, what this machine runs best. Raises TinyoError PLATFORM_INVALID."""
    return of(text) or host().document()


def said(document: Mapping[str, Any]) -> dict[str, str]:
    """What a document says of its platform, as it says it."""
    return {key: document[key] for key in Platform._fields if document.get(key)}


def normal(document: Mapping[str, Any]) -> Platform:
    """The platform that a document names; empty texts for what it does not say."""
    return _usual(*(str(document.get(key) or "") for key in Platform._fields))


def name(document: Mapping[str, Any]) -> str:
    """The same as one text."""
    return str(normal(document))


def rank(wanted: Mapping[str, Any], offered: Mapping[str, Any]) -> int | None:
    """How well a platform suits, 0 best; None when it does not. Whoever wants none takes any."""
    if not wanted:
        return 0
    suited = [*_suited(normal(wanted))]
    return suited.index(found) if (found := normal(offered)) in suited else None


def _suited(wanted: Platform) -> Iterator[Platform]:
    """What can be run in place of a platform, the best first."""
    yield from (wanted._replace(variant=variant) for variant in _variants(wanted))
    if wanted == host():
        narrower = {"amd64": ("386", ""), "arm64": ("arm", "v8")}.get(wanted.architecture)
        if narrower:
            narrow = Platform(wanted.os, *narrower)
            yield from (narrow._replace(variant=variant) for variant in _variants(narrow))


def _variants(wanted: Platform) -> Iterable[str]:
    """The variants of an architecture that one of them includes, that one first."""
    lowest = {"amd64": 1, "arm": 5}.get(wanted.architecture)
    number = re.fullmatch(r"v([1-9])", wanted.variant or _PLAIN.get(wanted.architecture, ""))
    if lowest is None or not number:
        return [wanted.variant]
    variants = [f"v{one}" for one in range(int(number[1]), lowest - 1, -1)]
    return ["" if variant == _PLAIN.get(wanted.architecture) else variant for variant in variants]


def _usual(os: str, architecture: str = "", variant: str = "") -> Platform:
    architecture, implied = _ARCHITECTURES.get(architecture.lower(), (architecture.lower(), ""))
    variant = variant.lower() or implied or ("v7" if architecture == "arm" else "")
    variant = f"v{variant}" if variant.isdecimal() else variant
    return Platform(os.lower(), architecture, "" if variant == _PLAIN.get(architecture) else variant)


@functools.cache
def host() -> Platform:
    """What this machine runs best."""
    found = _usual("linux", machine.machine())
    if found.architecture == "amd64":
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        found = _usual("linux", "amd64", f"v{level(set(flags[1].split() if flags else ()))}")
    return found


def level(flags: set[str]) -> int:
    """Of the x86-64 ABI, 1 to 4, that a processor with these abilities has."""
    reached = 1
    for needed in _LEVELS:
        if not needed <= flags:
            break
        reached += 1
    return reached

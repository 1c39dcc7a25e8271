"""What `make fuzz` begins with and what it found: every reader of strangers' bytes stands it, and a little chance."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinyo_runtime.images import challenges

from tests.fuzz.targets import TARGETS, findings, seeds
from tests.support.fuzzing import effort


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_findings(name: str) -> None:
    for data in (*seeds(name), *findings(name)):
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_a_little_chance(name: str) -> None:
    """Seeds with a piece cut out, doubled or replaced."""
    samples = list(seeds(name))
    places = st.integers(0, 4096)

    @effort(100, rate=10)
    @given(st.sampled_from(samples), places, places, st.binary(max_size=20), st.integers(0, 3))
    def tried(seed: bytes, start: int, length: int, new: bytes, times: int) -> None:
        at = start % (len(seed) + 1)
        TARGETS[name](seed[:at] + new * times + seed[at + length % 600 :])

    tried()


@pytest.mark.parametrize(
    "header", ["1" * 60_000, "=" * 30_000 + "-" * 30_000 + " " * 30_000, 'a="' + "\\" * 60_000, "a=" * 30_000]
)
def test_a_challenge_takes_no_longer_than_it_is_long(header: str) -> None:
    """These took minutes; so the clock that counts only our own time would notice."""
    begun = time.process_time()
    challenges.parse(header)
    assert time.process_time() - begun < 5

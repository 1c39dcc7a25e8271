"""Keys that leave a terminal."""

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinyo_ctl.detaching import DEFAULT, Keys, keys

#: What is typed, of few different keys, so that beginnings of the sequences come up.
TYPED = st.lists(st.text("\x10\x11ab").map(str.encode))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DEFAULT, b"\x10\x11"),
        ("ctrl-e,x", b"\x05x"),
        ("a", b"a"),
        ("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x00\x1b\x1c\x1d\x1e\x1f"),
        ("", b""),
    ],
)
def test_keys_are_written_as_docker_has_them(text: str, expected: bytes) -> None:
    assert keys(text) == expected


@pytest.mark.parametrize("text", ["foo", ",", "a,", "ctrl-", "ctrl-P", "ctrl-1", " ", "é", "ctrl-p ctrl-q"])
def test_others_are_none(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="are no keys"):
        keys(text)


@given(pieces=TYPED, sequence=st.sampled_from([b"\x10\x11", b"\x10\x10\x11", b"aab", b"a"]))
def test_however_it_is_typed_all_before_the_keys_is_input(pieces: list[bytes], sequence: bytes) -> None:
    """Nothing is lost, nothing of the keys is input, and only a beginning of them is held back."""
    found, passed, seen = Keys(sequence), b"", b""
    for piece in pieces:
        seen += piece
        data, detached = found.passed(piece)
        passed += data
        assert detached == (sequence in seen)
        if detached:
            assert passed == seen.partition(sequence)[0]
            return
        assert seen.startswith(passed) and sequence.startswith(seen[len(passed) :])


def test_no_keys_are_never_found() -> None:
    assert Keys(b"").passed(b"\x10\x11") == (b"\x10\x11", False)

"""Instructions that change an image's configuration: docker's grammar, and nothing that is taken for granted."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images.instructions import applied
from tinyo_runtime.images.words import words

BASE = {"Env": ["PATH=/bin", "A=1"], "Cmd": ["sh"], "WorkingDir": "/srv", "Labels": {"x": "y"}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (['CMD ["a", "b c"]'], {"Cmd": ["a", "b c"]}),
        (["cmd echo $A  b"], {"Cmd": ["/bin/sh", "-c", "echo $A  b"]}),
        (["CMD []"], {"Cmd": []}),
        (['ENTRYPOINT ["serve"]'], {"Entrypoint": ["serve"], "Cmd": None}),
        (['CMD ["x"]', 'ENTRYPOINT ["serve"]'], {"Entrypoint": ["serve"], "Cmd": ["x"]}),
        (["ENV B=2"], {"Env": ["PATH=/bin", "A=1", "B=2"]}),
        (["ENV A=$A$A B='$A' C=\"${A}x\" D=\\$A E=${X:-none} F=${A:+set}${X:+set}"],
         {"Env": ["PATH=/bin", "A=11", "B=$A", "C=1x", "D=$A", "E=none", "F=set"]}),
        (["ENV B=2", "ENV C=$B"], {"Env": ["PATH=/bin", "A=1", "B=2", "C=2"]}),
        (["ENV PATH=/opt:$PATH"], {"Env": ["PATH=/opt:/bin", "A=1"]}),
        (["ENV B two words"], {"Env": ["PATH=/bin", "A=1", "B=two words"]}),
        (["ENV B="], {"Env": ["PATH=/bin", "A=1", "B="]}),
        (["LABEL a=b 'c d'=\"e f\""], {"Labels": {"x": "y", "a": "b", "c d": "e f"}}),
        (["EXPOSE 80 53/udp 90-91/tcp"], {"ExposedPorts": {p: {} for p in ("80/tcp", "53/udp", "90/tcp", "91/tcp")}}),
        (["USER 1000:100"], {"User": "1000:100"}),
        (["WORKDIR app"], {"WorkingDir": "/srv/app"}),
        (["WORKDIR /a/../b/"], {"WorkingDir": "/b"}),
        (["STOPSIGNAL SIGQUIT"], {"StopSignal": "SIGQUIT"}),
        (["STOPSIGNAL 9"], {"StopSignal": "9"}),
        (['VOLUME ["/a", "/b c"]'], {"Volumes": {"/a": {}, "/b c": {}}}),
        (["VOLUME /a /b"], {"Volumes": {"/a": {}, "/b": {}}}),
        (["  USER\tbob  "], {"User": "bob"}),
    ],
)  # fmt: skip
def test_what_they_change(changes: list[str], expected: dict[str, Any]) -> None:
    before = repr(BASE)
    changed = applied(BASE, changes)
    assert {key: changed.get(key) for key in expected} == expected
    assert {key: value for key, value in changed.items() if key not in expected} == {
        key: value for key, value in BASE.items() if key not in expected
    }
    assert repr(BASE) == before


@pytest.mark.parametrize(
    "change",
    ["", "FROM scratch", "RUN x", "CMD", "ENV", "ENV A", "ENV A=1 B", "ENV =1", "LABEL a", "EXPOSE x", "EXPOSE 0",
     "EXPOSE 65536", "EXPOSE 9-8", "EXPOSE 80/icmp", "USER a b", "WORKDIR a b", "STOPSIGNAL SIGNOTHING", "STOPSIGNAL 0",
     "VOLUME data", 'CMD ["a"', "CMD [1]", "ENV A='x", 'LABEL a="', "ENV A=\0", "HEALTHCHECK NONE", "EXPOSE ²"],
)  # fmt: skip
def test_what_means_nothing_is_said(change: str) -> None:
    with pytest.raises(TinyoError) as raised:
        applied(BASE, ["USER x", change])
    assert (raised.value.reason, raised.value.field) == ("CHANGE_INVALID", "options.changes[1]")
    assert "\n" not in raised.value.message


def test_a_base_may_have_anything_where_maps_are_expected() -> None:
    odd: dict[str, Any] = {"Labels": [1], "ExposedPorts": "x", "Volumes": 3, "Shell": "sh", "Env": ["odd"]}
    changed = applied(odd, ["LABEL a=b", "EXPOSE 1", "VOLUME /v", "CMD x", "ENV A=1"])
    assert changed["Labels"] == {"a": "b"} and changed["Env"] == ["A=1"]
    assert changed["Cmd"] == ["/bin/sh", "-c", "x"]


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_any_text_has_words_or_a_reason(text: str, env: dict[str, str]) -> None:
    try:
        assert all(isinstance(word, str) for word in words(text, env))
    except ValueError as error:
        assert "has no end" in str(error)


@given(st.text())
def test_any_instruction_has_a_meaning_or_a_reason(text: str) -> None:
    for name in ("ENV", "LABEL", "EXPOSE", "VOLUME", "USER", "CMD", "STOPSIGNAL", "WORKDIR"):
        try:
            applied(BASE, [f"{name} {text}"])
        except TinyoError as error:
            assert error.reason == "CHANGE_INVALID"

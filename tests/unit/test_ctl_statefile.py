"""Statefiles: what they mean, and what is said about those that mean nothing."""

import ipaddress
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from tinyo.v1.container_pb2 import PROTOCOL_TCP, PROTOCOL_UDP, ContainerSpec, Mount, Port
from tinyo_ctl import mistakes, notation
from tinyo_ctl.mistakes import Place, StatefileError, place
from tinyo_ctl.statefile import load

ROOT = Path(__file__).resolve().parents[2]


def spec_of(tmp_path: Path, text: str) -> ContainerSpec:
    file = tmp_path / "web.yml"
    file.write_text(text)
    return load(str(file)).containers[0]


def complaint(tmp_path: Path, content: str | bytes) -> str:
    """What is said about a file, without its folder."""
    file = tmp_path / "web.yml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(StatefileError) as caught:
        load(str(file))
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_the_first_example() -> None:
    (spec,) = load(str(ROOT / "examples/basic/alpine-1.yml")).containers
    assert spec == ContainerSpec(
        name="alpine-1",
        image="alpine:latest",
        ports=[Port(host_port=8080, container_port=8080, protocol=PROTOCOL_TCP)],
        mounts=[
            Mount(source="/etc/hosts", target="/mnt/hosts"),
            Mount(source="/tmp/local-config", target="/config"),
        ],
    )


def test_one_line() -> None:
    (spec,) = load(str(ROOT / "examples/basic/one-line.yml")).containers
    assert spec == ContainerSpec(name="one-line", image="alpine:latest")


def test_everything_at_once(tmp_path: Path) -> None:
    spec = spec_of(
        tmp_path,
        """
container: registry:5000/team/app
name: app
command: sh -c 'echo "$A"'
env: {A: no, B: 0x10, C: "", D: 1.10, E: }
port: [80, "8080:80", 127.0.0.1:53:5353/udp, 22:22]
mounts:
  - {source: ../x, target: /x, read_only: true, create: true}
  - ~/y:/y:ro
  - ./z:/z
workdir: /srv
user: 0777
""",
    )
    parent = str(tmp_path.parent)
    assert MessageToDict(spec, preserving_proto_field_name=True) == {
        "name": "app",
        "image": "registry:5000/team/app",
        "command": ["sh", "-c", 'echo "$A"'],
        "env": {"A": "no", "B": "0x10", "C": "", "D": "1.10", "E": ""},
        "ports": [
            {"host_port": 80, "container_port": 80, "protocol": "PROTOCOL_TCP"},
            {"host_port": 8080, "container_port": 80, "protocol": "PROTOCOL_TCP"},
            {"host_ip": "127.0.0.1", "host_port": 53, "container_port": 5353, "protocol": "PROTOCOL_UDP"},
            {"host_port": 22, "container_port": 22, "protocol": "PROTOCOL_TCP"},
        ],
        "mounts": [
            {"source": f"{parent}/x", "target": "/x", "read_only": True, "create": True},
            {"source": str(Path("~/y").expanduser()), "target": "/y", "read_only": True},
            {"source": f"{tmp_path}/z", "target": "/z"},
        ],
        "workdir": "/srv",
        "user": "0777",
    }


def test_lists_of_words_and_of_variables(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "container: a\ncommand: [sleep, 10, true]\nenv: [A=b=c, B=]\n")
    assert list(spec.command) == ["sleep", "10", "true"]
    assert dict(spec.env) == {"A": "b=c", "B": ""}


def test_a_key_without_a_value_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "container: a\nmounts:\n#  - x:/x\nenv:\nport:\ncommand:\nname:\n")
    assert spec == ContainerSpec(name="web", image="a")


@pytest.mark.parametrize(
    ("file", "name"),
    [("Web App.yml", "web-app"), ("_x_.yaml", "x"), ("a.b.yml", "a.b"), ("ü" * 9 + ".yml", "")],
)
def test_a_file_gives_its_container_a_name(file: str, name: str) -> None:
    assert notation.name(file) == name
    assert len(notation.name("a" * 99 + ".yml")) == 63


def test_aliases_stand_for_what_they_name(tmp_path: Path) -> None:
    assert dict(spec_of(tmp_path, "container: &a alpine\nenv: {A: *a}\n").env) == {"A": "alpine"}


def test_where_fields_stand(tmp_path: Path) -> None:
    file = tmp_path / "web.yml"
    file.write_text("container: a\nport: [80, 81]\nmounts:\n  - source: /x\n    target: /y\nenv:\n  A.B: c\n")
    text = load(str(file)).statefile
    assert place(text, "containers[0].image") == Place(1, 12)
    assert place(text, "containers[0].ports[1].host_port") == Place(2, 12)
    assert place(text, "containers[0].mounts[0].source") == Place(4, 13)
    assert place(text, "containers[0].mounts[0].read_only") == Place(4, 5)
    assert place(text, "containers[0].env[A.B]") == Place(7, 8)
    assert place(text, "containers[0].env") == Place(7, 3)
    for unknown in ("", "x", "containers[1].image", "containers[0].", "[[["):
        assert place(text, unknown) == Place(0, 0)


GOLDEN = {
    "container: a\nprot: 80\n": "web.yml:2:1: unknown key 'prot': did you mean 'port'?\n  2 | prot: 80\n    | ^",
    "container: a\nxyzzy: 80\n": "web.yml:2:1: unknown key 'xyzzy': there are: "
    f"{', '.join(mistakes.KEYS)}\n  2 | xyzzy: 80\n    | ^",
    "container: a\ncontainer: b\n": "web.yml:2:1: 'container' is there twice\n  2 | container: b\n    | ^",
    "port: 80\n": "web.yml:1:1: 'container' is missing: it names the image, as in container: \"alpine:latest\"\n"
    "  1 | port: 80\n    | ^",
    "container: [a]\n": "web.yml:1:12: one value is expected here\n  1 | container: [a]\n    |            ^",
    "- a\n": "web.yml:1:1: lines with 'key: value' are expected here\n  1 | - a\n    | ^",
    "": "web.yml: lines with 'key: value' are expected here",
    "container: a\nport: 70000\n": "web.yml:2:7: 70000 is no port: ports go from 1 to 65535\n"
    "  2 | port: 70000\n    |       ^",
    "container: a\nport: http\n": "web.yml:2:7: 'http' is no port: write 8080, \"8080:80\" (host:container) or "
    '"127.0.0.1:8080:80", with /udp behind it if it is not TCP; 8000-8010 is a range\n  2 | port: http\n    |       ^',
    "container: a\nport: 300.1.1.1:1:1\n": "web.yml:2:7: '300.1.1.1' is no IPv4 address\n"
    "  2 | port: 300.1.1.1:1:1\n    |       ^",
    "container: a\nmounts: [x]\n": "web.yml:2:10: 'x' is no mount: write source:target or source:target:ro\n"
    "  2 | mounts: [x]\n    |          ^",
    "container: a\nmounts: [{source: x}]\n": "web.yml:2:10: 'target' of the mount is missing\n"
    "  2 | mounts: [{source: x}]\n    |          ^",
    "container: a\nmounts: [{source: '', target: /x}]\n": "web.yml:2:19: a path is expected here\n"
    "  2 | mounts: [{source: '', target: /x}]\n    |                   ^",
    "container: a\nmounts: [{source: x, target: /x, read_only: maybe}]\n": "web.yml:2:45: 'maybe' is neither true nor "
    "false\n  2 | mounts: [{source: x, target: /x, read_only: maybe}]\n"
    "    |                                             ^",
    "container: a\nenv: [A]\n": "web.yml:2:7: 'A' is no environment variable: write NAME=value\n"
    "  2 | env: [A]\n    |       ^",
    'container: a\ncommand: "it\'s"\n': "web.yml:2:10: the command cannot be split into words: no closing quotation\n"
    '  2 | command: "it\'s"\n    |          ^',
    "container: a\nport: [80\n": "web.yml:3:1: while parsing a flow sequence, did not find expected ',' or ']'",
    "a: 1\n---\nb: 2\n": "web.yml:2:1: expected a single document in the stream, but found another document\n"
    "  2 | ---\n    | ^",
    "container: a\n\tport: 80\n": "web.yml:2:1: while scanning a plain scalar, found a tab character that violates "
    "indentation\n  2 |  port: 80\n    | ^",
    "container: a\nport: \x1b]0;t\x07\n": "web.yml: line 2 has a control character: '\\x1b'",
    "container: a\n\u202ex: 1\n": "web.yml:2:1: unknown key '\\u202ex': there are: "
    f"{', '.join(mistakes.KEYS)}\n  2 | \\u202ex: 1\n    | ^",
    "container: *a\n": "web.yml:1:12: found undefined alias\n  1 | container: *a\n    |            ^",
}


@pytest.mark.parametrize("text", GOLDEN)
def test_mistakes_are_told_with_their_place(tmp_path: Path, text: str) -> None:
    assert complaint(tmp_path, text) == GOLDEN[text]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    said = complaint(tmp_path, "prot: 1\nport: [0, 1, 99999]\nmounts: [x]\n")
    places = [line.split(" ")[0] for line in said.splitlines() if line.startswith("web")]
    assert places == ["web.yml:1:1:", "web.yml:1:1:", "web.yml:2:8:", "web.yml:2:14:", "web.yml:3:10:"]


def test_a_long_line_is_shown_where_the_mistake_is(tmp_path: Path) -> None:
    said = complaint(tmp_path, f"{{container: {'a' * 5000}, prot: 1}}").splitlines()
    assert all(len(line) < 120 for line in said)
    assert said[2].index("^") == said[1].index("prot")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"container: \xff\n", "web.yml: line 1 is not UTF-8"),
        (b"#" * (1 << 20) + b"\n", "web.yml: the file is larger than 1 MiB"),
        (
            b"a: &a [x]\nb: [" + b"*a, " * 101 + b"]",
            "web.yml:2:405: a Statefile never has more than 100 aliases",
        ),
        (b"a: " + b"[" * 50 + b"]" * 50, "web.yml:1:35: a Statefile never nests more than 32 deep"),
        (b"[" * 500_000, "web.yml:1:1001: while increasing flow level, exceeded maximum nesting depth"),
        (b"? " * 400_000, "web.yml:1:65: a Statefile never nests more than 32 deep"),
    ],
)
def test_what_is_too_much_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    assert complaint(tmp_path, content).splitlines()[0] == said


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "nope.yml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(StatefileError) as caught:
            load(str(path))
        assert str(caught.value) == f"{path}: {reason}"


@given(
    st.one_of(st.none(), st.ip_addresses(v=4)),
    st.one_of(st.none(), st.integers(1, 65535)),
    st.integers(1, 65535),
    st.sampled_from(["", "/tcp", "/udp"]),
)
def test_every_port_that_can_be_written_is_read(
    address: ipaddress.IPv4Address | None, host: int | None, inside: int, protocol: str
) -> None:
    before = "" if host is None else f"{host}:" if address is None else f"{address}:{host}:"
    read = notation.port(f"{before}{inside}{protocol}")
    assert read == Port(
        host_ip=str(address) if address and host else "",
        host_port=host or inside,
        container_port=inside,
        protocol=PROTOCOL_UDP if protocol == "/udp" else PROTOCOL_TCP,
    )


@given(st.one_of(st.text(), st.from_regex(r"[0-9.:/tucdp٣ \n-]*", fullmatch=True)))
def test_everything_else_is_refused_with_a_sentence(text: str) -> None:
    try:
        read = notation.port(text)
    except ValueError as error:
        assert str(error)
    else:
        assert text.isascii() and text == text.strip()
        assert 1 <= read.host_port <= 65535 and 1 <= read.container_port <= 65535


@given(st.binary(max_size=200))
def test_any_file_is_understood_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yml"
    file.write_bytes(content)
    try:
        load(str(file))
    except StatefileError as error:
        assert str(error).startswith(f"{file}:")


@given(st.text(alphabet=st.sampled_from("containerpmuse:- \n[]{},&*a'\"|>#!?%@\t"), max_size=120))
def test_any_yaml_is_understood_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yml"
    file.write_text(text)
    try:
        load(str(file))
    except StatefileError as error:
        assert str(error).startswith(f"{file}:")

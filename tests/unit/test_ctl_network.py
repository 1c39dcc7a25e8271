"""`extra_hosts`, `dns`, `network` and ranges of ports in Statefiles: what they mean, and what is no such thing."""

from pathlib import Path

import pytest
from tinyo.v1.container_pb2 import ContainerSpec
from tinyo.v1.network_pb2 import (
    NETWORK_KIND_CONTAINER,
    NETWORK_KIND_HOST,
    NETWORK_KIND_NONE,
    Dns,
    ExtraHost,
    Network,
)
from tinyo_ctl.mistakes import StatefileError, place
from tinyo_ctl.statefile import load
from tinyo_node import specs
from tinyo_node.checks import network


def spec_of(folder: Path, text: str) -> ContainerSpec:
    file = folder / "web.yml"
    file.write_text(f"container: a\n{text}\n")
    return load(str(file)).containers[0]


def test_what_can_be_written(tmp_path: Path) -> None:
    spec = spec_of(
        tmp_path, "extra_hosts: ['db:192.0.2.1', 'six=2001:db8::1', 'seven:2001:db8::7', 'me:host-gateway']"
    )
    assert list(spec.extra_hosts) == [
        ExtraHost(name="db", address="192.0.2.1"),
        ExtraHost(name="six", address="2001:db8::1"),
        ExtraHost(name="seven", address="2001:db8::7"),
        ExtraHost(name="me", address="host-gateway"),
    ]
    for text in ("dns: 192.0.2.53", "dns: [192.0.2.53]", "dns: {servers: 192.0.2.53}"):
        assert spec_of(tmp_path, text).dns == Dns(servers=["192.0.2.53"])
    assert spec_of(tmp_path, "dns: {search: [a.example, b], options: 'ndots:2'}").dns == Dns(
        search=["a.example", "b"], options=["ndots:2"]
    )
    for text, meant in {
        "none": Network(kind=NETWORK_KIND_NONE),
        "host": Network(kind=NETWORK_KIND_HOST),
        "container:db": Network(kind=NETWORK_KIND_CONTAINER, container="db"),
    }.items():
        assert spec_of(tmp_path, f"network: {text}").network == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extra_hosts: [db]", "web.yml:2:15: 'db' is no host: write name:address"),
        ("network: bridge", "web.yml:2:10: 'bridge' is no network: write none, host or container:NAME"),
        ("dns: {server: x}", "web.yml:2:7: unknown key 'server': did you mean 'servers'?"),
        ("dns: {search: ['']}", "web.yml:2:16: a text is expected here"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(StatefileError) as caught:
        spec_of(tmp_path, text)
    assert str(caught.value).replace(f"{tmp_path}/", "").splitlines()[0] == said


@pytest.mark.parametrize(
    ("text", "field", "at", "said"),
    [
        ("extra_hosts: ['a b:1.2.3.4']", "extra_hosts[0].name", 15, "'a b' is no name of a host"),
        (
            "extra_hosts: ['a:1.2.3']",
            "extra_hosts[0].address",
            15,
            "'1.2.3' is neither an address nor host-gateway",
        ),
        ("dns: [a, 1.1.1.1]", "dns.servers[0]", 7, "'a' is no address of a server"),
        ('dns: {search: "a\\nb"}', "dns.search[0]", 15, "'a\\nb' is no domain"),
        (
            "dns: {options: ['a b']}",
            "dns.options[0]",
            17,
            "'a b' is no option of resolv.conf, such as ndots:2",
        ),
        ("network: container:web", "network.container", 10, "a container cannot be on its own network only"),
        ("port: 80\nnetwork: host", "ports", 7, "with network host there are no ports to publish"),
    ],
)
def test_what_the_node_refuses_is_found_in_the_file(
    tmp_path: Path, text: str, field: str, at: int, said: str
) -> None:
    spec = spec_of(tmp_path, text)
    ((found, sentence),) = network.check(spec)
    assert (found, sentence[: len(said)]) == (field, said)
    assert place(f"container: a\n{text}\n", f"containers[0].{field}") == (2, at)


def test_a_spec_without_any_of_it_is_right() -> None:
    assert not list(network.check(ContainerSpec(name="web")))
    assert not list(specs.check(ContainerSpec(name="web", image="a")))

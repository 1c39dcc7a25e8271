"""`extra_hosts`, `dns`, `network` and ranges of ports in Statefiles: what they mean, and what is no such thing."""

from pathlib import Path

import pytest
from tinyo.v1.container_pb2 import PROTOCOL_TCP, PROTOCOL_UDP, ContainerSpec, Port
from tinyo.v1.network_pb2 import (
    NETWORK_KIND_CONTAINER,
    NETWORK_KIND_HOST,
    NETWORK_KIND_NONE,
    Dns,
    ExtraHost,
    Network,
)
from tinyo_ctl.keys import ports
from tinyo_ctl.mistakes import StatefileError, place
from tinyo_ctl.statefile import load
from tinyo_node import specs
from tinyo_node.checks import network, published


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
        (
            "port: [80, 90-80]",
            "web.yml:2:12: '90-80' is no range of ports: the first comes before the last",
        ),
        (
            "port: 80-90:8080",
            "web.yml:2:7: '80-90:8080' leads 11 to 1: both sides of a range are equally long",
        ),
        (
            "port: 80-81:80-82/udp",
            "web.yml:2:7: '80-81:80-82/udp' leads 2 to 3: both sides of a range are equally long",
        ),
        ("port: 1-1001", "web.yml:2:7: '1-1001' has 1001 ports: at most 1000 are possible"),
        ("port: 65530-65540", "web.yml:2:7: 65536 is no port: ports go from 1 to 65535"),
        ("port: '[::g]:80:80'", "web.yml:2:7: '[::g]:80:80' is no port: write 8080"),
        ("port: '[1::2::3]:80:80'", "web.yml:2:7: '[1::2::3]' is no IPv6 address"),
        ("port: '::1:80:80'", "web.yml:2:7: '::1:80:80' is no port: write 8080"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(StatefileError) as caught:
        spec_of(tmp_path, text)
    assert str(caught.value).replace(f"{tmp_path}/", "").splitlines()[0].startswith(said)


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


def test_a_range_of_ports_is_that_many_ports(tmp_path: Path) -> None:
    spec = spec_of(
        tmp_path, "port: [22, 8000-8002:9000-9002, '127.0.0.1:53-54:5353-5354/udp', '[::1]:80:80', 7-8]"
    )
    lines = [
        "22 → 22",
        "8000-8002 → 9000-9002",
        "127.0.0.1:53-54 → 5353-5354/udp",
        "[::1]:80 → 80",
        "7-8 → 7-8",
    ]
    assert list(ports.shown(spec.ports)) == lines
    assert [port.container_port for port in spec.ports] == [22, 9000, 9001, 9002, 5353, 5354, 80, 7, 8]
    assert {port.protocol for port in spec.ports[4:6]} == {PROTOCOL_UDP}
    assert spec.ports[6] == Port(host_ip="::1", host_port=80, container_port=80, protocol=PROTOCOL_TCP)
    text = "container: a\nport:\n- 7-8\n- 80\n- 90-91\n"
    for index, line in enumerate((3, 3, 4, 5, 5)):
        assert place(text, f"containers[0].ports[{index}].host_port") == (line, 3)


def test_ports_that_exclude_each_other(tmp_path: Path) -> None:
    used = published.Used[str]()
    used.add(Port(host_port=80), "all")
    used.add(Port(host_ip="127.0.0.1", host_port=81, protocol=PROTOCOL_TCP), "one")
    for port, holder in {
        ("", 80, PROTOCOL_TCP): "all",
        ("::1", 80, PROTOCOL_TCP): "all",
        ("", 80, PROTOCOL_UDP): None,
        ("", 81, PROTOCOL_TCP): "one",
        ("127.0.0.2", 81, PROTOCOL_TCP): None,
        ("", 82, PROTOCOL_TCP): None,
    }.items():
        ip, number, protocol = port
        assert used.holder(Port(host_ip=ip, host_port=number, protocol=protocol)) == holder
    spec = ContainerSpec(
        name="web", image="a", ports=[Port(host_port=1, container_port=1, protocol=PROTOCOL_TCP)]
    )
    for wrong in ("fe80::1", "::ffff:127.0.0.1", "ff02::1", "224.0.0.1", "web", "::1%lo"):
        spec.ports[0].host_ip = published.address(wrong)
        assert [field for field, _ in specs.check(spec)] == ["ports[0].host_ip"], wrong
    spec.ports[0].host_ip = "::1"
    assert not list(specs.check(spec))
    spec.ports[0].protocol = PROTOCOL_UDP
    assert [field for field, _ in specs.check(spec)] == ["ports[0].host_ip"], "nobody would answer"
    spec.ports[0].protocol = PROTOCOL_TCP
    for text, meant in {"0.0.0.0": "", "::": "", "2001:DB8:0::1": "2001:db8::1"}.items():
        spec.ports[0].host_ip = published.address(text)
        assert spec.ports[0].host_ip == meant and not list(specs.check(spec))
    spec.ports.extend([spec.ports[0]] * 1000)
    assert [field for field, _ in specs.check(spec)] == ["ports"]

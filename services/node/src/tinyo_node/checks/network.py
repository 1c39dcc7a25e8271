"""The network: names and addresses that resolvers understand, and networks that have what is asked of them."""

import ipaddress
import re
from collections.abc import Iterator

from tinyo.v1.container_pb2 import ContainerSpec
from tinyo.v1.network_pb2 import (
    NETWORK_KIND_CONTAINER,
    NETWORK_KIND_HOST,
    NETWORK_KIND_NONE,
    NETWORK_KIND_UNSPECIFIED,
    Dns,
)

HOSTNAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(?:\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII
)
OPTION = re.compile(r"[a-z0-9-]{1,32}(?::[0-9]{1,4})?", re.ASCII)
KINDS = {
    NETWORK_KIND_NONE: "none",
    NETWORK_KIND_HOST: "host",
    NETWORK_KIND_CONTAINER: "container:NAME",
}
#: Lines of /etc/hosts; servers, domains and options: more than resolvers look at.
MOST_HOSTS, MOST = 1000, 32


def check(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    """What is wrong with the network of a spec."""
    if len(spec.extra_hosts) > MOST_HOSTS:
        yield "extra_hosts", f"at most {MOST_HOSTS} hosts are possible"
    for index, host in enumerate(spec.extra_hosts):
        if not HOSTNAME.fullmatch(host.name):
            yield f"extra_hosts[{index}].name", f"{host.name!r} is no name of a host"
        if host.address != "host-gateway" and not address(host.address):
            text = f"{host.address!r} is neither an address nor host-gateway"
            yield f"extra_hosts[{index}].address", text
    yield from dns(spec.dns)
    kind, name = spec.network.kind, spec.network.container
    if kind != NETWORK_KIND_UNSPECIFIED and kind not in KINDS:
        yield "network.kind", "the network is none, host or that of a container"
    if (kind == NETWORK_KIND_CONTAINER) != bool(name):
        yield "network.container", "the network of a container, and no other, has that one's name"
    elif name == spec.name:
        yield "network.container", "a container cannot be on its own network only"
    if kind in KINDS and spec.ports:
        yield "ports", f"with network {KINDS[kind]} there are no ports to publish: remove `port` or `network`"


def dns(dns: Dns) -> Iterator[tuple[str, str]]:
    """What is wrong with how names are resolved."""
    for index, server in enumerate(dns.servers):
        if not address(server):
            yield f"dns.servers[{index}]", f"{server!r} is no address of a server"
    for index, domain in enumerate(dns.search):
        if not HOSTNAME.fullmatch(domain):
            yield f"dns.search[{index}]", f"{domain!r} is no domain"
    for index, option in enumerate(dns.options):
        if not OPTION.fullmatch(option):
            yield f"dns.options[{index}]", f"{option!r} is no option of resolv.conf, such as ndots:2"
    for field in ("servers", "search", "options"):
        if len(getattr(dns, field)) > MOST:
            yield f"dns.{field}", f"at most {MOST} of them are possible"


def address(text: str) -> bool:
    """Whether it is an IPv4 or IPv6 address, without a zone."""
    try:
        return "%" not in text and bool(ipaddress.ip_address(text))
    except ValueError:
        return False

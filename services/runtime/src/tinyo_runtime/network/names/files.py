"""What a container's own resolver reads: /etc/hosts and /etc/resolv.conf."""

from pathlib import Path

from tinyo.runtime.v1.runtime_pb2 import ContainerConfig
from tinyo.v1.container_pb2 import ContainerSpec
from tinyo.v1.network_pb2 import NETWORK_KIND_HOST

from tinyo_runtime.network.names.book import DOMAIN
from tinyo_runtime.network.names.resolvers import HOST
from tinyo_runtime.network.veth import GATEWAY, Endpoint

HOSTS = Path("/etc/hosts")
#: What stands for the host in a Statefile, as docker has it.
HOST_GATEWAY = "host-gateway"


def hosts(spec: ContainerSpec, endpoint: Endpoint) -> str:
    """Itself (or, on the host's network, what the host knows), and what the Statefile says more: hosts(5)."""
    if spec.network.kind == NETWORK_KIND_HOST:
        lines = HOSTS.read_text(errors="replace").splitlines() if HOSTS.exists() else []
    else:
        own = filter(None, (endpoint.address, endpoint.address6))
        lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost", *(f"{address}\t{names(spec)}" for address in own)]
    for extra in spec.extra_hosts:
        lines.append(f"{GATEWAY if extra.address == HOST_GATEWAY else extra.address}\t{extra.name}")
    return "".join(f"{line}\n" for line in lines)


def names(spec: ContainerSpec) -> str:
    """What the container calls itself; of a name with a domain, the first part as well."""
    name = spec.hostname or spec.name
    short, dot, _ = spec.hostname.partition(".")
    return f"{name} {short}" if dot else name


def resolv_conf(config: ContainerConfig) -> str:
    """We, the cluster's domain, and domains and options of the Statefile or else of the host: resolv.conf(5). On a
    network of others we cannot be asked."""
    dns, of_host = config.spec.dns, dict[str, list[str]]()
    text = HOST.read_text(errors="replace") if HOST.exists() else ""
    for line in text.splitlines():
        keyword, *values = line.split() or [""]
        if keyword in ("search", "domain"):  # the last one counts
            of_host["search"] = values
        elif keyword == "options":
            of_host.setdefault("options", []).extend(values)
        elif keyword == "nameserver":
            of_host.setdefault("servers", []).extend(values[:1])
    search, servers = [*(dns.search or of_host.get("search", []))], [GATEWAY]
    if config.spec.network.kind:
        servers = [*(dns.servers or of_host.get("servers", []))]
    else:
        search.insert(0, f"{config.cluster}.{DOMAIN}")
    lines = [f"nameserver {server}" for server in servers]
    if search:
        lines.append(f"search {' '.join(search)}")
    if options := dns.options or of_host.get("options"):
        lines.append(f"options {' '.join(options)}")
    return "".join(f"{line}\n" for line in lines)

"""What a container's own resolver reads: /etc/hosts and /etc/resolv.conf."""

from tinyo.runtime.v1.runtime_pb2 import ContainerConfig
from tinyo.v1.container_pb2 import ContainerSpec

from tinyo_runtime.network.names.book import DOMAIN
from tinyo_runtime.network.names.resolvers import HOST
from tinyo_runtime.network.veth import GATEWAY

#: What stands for the host in a Statefile, as docker has it.
HOST_GATEWAY = "host-gateway"


def hosts(spec: ContainerSpec, address: str) -> str:
    """Itself, and what the Statefile says more: hosts(5)."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost", f"{address}\t{spec.name}"]
    for extra in spec.extra_hosts:
        lines.append(f"{GATEWAY if extra.address == HOST_GATEWAY else extra.address}\t{extra.name}")
    return "".join(f"{line}\n" for line in lines)


def resolv_conf(config: ContainerConfig) -> str:
    """We, the cluster's domain, and domains and options of the Statefile or else of the host: resolv.conf(5)."""
    dns, of_host = config.spec.dns, dict[str, list[str]]()
    for line in HOST.read_text(errors="replace").splitlines() if HOST.exists() else ():
        keyword, *values = line.split() or [""]
        if keyword in ("search", "domain"):  # the last one counts
            of_host["search"] = values
        elif keyword == "options":
            of_host.setdefault("options", []).extend(values)
    search = [f"{config.cluster}.{DOMAIN}", *(dns.search or of_host.get("search", []))]
    lines = [f"nameserver {GATEWAY}", f"search {' '.join(search)}"]
    if options := dns.options or of_host.get("options"):
        lines.append(f"options {' '.join(options)}")
    return "".join(f"{line}\n" for line in lines)

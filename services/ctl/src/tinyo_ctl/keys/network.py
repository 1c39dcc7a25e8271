"""How a container is on the network: `extra_hosts`, `dns`, `network`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinyo_ctl.keys.kinds import Key, Kind, One, Several, Table

if TYPE_CHECKING:
    import yaml

    from tinyo_ctl.mistakes import Reader

#: What can be written, and what it is in the contract.
NETWORKS = {"none": "NETWORK_KIND_NONE", "host": "NETWORK_KIND_HOST"}


def extra_host(text: str) -> dict[str, str]:
    """One more line of /etc/hosts: "name:address" or "name=address", where the address may have colons itself."""
    name, separator, address = text.partition("=" if "=" in text else ":")
    if not (name and separator and address):
        raise ValueError(f"{text!r} is no host: write name:address")
    return {"name": name, "address": address.removeprefix("[").removesuffix("]")}


def network(text: str) -> dict[str, str]:
    """Which network a container is on."""
    kind, _, name = text.partition(":")
    if kind == "container" and name:
        return {"kind": "NETWORK_KIND_CONTAINER", "container": name}
    if text not in NETWORKS:
        raise ValueError(f"{text!r} is no network: write none, host or container:NAME")
    return {"kind": NETWORKS[text]}


def word(text: str) -> str:
    """A text that is not empty."""
    if not text:
        raise ValueError("a text is expected here")
    return text


@dataclass
class Servers:
    """A table, or only its servers, one or several."""

    table: Kind
    servers: Kind

    def find(self, reader: "Reader", node: "yaml.Node", path: str) -> None:
        import yaml

        reader.place(path, node)
        if isinstance(node, yaml.MappingNode):
            self.table.find(reader, node, path)
        else:
            self.servers.find(reader, node, f"{path}.servers")

    def made(self, written: Any) -> Any:
        if isinstance(written, dict):
            return self.table.made(written)
        return {"servers": self.servers.made(written)}


WORDS = Several(One(word))

KEYS = {
    "extra_hosts": Key("extra_hosts", Several(One(extra_host))),
    "dns": Key(
        "dns",
        Servers(
            Table(
                {
                    "servers": Key("servers", WORDS),
                    "search": Key("search", WORDS),
                    "options": Key("options", WORDS),
                }
            ),
            WORDS,
        ),
    ),
    "network": Key("network", One(network)),
}

"""How what every Statefile has is written; `shorthand` knows the rest."""

import os
import re

from tinyo.v1.container_pb2 import Port, Protocol

from tinyo_ctl import diagnose

#: Bytes of a Statefile (the contract's limit).
SIZE_LIMIT = 1 << 20
PORT = re.compile(r"(?:(?:([0-9.]+|\[[0-9A-Fa-f:.]+\]):)?([0-9]{1,5}):)?([0-9]{1,5})(?:/(tcp|udp))?")


def port(text: str) -> Port:
    """A published port: "80", "8080:80", "127.0.0.1:8080:80", "[::1]:8080:80", each also with "/udp". ValueError."""
    if not (match := PORT.fullmatch(text)):
        raise diagnose.no_port(text)
    address, host, inside, protocol = match.groups()
    diagnose.check_port(address, host or inside, inside)
    transport = Protocol.PROTOCOL_UDP if protocol == "udp" else Protocol.PROTOCOL_TCP
    ip, outside = address and address.strip("[]"), int(host or inside)
    return Port(host_ip=ip, host_port=outside, container_port=int(inside), protocol=transport)


def name(filename: str) -> str:
    """The name that a file gives its container: its stem, made to fit; "" when nothing fits."""
    stem = os.path.splitext(filename)[0].lower()
    return re.sub(r"[^a-z0-9_.-]+", "-", stem).strip("_.-")[:63]

"""Ranges of published ports: "8000-8010:9000-9010" stands for that many single ports, one after the other."""

import re
from collections.abc import Iterable, Iterator

from tinyo.v1.container_pb2 import Port, Protocol

from tinyo_ctl import notation

RANGE = re.compile(r"(|.*:)([0-9]{1,5})(?:-([0-9]{1,5}))?:([0-9]{1,5})(?:-([0-9]{1,5}))?(|/.*)", re.DOTALL)
ALIKE = re.compile(r"([0-9]{1,5}-[0-9]{1,5})(|/.*)", re.DOTALL)
#: Ports of one range: each takes a socket of this machine, so that nobody else takes it.
MOST = 1000


def singles(text: str) -> list[str]:
    """The single ports that a text stands for. ValueError for a range that is none; what else is wrong with a port,
    who reads it says."""
    alike = ALIKE.fullmatch(text)
    match = RANGE.fullmatch(f"{alike[1]}:{alike[1]}{alike[2]}" if alike else text)
    if not match or not (match[3] or match[5]):
        return [text]
    before, *numbers, protocol = match.groups()
    first, last, to, until = (int(number or 0) for number in numbers)
    outside, inside = range(first, (last or first) + 1), range(to, (until or to) + 1)
    if not (outside and inside):
        raise ValueError(f"{text!r} is no range of ports: the first comes before the last, as in 8000-8010")
    if len(outside) != len(inside):
        raise ValueError(
            f"{text!r} leads {len(outside)} to {len(inside)}: both sides of a range are equally long"
        )
    if len(outside) > MOST:
        raise ValueError(f"{text!r} has {len(outside)} ports: at most {MOST} are possible")
    return [f"{before}{one}:{other}{protocol}" for one, other in zip(outside, inside, strict=True)]


def parsed(text: str) -> list[Port]:
    """The ports that a text stands for. ValueError for what is none."""
    return [notation.port(single) for single in singles(text)]


def shown(published: Iterable[Port]) -> Iterator[str]:
    """Published ports, host → container, where those that follow one another are a range."""
    begin = last = None
    for port in published:
        if begin and last and _follows(last, port):
            last = port
            continue
        if begin and last:
            yield _line(begin, last)
        begin = last = port
    if begin and last:
        yield _line(begin, last)


def _follows(last: Port, port: Port) -> bool:
    step = port.host_port - last.host_port, port.container_port - last.container_port
    return step == (1, 1) and (port.host_ip, port.protocol) == (last.host_ip, last.protocol)


def _line(begin: Port, last: Port) -> str:
    address = f"[{begin.host_ip}]" if ":" in begin.host_ip else begin.host_ip
    more = begin.host_port != last.host_port
    outside = f"{begin.host_port}-{last.host_port}" if more else f"{begin.host_port}"
    inside = f"{begin.container_port}-{last.container_port}" if more else f"{begin.container_port}"
    protocol = "/udp" if begin.protocol == Protocol.PROTOCOL_UDP else ""
    return f"{address}{':' * bool(address)}{outside} → {inside}{protocol}"

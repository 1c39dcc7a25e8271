"""What an endpoint has that the first example does without."""

from typing import NamedTuple


class Extras(NamedTuple):
    """Dotted IPv4, bytes of the largest packet, an IPv6 address ("" without one), and a group of interfaces."""

    address: str
    mtu: int
    address6: str
    group: int

"""The one nftables table of an instance, in which a published port is an element of a map; by libnftables(3)."""

import ctypes
from collections.abc import Iterable, Iterator

from tinyo.v1.container_pb2 import Port

from tinyo_runtime.network import errors, kinds

#: What is sent to a published port of the host, by others or by the host itself, goes to a container. From
#: 127.0.0.1 nobody could get an answer there: the host's end of the veth stands in for it.
TABLE = """
add table ip {table}; delete table ip {table}
table ip {table} {{
  map pub_tcp {{ type inet_service : ipv4_addr . inet_service; }}
  chain publish {{ fib daddr type local dnat ip to tcp dport map @pub_tcp; }}
  chain arriving {{ type nat hook prerouting priority dstnat; jump publish; }}
  chain own {{ type nat hook output priority -100; jump publish; }}
  chain leaving {{ type nat hook postrouting priority srcnat; }}
}}
add rule ip {table} leaving ip saddr 127.0.0.0/8 oifname "{prefix}*" masquerade
"""

lib = ctypes.CDLL("libnftables.so.1")
lib.nft_ctx_new.restype = ctypes.c_void_p
context = ctypes.c_void_p(lib.nft_ctx_new(0))
lib.nft_ctx_buffer_error(context)


def run(*commands: str) -> None:
    """One transaction of the kernel: everything or nothing. OSError with what nft(8) would say."""
    if lib.nft_run_cmd_from_buffer(context, "\n".join(commands).encode()) != 0:
        raise errors.nftables(lib, context)


def elements(verb: str, table: str, address: str, ports: Iterable[Port]) -> Iterator[str]:
    """Commands that "add" or "delete" the published ports of a container."""
    for port in ports:
        if not kinds.special(port):
            yield f"{verb} element ip {table} pub_tcp {{ {port.host_port} : {address} . {port.container_port} }}"
    yield from kinds.elements(verb, table, address, ports)

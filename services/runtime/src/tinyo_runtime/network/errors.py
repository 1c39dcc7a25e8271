"""What can be wrong with addresses, ports and rules, in the words of who asked for them."""

import ctypes
import errno
from ipaddress import IPv4Network, IPv6Network

import grpc
from tinyo.v1.container_pb2 import Port

from tinyo_runtime.errors import TinyoError

FAILED = grpc.StatusCode.FAILED_PRECONDITION


def pool_taken(wanted: str, route: IPv4Network | IPv6Network, key: str = "pool") -> TinyoError:
    """POOL_TAKEN: the host has routes to each network that could have been the pool."""
    text = f"the addresses {wanted} overlap with the host's route to {route}: set another `{key}`"
    return TinyoError(FAILED, "POOL_TAKEN", text, {key: wanted, "route": str(route)})


def pool_empty(network: IPv4Network) -> TinyoError:
    """POOL_EMPTY: every address has a container."""
    text = f"no address is left in {network}: set a larger `pool`"
    return TinyoError(grpc.StatusCode.RESOURCE_EXHAUSTED, "POOL_EMPTY", text, {"pool": str(network)})


def port_in_use(port: Port, holder: str, field: str) -> TinyoError:
    """PORT_IN_USE: somebody has it, and who."""
    text = f"port {port.host_port} of the host is used by {holder}: choose another, or end that one"
    return TinyoError(FAILED, "PORT_IN_USE", text, {"port": str(port.host_port), "holder": holder}, field)


def port_unusable(port: Port, error: OSError, field: str) -> TinyoError:
    """PORT_IN_USE: nobody has it, but we cannot either."""
    text = f"port {port.host_port} of {port.host_ip or 'the host'} cannot be used: {error.strerror}"
    return TinyoError(FAILED, "PORT_IN_USE", text, {"port": str(port.host_port)}, field)


def no_ipv6(port: Port, field: str) -> TinyoError:
    """NO_IPV6: a port is published on an address of IPv6, and containers have none."""
    text = f"port {port.host_port} of {port.host_ip}: containers have no IPv6 addresses on this machine"
    return TinyoError(FAILED, "NO_IPV6", text, {"port": str(port.host_port)}, field)


def nftables(lib: ctypes.CDLL, context: ctypes.c_void_p) -> OSError:
    """What nft(8) would say."""
    lib.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    return OSError(errno.EINVAL, f"nftables: {lib.nft_ctx_get_error_buffer(context).decode().strip()}")

"""Firewalls of others that drop what is forwarded: a drop in any chain is final, whatever ours accepts.

That is what a Docker beside us does (the policy of FORWARD is drop, and DOCKER-USER is where others may
say something before it), and distributions that are set up to. So we say in their chain that what comes
from our interfaces or goes to them is ours to judge (harden.py does), in words that iptables-nft reads.
"""

import ctypes
import itertools
import re
from contextlib import suppress

from tinyo_runtime.network import firewall

NFT_CTX_OUTPUT_HANDLE = 1 << 3
FAMILIES = ("ip", "ip6")


def accept(prefix: str) -> None:
    """Puts our rules where they count, if anywhere and unless they are there."""
    for family in FAMILIES:
        user, forward = listed(family, "DOCKER-USER"), listed(family, "FORWARD")
        if f'"{prefix}*"' in user + forward or not (user or "policy drop" in forward):
            continue
        chain = "DOCKER-USER" if user else "FORWARD"
        for end in ("iifname", "oifname"):
            firewall.run(f'insert rule {family} filter {chain} {end} "{prefix}*" counter accept')


def take_back(prefix: str) -> None:
    """Undoes `accept`."""
    for family, chain in itertools.product(FAMILIES, ("DOCKER-USER", "FORWARD")):
        for handle in re.findall(rf'name "{prefix}\*".* # handle (\d+)', listed(family, chain)):
            with suppress(OSError):  # somebody was faster
                firewall.run(f"delete rule {family} filter {chain} handle {handle}")


def listed(family: str, chain: str) -> str:
    """A chain of iptables' table for forwarding as `nft -a list chain` prints it; "" when there is none."""
    return printed(f"list chain {family} filter {chain}", NFT_CTX_OUTPUT_HANDLE)


def printed(command: str, flags: int) -> str:
    """What nft(8) prints for a command; "" when there is nothing of that name."""
    firewall.lib.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
    firewall.lib.nft_ctx_buffer_output(firewall.context)
    firewall.lib.nft_ctx_output_set_flags(firewall.context, flags)
    with suppress(OSError):
        firewall.run(command)
    output: bytes = firewall.lib.nft_ctx_get_output_buffer(firewall.context)
    return output.decode()

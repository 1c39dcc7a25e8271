"""What others take away of our table is put back at once: `nft flush ruleset` is how many firewalls are loaded anew.

The kernel tells every change of nftables to whoever listens (NFNLGRP_NFTABLES, linux/netfilter/nf_tables.h).
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Iterable

from tinyo_runtime.network import firewall, foreign

NETLINK_NETFILTER, NFNLGRP_NFTABLES = 12, 7
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 270, 1
#: Messages: the subsystem, and that a table, chain or rule is gone. Elements of sets come and go with containers.
GONE = {10 << 8 | message for message in (2, 5, 8)}
#: Without elements of sets.
NFT_CTX_OUTPUT_TERSE = 1 << 11
#: Seconds until a repair that failed is tried again.
AGAIN = 1.0

log = logging.getLogger(__name__)


class Repair:
    """Compares our table with what it was like, whenever something is gone somewhere."""

    def __init__(self, table: str, prefix: str, commands: Callable[[], Iterable[str]]) -> None:
        self._table, self._prefix = table, prefix
        #: What makes the table as it is to be now.
        self._commands = commands
        self._socket: socket.socket | None = None
        self._whole = ""
        #: Families of our tables.
        self.families: tuple[str, ...] = ("ip",)

    def open(self) -> None:
        """Begins, when the table is there."""
        self._whole = self._listed()
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
        )
        self._socket.bind((0, 0))
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def close(self) -> None:
        """Ends."""
        if self._socket:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        assert self._socket
        gone = False
        while True:
            try:
                said = self._socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:  # there was more than the kernel keeps for us (ENOBUFS)
                gone = True
                continue
            while len(said) >= 16:
                length, kind = struct.unpack_from("IH", said)
                gone |= kind in GONE
                said = said[max(16, length + -length % 4) :]
        if gone:
            self._look()

    def _look(self) -> None:
        """Also firewalls that came back without our rules in them are told again."""
        if not self._socket:
            return
        try:
            if self._listed() != self._whole:
                firewall.run(*self._commands())
                log.warning(
                    "somebody changed our table of nftables, as `nft flush ruleset` does: it was made again"
                )
            foreign.accept(self._prefix)
        except OSError as error:
            log.warning("our table of nftables was changed, and could not be made again: %s", error)
            asyncio.get_running_loop().call_later(AGAIN, self._look)

    def _listed(self) -> str:
        tables = (f"list table {family} {self._table}" for family in self.families)
        return "".join(foreign.printed(table, NFT_CTX_OUTPUT_TERSE) for table in tables)

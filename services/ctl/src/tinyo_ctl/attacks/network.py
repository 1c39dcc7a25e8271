"""What is tried by way of the network. Who was reached says so, not who tried."""

import socket
from typing import TYPE_CHECKING

from tinyo_ctl.attacks import Attack, Outcome, broken, held, impossible
from tinyo_ctl.attacks.shell import script

if TYPE_CHECKING:
    from tinyo_ctl.attacks.ground import Ground

GATEWAY, METADATA = "169.254.1.1", "169.254.169.254"
#: Seconds that the metadata service of a cloud may take.
PATIENCE = 0.5


def loopback(ground: "Ground") -> Outcome:
    """Somebody listens on 127.0.0.1 of the host, and is asked for by all ways that there are."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        port = server.getsockname()[1]
        ways = f"127.0.0.1 {GATEWAY} localhost"
        ground.run("sh", "-c", f"for to in {ways}; do nc -w 1 $to {port} </dev/null; done")
        try:
            server.accept()[0].close()
        except BlockingIOError:
            return held()
    return broken("somebody came")


def metadata(ground: "Ground") -> Outcome:
    """Clouds tell their machines keys there."""
    try:
        socket.create_connection((METADATA, 80), PATIENCE).close()
    except OSError:
        return impossible("nobody answers there, the host itself included")
    code, _ = ground.run("nc", "-w", "1", METADATA, "80")
    return held() if code else broken("it answers (the runtime's setting `metadata`)")


def neighbour(ground: "Ground") -> Outcome:
    """A container of another cluster listens, and hears whoever comes."""
    serve = "while nc -l -p 80 -e echo here; do :; done"
    other = ground.up("neighbour", other_cluster=True, command=["sh", "-c", serve])
    wait = "for i in $(seq 50); do nc -w 1 127.0.0.1 80 | grep -q here && exit 0; usleep 50000; done; exit 1"
    if ground.run("sh", "-c", wait, container=other)[0]:
        return impossible("the other container does not answer itself")
    code, _ = ground.run("sh", "-c", f"nc -w 1 {other.status.address} 80 </dev/null | grep -q here")
    return held() if code else broken(f"{other.status.address} of another cluster answers")


ATTACKS = (
    Attack("reach the host's loopback", "CVE-2020-8558", loopback),
    Attack("reach the metadata of a cloud", "", metadata),
    Attack("reach a container of another cluster", "", neighbour),
    Attack("take another address", "", script("ip address add 10.254.254.254/32 dev lo")),
    Attack("take its interface from the firewall's eyes", "", script("ip link set lo down")),
)

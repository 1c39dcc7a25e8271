"""What leads packets to containers, and keeps them away."""

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

from tinyo.v1.diagnosis_pb2 import Finding

from tinyo_runtime.doctor import Machine, impossible, off, on

CONF = Path("/proc/sys/net/ipv4")
#: What must stand in our table, as nft(8) prints it, by what it is for.
RULES = {
    "nobody sends from an address that is not theirs": "fib saddr . iif oif missing drop",
    "nobody reaches the host's loopback": "ip daddr 127.0.0.0/8 drop",
    "only what is published is reached": "ct status ! dnat drop",
}
#: A chain that drops what comes to the host; chains that packets to containers go through, and not those to the host.
DROPPED = re.compile(r"type filter hook input priority [^;]+; policy drop;")
FORWARDED = re.compile("forward|docker", re.IGNORECASE)
#: Tables of the older iptables, which nftables do not show.
LEGACY = Path("/proc/net/ip_tables_names")
METADATA = "169.254.169.254 drop"


def library(machine: Machine) -> Iterator[Finding]:
    """libnftables, and a kernel that answers it."""
    try:
        ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        yield off(f"{error}", "apt install libnftables1")
        return
    from tinyo_runtime.network import firewall, foreign

    foreign.printed(
        "list tables", 0
    )  # from now on what is printed is kept, and does not mix with what we say
    try:
        firewall.run("list tables")
        yield on("libnftables.so.1 and the kernel answer")
    except OSError as error:
        yield off(
            f"the kernel does not answer: {error}", "boot a kernel with CONFIG_NF_TABLES; modprobe nf_tables"
        )


def rules(machine: Machine) -> Iterator[Finding]:
    """Whether our table is as it was made; the runtime makes it again when it is not."""
    from tinyo_runtime.network import foreign

    if not machine.connected:
        yield on("none are needed: no runtime runs, and no container")
        return
    name = machine.settings.instance
    table = re.sub(
        r"ct status & dnat == 0|ct status ! dnat",
        "ct status ! dnat",
        foreign.printed(f"list table ip {name}", 0),
    )
    again = "tinyo services stop && tinyo services start"
    if missing := [what for what, rule in RULES.items() if rule not in table]:
        lost = "; ".join(missing) if table else "all of them"
        yield off(f"not in table ip {name} of nftables: {lost}", again)
    else:
        yield on(f"table ip {name}: {', '.join(RULES)}")
    row = "metadata address"
    if METADATA in table:
        yield on("closed to containers", name=row)
    elif machine.settings.metadata == "open":
        yield off("the setting `metadata` is open", 'let it be "closed"', name=row, optional=True)
    else:
        yield off("containers reach 169.254.169.254, where clouds keep keys", again, name=row)


def forwarding(machine: Machine) -> Iterator[Finding]:
    """What leads outwards must forward, or answers never reach a container."""
    from tinyo_runtime.network import outside

    everything = f"ip_forward is {(CONF / 'ip_forward').read_text().strip()}"
    interfaces = sorted(outside.uplinks())
    closed = [name for name in interfaces if (CONF / "conf" / name / "forwarding").read_text().strip() == "0"]
    if not interfaces:
        yield impossible(
            f"no default route leads outwards, so that containers reach this machine alone; {everything}"
        )
    elif closed and machine.connected:
        yield off(f"{', '.join(closed)}; {everything}", f"sysctl -w net.ipv4.conf.{closed[0]}.forwarding=1")
    elif closed:
        yield on(f"{', '.join(closed)} will, as soon as a runtime runs; {everything}")
    else:
        yield on(f"{', '.join(interfaces)}; {everything}")


def loopback(machine: Machine) -> Iterator[Finding]:
    """Switched on for all interfaces, it opens the host's loopback to neighbours (CVE-2020-8558), but for our rules."""
    if (CONF / "conf/all/route_localnet").read_text().strip() == "0":
        yield on("off for the machine, as it should be; our interfaces have rules against it")
    else:
        why = "on for all interfaces: neighbours reach what listens on 127.0.0.1 where no rule of ours is"
        yield off(why, "sysctl -w net.ipv4.conf.all.route_localnet=0", optional=machine.connected)


def forward(machine: Machine) -> Iterator[Finding]:
    """Docker's and others' policy of dropping what is forwarded: a drop in any chain is final."""
    from tinyo_runtime.network import foreign

    user, chain = foreign.listed("ip", "DOCKER-USER"), foreign.listed("ip", "FORWARD")
    ours = f'"{machine.settings.prefix}*"' in user + chain
    if not (user or "policy drop" in chain):
        yield on("nobody drops what is forwarded")
    elif ours:
        yield on(
            f"{'DOCKER-USER' if user else 'FORWARD'} accepts what comes from containers and goes to them"
        )
    elif machine.connected:
        why = "Docker's" if user else "its policy is drop"
        yield off(
            f"{why}, and nothing there accepts our interfaces: containers are cut off",
            "tinyo services stop && tinyo services start",
        )
    else:
        yield on("it drops what is forwarded; a runtime will have it accept our interfaces")


def arriving(machine: Machine) -> Iterator[Finding]:
    """A firewall that drops what comes to the host, as ufw's does, also drops containers' questions for names."""
    prefix, found = machine.settings.prefix, list(chains())
    for family, table, chain, text in found:
        if family not in ("ip", "inet") or not DROPPED.search(text):
            continue
        beside = (
            one for *place, name, one in found if place == [family, table] and not FORWARDED.search(name)
        )
        if not re.search(rf'iifname "?{re.escape(prefix)}[*+]', "".join(beside)):
            what = f"chain {chain} of table {family} {table} drops what comes from containers"
            nft = f"nft insert rule {family} {table} {chain} iifname '{prefix}*' accept"
            yield off(f"{what}: they resolve no names", f"ufw allow in on {prefix}+, or {nft}")
            return
    if LEGACY.exists() and "filter" in LEGACY.read_text().split():
        why = "rules of iptables-legacy are loaded, which nothing else can look at"
        yield off(
            why,
            "iptables-legacy -S; move them with iptables-legacy-save | iptables-nft-restore",
            optional=True,
        )
    else:
        yield on("nobody drops what comes from containers")


def chains() -> Iterator[tuple[str, str, str, str]]:
    """Each chain of nftables: family and name of its table, its name, and what stands in it."""
    from tinyo_runtime.network import foreign

    family = table = ""
    for part in re.split(r"^(?=table |\tchain )", foreign.printed("list ruleset", 0), flags=re.MULTILINE):
        if opened := re.match(r"table (\S+) (\S+) \{", part):
            family, table = opened.groups()
        elif opened := re.match(r"\tchain (\S+) \{", part):
            yield family, table, opened[1], part

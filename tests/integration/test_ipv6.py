"""IPv6 of containers on the real kernel: what answers where, what is set on the host, and where there is none."""

import asyncio
import gc
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from pathlib import Path

import pytest
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.network import forwarding6, pool6

from tests.support.clean import assert_clean, routes, snapshot
from tests.support.lan import HOST, HOST6, NEIGHBOUR6, TCP, UDP, InLan, Lan, ip, nft, tcp, udp
from tests.support.registry import free_port


def test_a_container_reaches_the_world_the_host_and_others(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        first, second = await lan.container("first"), await lan.container("second")
        await lan.answer("neighbour", lan.neighbour, NEIGHBOUR6, 80)
        await lan.answer("host", None, HOST6, 8080)
        for kind in (TCP, UDP):
            assert await lan.ask(second.address6, 80, kind, of=first.netns) == f"second to {first.address6}"
            assert await lan.ask(NEIGHBOUR6, 80, kind, of=first.netns) == f"neighbour to {HOST6}"
            assert await lan.ask(HOST6, 8080, kind, of=first.netns) == f"host to {first.address6}"
            assert await lan.ask(first.address6, 80, kind) == f"first to {HOST6}"
            assert await lan.ask(first.address6, 80, kind, of=first.netns) == f"first to {first.address6}"
        ip(f"addr del {HOST6}/64 dev {lan.wire}")
        assert (await lan.ask(first.address6, 80)).startswith("first to fe80::1"), (
            "the host has no address of its own"
        )

    lan(check)


def test_a_published_port_answers_wherever_the_host_is_addressed(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        a, b, c = free_port(), free_port(), free_port()
        web = await lan.container("web", tcp(a), udp(a), tcp(b, HOST6), udp(b, HOST6), tcp(c, "::1"))
        other = await lan.container("other", udp(c, "::"))
        for kind in (TCP, UDP):
            for port in (a, b):
                for of in (None, lan.neighbour, other.netns, web.netns):
                    assert (await lan.ask(HOST6, port, kind, of=of)).startswith("web to "), (kind, port, of)
            assert await lan.ask(HOST6, a, kind, of=lan.neighbour) == f"web to {NEIGHBOUR6}", (
                "who asks is known"
            )
            await lan.silent(HOST, b, kind)
            await lan.silent("::1", b, kind)
        for port in (a, c):
            assert (await lan.ask("::1", port)).startswith("web to ")
        await lan.silent(HOST6, c)
        assert await lan.ask(HOST6, c, UDP, of=lan.neighbour) == f"other to {NEIGHBOUR6}"
        assert (await lan.ask(HOST, c, UDP)).startswith("other to ")

    lan(check)


def test_who_holds_a_port_of_an_address_is_named(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        port = free_port()
        other = await lan.container("other")
        for address in (HOST6, "::1"):
            with socket.socket(socket.AF_INET6) as held:
                held.bind((address, port))
                held.listen()
                with pytest.raises(TinyoError, match=f"port {port} of the host is used by") as caught:
                    await lan.network.publish("other", other.address, [tcp(port, address)])
                assert (caught.value.reason, caught.value.field) == ("PORT_IN_USE", "ports[0].host_port")
        await lan.container("web", tcp(port, "::1"))
        with pytest.raises(TinyoError, match="used by container web"):
            await lan.network.publish("other", other.address, [tcp(port, "::1")])
        with socket.socket(socket.AF_INET6) as another, pytest.raises(OSError, match="in use"):
            another.bind(("::1", port))
        with pytest.raises(TinyoError, match=r"2001:db8::99 cannot be used"):
            await lan.network.publish("other", other.address, [tcp(port, "2001:db8::99")])

    lan(check)


def test_all_of_it_outlives_the_runtime_and_a_flush(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        port = free_port()
        web = await lan.container("web", tcp(port), udp(port))
        await (first := lan.network).close(remove=False)
        assert await lan.ask(HOST6, port, of=lan.neighbour) == f"web to {NEIGHBOUR6}", (
            "while there is no runtime"
        )
        lan.network = lan.make()
        adopted = lan.adopted("web", web, ports=[tcp(port), udp(port)])
        await lan.network.open([adopted])
        assert lan.network.pool6 == first.pool6
        assert lan.network.endpoint(adopted)[1:] == web[1:]
        whole = nft(f"list table ip6 {lan.name}")
        nft("flush ruleset")
        async with asyncio.timeout(10):
            while (
                f"table ip6 {lan.name}" not in nft("list ruleset")
                or nft(f"list table ip6 {lan.name}") != whole
            ):
                await asyncio.sleep(0.01)
        other = await lan.container("other")
        for kind in (TCP, UDP):
            assert await lan.ask(HOST6, port, kind, of=lan.neighbour) == f"web to {NEIGHBOUR6}"
            assert await lan.ask(web.address6, 80, kind, of=other.netns) == f"web to {other.address6}"
        endpoint = lan.network.endpoint(adopted)
        del lan.endpoints["web"], web, first
        gc.collect()
        await lan.network.release("web", endpoint)
        await lan.silent(HOST6, port)
        assert f" {port} : " not in nft(f"list table ip6 {lan.name}")

    lan(check)


@contextmanager
def old_kernel() -> Iterator[None]:
    """One that cannot let single interfaces forward: its settings are not to be seen."""
    real = Path.exists

    def exists(path: Path) -> bool:
        return path.name != "force_forwarding" and real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "exists", exists)
        yield


def settings(lan: Lan) -> dict[str, str]:
    names = ("forwarding", "accept_ra", "force_forwarding")
    paths = (pool6.CONF / where / name for where in ("all", "default", lan.wire) for name in names)
    return {str(path): path.read_text() for path in paths if path.is_file()}


def test_on_kernels_where_all_interfaces_forward_or_none_does(lan: InLan) -> None:
    """It listens to its routers all the same, and is afterwards what it was."""

    async def check(lan: Lan) -> None:
        await lan.network.close(remove=True)
        before = settings(lan)
        with old_kernel():
            (pool6.CONF / lan.wire / "accept_ra").write_text("1")
            lan.network = lan.make()
            await lan.network.open([])
            assert (pool6.CONF / lan.wire / "accept_ra").read_text() == "2\n"
            assert (pool6.CONF / "all/forwarding").read_text() == "1\n"
            port = free_port()
            web, other = await lan.container("web", tcp(port)), await lan.container("other")
            assert await lan.ask(HOST6, port, of=lan.neighbour) == f"web to {NEIGHBOUR6}"
            assert await lan.ask(web.address6, 80, of=other.netns) == f"web to {other.address6}"
            await lan.release()
            await lan.network.close(remove=True)
        assert settings(lan) == before
        lan.network = lan.make()
        await lan.network.open([])

    lan(check)


def test_single_interfaces_forward_where_the_kernel_can(lan: InLan) -> None:
    if not (pool6.CONF / "all/force_forwarding").exists():
        pytest.skip("this kernel cannot: it is older than 6.17")

    async def check(lan: Lan) -> None:
        assert (pool6.CONF / "all/forwarding").read_text() == "0\n"
        assert forwarding6.leading_out() == {lan.wire}
        assert (pool6.CONF / lan.wire / "force_forwarding").read_text() == "1\n"
        await lan.network.close(remove=True)
        assert (pool6.CONF / lan.wire / "force_forwarding").read_text() == "0\n"
        baseline = snapshot()
        lan.network = lan.make(ready="2")
        await lan.network.open([])
        web = await lan.network.make()
        await lan.network.release("web", web)
        await lan.network.close(remove=True)
        await asyncio.to_thread(assert_clean, baseline)
        assert not list(lan.run.iterdir())
        lan.network = lan.make()
        await lan.network.open([])

    lan(check)


def test_a_start_that_fails_leaves_nothing(lan: InLan) -> None:
    """Somebody has the second pool; what is remembered of the names cannot be read; and who died before there was a
    route has it made, and taken back."""

    async def check(lan: Lan) -> None:
        second = Lan.__new__(Lan)
        second.run, second.name = lan.run / "second", f"{lan.name}2"
        second.run.mkdir()

        def there() -> list[str]:
            return [*routes(), *nft("list tables").splitlines()]

        before = there()
        with pytest.raises(TinyoError) as caught:
            await second.make(pool6=str(lan.network.pool6)).open([])
        assert caught.value.reason == "POOL_TAKEN"
        assert (there(), list(second.run.iterdir())) == (before, [])
        (second.run / "names").write_text("nonsense")
        with pytest.raises(ValueError, match="nonsense"):
            await second.make().open([])
        assert (there(), list(second.run.iterdir())) == (before, [])
        (second.run / "pool").write_text("10.99.99.0/24")
        (second.run / "pool6").write_text("fd00:99::/64")
        network = second.make()
        await network.open([])
        claimed = ("unreachable 10.99.99.0/24 proto static", "unreachable fd00:99::/64 dev lo proto static")
        assert all(any(line.startswith(route) for line in there()) for route in claimed)
        await network.close(remove=True)
        assert (there(), list(second.run.iterdir())) == (before, [])

    lan(check)


@pytest.mark.parametrize("off", ["none", "all", "default"])
def test_without_ipv6_containers_have_none(lan: InLan, off: str) -> None:
    async def check(lan: Lan) -> None:
        await lan.network.close(remove=True)
        if off != "none":
            (pool6.CONF / off / "disable_ipv6").write_text("1")
        lan.network = lan.make(pool6="none" if off == "none" else "auto")
        await lan.network.open([])
        port = free_port()
        web = await lan.container("web", tcp(port))
        assert (web.address6, lan.network.pool6) == ("", None)
        assert (await lan.ask(HOST, port)).startswith("web to ")
        assert f"table ip6 {lan.name}" not in nft("list ruleset")
        with pytest.raises(TinyoError, match="containers have no IPv6 addresses on this machine") as caught:
            await lan.network.publish("web", web.address, [tcp(free_port(), HOST6)])
        assert caught.value.reason == "NO_IPV6"
        if off != "none":
            (pool6.CONF / off / "disable_ipv6").write_text("0")

    lan(check)


def test_ipv6_that_is_switched_off_later_is_no_reason_not_to_start(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        (pool6.CONF / "default/disable_ipv6").write_text("1")
        assert (await lan.container("web")).address6 == ""

    lan(check)


def test_the_pool_is_checked_and_always_the_same(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        pool = lan.network.pool6
        assert pool == next(pool6.ours(lan.name)) and pool.prefixlen == 64
        assert pool.subnet_of(IPv6Network("fd00::/8"))
        assert pool != next(pool6.ours("another"))
        web = await lan.container("web")
        assert IPv6Address(web.address6).packed[-4:] == IPv4Address(web.address).packed
        with pytest.raises(TinyoError) as caught:
            pool6.claim(str(pool), "second", lan.run / "second")
        assert (caught.value.reason, "set another `pool6`" in str(caught.value)) == ("POOL_TAKEN", True)
        for wrong, said in (("nonsense", "pool6 'nonsense'"), ("fd00:1::/112", "a network of /96 or larger")):
            with pytest.raises(SystemExit, match=said):
                pool6.choose(wrong, "x", [])
        assert pool6.choose("auto", lan.name, [pool]) == list(pool6.ours(lan.name))[1], (
            "the first has somebody"
        )

    lan(check)

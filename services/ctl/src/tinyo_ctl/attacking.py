"""`tinyo doctor --attack`: tries to break out of containers, and tells what held."""

import json
import signal
import time
from types import FrameType

from tinyo_ctl.access import need_root
from tinyo_ctl.attacks import Attack, Outcome, Result, calls, impossible, network, shell, starting
from tinyo_ctl.attacks.ground import Ground, Lost, Refused
from tinyo_ctl.render import styled
from tinyo_ctl.services import node
from tinyo_ctl.tell import safe

ATTACKS: tuple[Attack, ...] = (*shell.ATTACKS, *calls.ATTACKS, *network.ATTACKS, *starting.ATTACKS)
STYLES = {Result.HELD: "green", Result.NOT_HELD: "red", Result.IMPOSSIBLE: "dim"}
#: Characters of the columns of names and of results.
WIDTH, WORD = max(len(attack.name) for attack in ATTACKS), max(len(result.value) for result in Result)


def attack(host: str, output: str | None) -> int:
    """Exit code 0 when every attack held that is possible here, else 1."""
    need_root()
    signal.signal(signal.SIGTERM, interrupted)
    results = list[Result]()
    with node(host) as services, Ground(services) as ground:
        if output != "json":
            print(
                styled("dim", f"{'ATTACK'.ljust(WIDTH)}   {'CVE'.ljust(14)}   {'RESULT'.ljust(WORD)}   MS"),
                flush=True,
            )
        for one in ATTACKS:
            began = time.monotonic()
            result, why = tried(one, ground)
            results.append(result)
            show(one, (result, why), round((time.monotonic() - began) * 1000), output)
    broken, held = results.count(Result.NOT_HELD), results.count(Result.HELD)
    if output != "json":
        end = styled("red", f"{broken} NOT held") if broken else styled("green", "all held")
        print(
            f"\n{len(results)} attacks, {end}; {len(results) - broken - held} not possible here. Nothing of it is left."
        )
    return 1 if broken else 0


def interrupted(number: int, frame: FrameType | None) -> None:
    """Ends as Ctrl-C does, so that nothing is left."""
    raise SystemExit(128 + number)


def tried(one: Attack, ground: Ground) -> Outcome:
    """What came of it; when what it needs does not start, nobody can say."""
    try:
        return one.run(ground)
    except (Refused, Lost) as error:
        return impossible(str(error))


def show(one: Attack, outcome: Outcome, ms: int, output: str | None) -> None:
    """A row of the table, or an object."""
    result, why = outcome
    if output == "json":
        facts = {"attack": one.name, "cve": one.cve, "result": result.value, "why": why, "ms": ms}
        print(json.dumps(facts), flush=True)
        return
    word = styled(STYLES[result], result.value.ljust(WORD))
    print(
        f"{one.name.ljust(WIDTH)}   {one.cve.ljust(14)}   {word}   {ms:>4}   {safe(why)}".rstrip(), flush=True
    )

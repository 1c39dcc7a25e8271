"""The keys `tty` and `stdin`: what a container reads and writes."""

from tinyo_ctl.keys.kinds import Key, One
from tinyo_ctl.keys.values import truth

#: What can be written, and what it is in the contract.
INPUTS = {
    "open": "STANDARD_INPUT_OPEN",
    "true": "STANDARD_INPUT_OPEN",
    "closed": "STANDARD_INPUT_CLOSED",
    "false": "STANDARD_INPUT_CLOSED",
    "once": "STANDARD_INPUT_ONCE",
}


def stdin(text: str) -> str:
    """What standard input is. ValueError."""
    if text not in INPUTS:
        raise ValueError(f"{text!r} is no kind of standard input: write open, closed or once")
    return INPUTS[text]


KEYS: dict[str, Key] = {"tty": Key("tty", One(truth)), "stdin": Key("stdin", One(stdin))}

"""The key `userns`: whether a container gets a user namespace."""

from tinyo_ctl.keys.kinds import Key, One
from tinyo_ctl.keys.values import truth


def wanted(text: str) -> str:
    """true or false, as the contract has it: there, nothing said is a third answer."""
    return "USER_NAMESPACE_ON" if truth(text) else "USER_NAMESPACE_OFF"


KEYS: dict[str, Key] = {"userns": Key("userns", One(wanted))}

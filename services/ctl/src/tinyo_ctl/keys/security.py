"""The key `security`: what a container may do to its kernel."""

import os
from typing import TYPE_CHECKING, Any

from tinyo.v1.security_pb2 import Capability

from tinyo_ctl.diagnose import unknown
from tinyo_ctl.failures import Failure
from tinyo_ctl.keys.kinds import Key, One, Several, Table
from tinyo_ctl.keys.values import truth

if TYPE_CHECKING:
    import yaml

    from tinyo_ctl.mistakes import Reader

#: Bytes of a profile of system calls (the contract's limit).
SIZE_LIMIT = 128 << 10
#: What can be written in place of the file of a profile, and what it is in the contract.
SECCOMP = {"default": "SECCOMP_KIND_UNSPECIFIED", "unconfined": "SECCOMP_KIND_UNCONFINED"}


def capability(text: str) -> str:
    """A capability, in whatever case and with or without CAP_. ValueError."""
    name = f"CAPABILITY_{text.upper().removeprefix('CAP_')}"
    known = Capability.keys()[1:]
    if name not in known:
        names = [one.removeprefix("CAPABILITY_") for one in known]
        raise ValueError(unknown("capability", text.upper().removeprefix("CAP_"), names))
    return name


def profile(path: str) -> str:
    """The text of a profile. ValueError."""
    try:
        with open(path, "rb") as file:
            content = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise ValueError(f"the profile {path} cannot be read: {error.strerror}") from None
    if len(content) > SIZE_LIMIT:
        raise ValueError(f"the profile {path} is larger than 128 KiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"the profile {path} is not UTF-8") from None


def seccomp(text: str) -> dict[str, str]:
    """Which system calls: a word, or the absolute path of a profile. ValueError."""
    if text in SECCOMP:
        return {"kind": SECCOMP[text]}
    return {"kind": "SECCOMP_KIND_PROFILE", "file": os.path.basename(text), "profile": profile(text)}


def located(text: str, folder: str) -> str:
    """The path of a profile, which begins at the folder of the Statefile; a word stays as it is. ValueError."""
    if not text:
        raise ValueError("write default, unconfined, or the file of a profile")
    return text if text in SECCOMP else os.path.join(folder, os.path.expanduser(text))


def locate(values: dict[str, Any], folder: str) -> None:
    """Does so in the values of a Statefile."""
    security = values.get("security")
    if security and "seccomp" in security:
        security["seccomp"] = located(security["seccomp"], folder)


class Profile:
    """A word, or the file of a profile."""

    def find(self, reader: "Reader", node: "yaml.Node", path: str) -> None:
        folder = reader.folder
        reader.value(node, path, lambda text: seccomp(located(text, folder)) if folder else None, None)

    def made(self, written: Any) -> Any:
        try:
            return seccomp(written)
        except ValueError as error:  # it has gone since it was looked for
            raise Failure(str(error)) from None


def apparmor(text: str) -> str:
    """The name of an AppArmor profile, as the contract has it. ValueError."""
    if not text:
        raise ValueError("write default, unconfined, or the name of a profile that is loaded")
    return "" if text == "default" else text


def privileges(text: str) -> bool:
    """Whether there are new ones: the opposite of what is written."""
    return not truth(text)


CAPABILITIES = Several(One(capability))

KEYS: dict[str, Key] = {
    "security": Key(
        "security",
        Table(
            {
                "capabilities": Key(
                    "capabilities",
                    Table({"add": Key("add", CAPABILITIES), "drop": Key("drop", CAPABILITIES)}),
                ),
                "seccomp": Key("seccomp", Profile()),
                "no_new_privileges": Key("new_privileges", One(privileges)),
                "apparmor": Key("apparmor", One(apparmor)),
            }
        ),
    )
}

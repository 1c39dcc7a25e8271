"""Keys about a container's process: what is executed, as whom, with what limits, and how it is stopped."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinyo_ctl.keys.kinds import Key, Kind, Named, One, Several, Table
from tinyo_ctl.keys.values import milliseconds, truth

if TYPE_CHECKING:
    import yaml

    from tinyo_ctl.mistakes import Reader

DURATION = re.compile(
    r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6}(?:\.[0-9]{1,3})?)s)?(?:([0-9]{1,9})ms)?"
)


def duration(text: str) -> int:
    """Milliseconds."""
    if (time := milliseconds(text, DURATION)) is None:
        raise ValueError(f"{text!r} is no time: write it as in 10s, 1m30s or 500ms")
    return time


def bound(text: str) -> int:
    """A limit: a number, or none."""
    if text in ("-1", "unlimited"):
        return -1
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ValueError(f"{text!r} is no limit: write a number, or unlimited")
    return int(text)


def ulimit(text: str) -> dict[str, Any]:
    """Both limits, or the soft and the hard one: "1024", "1024:4096"."""
    soft, colon, hard = text.partition(":")
    return {"soft": bound(soft), "hard": bound(hard if colon else soft)}


def score(text: str) -> int:
    """A number that may be negative."""
    if not re.fullmatch(r"-?[0-9]{1,4}", text):
        raise ValueError(f"{text!r} is no number from -1000 to 1000")
    return int(text)


def word(text: str) -> str:
    """A text that is not empty."""
    if not text:
        raise ValueError("a text is expected here")
    return text


def split(text: str) -> list[str]:
    """Words, as a shell would split them."""
    from tinyo_ctl import shorthand

    return shorthand.words(text)


@dataclass
class Words:
    """A list of words, or one text that is split as a shell would split it."""

    def find(self, reader: "Reader", node: "yaml.Node", path: str) -> None:
        import yaml

        if isinstance(node, yaml.SequenceNode):
            for item, place in reader.items(node, path):
                reader.value(item, place, str, "")
        else:
            reader.value(node, path, split, None)

    def made(self, written: Any) -> Any:
        return written if isinstance(written, list) else split(written)


@dataclass
class Message:
    """A kind that is one field of a message, so that what is empty differs from what is not there."""

    field: str
    kind: Kind

    def find(self, reader: "Reader", node: "yaml.Node", path: str) -> None:
        self.kind.find(reader, node, path)

    def made(self, written: Any) -> Any:
        return {self.field: self.kind.made(written)}


KEYS = {
    "entrypoint": Key("entrypoint", Message("words", Words())),
    "args": Key("args", Words()),
    "hostname": Key("hostname", One(word)),
    "groups": Key("groups", Several(One(word))),
    "init": Key("init", One(truth)),
    "stop_signal": Key("stop_signal", One(word)),
    "stop_grace": Key("stop_grace_ms", One(duration)),
    "ulimits": Key(
        "ulimits",
        Named(
            Table(
                {"soft": Key("soft", One(bound), needed=True), "hard": Key("hard", One(bound), needed=True)},
                ulimit,
            )
        ),
    ),
    "sysctls": Key("sysctls", Named(One(str))),
    "oom_score_adj": Key("oom_score_adj", One(score)),
}

"""The key `health`: how a container is checked while it runs."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinyo_ctl.keys.kinds import Key, Named, One, Several, Table
from tinyo_ctl.keys.values import milliseconds, number, truth

if TYPE_CHECKING:
    import yaml

    from tinyo_ctl.mistakes import Reader

#: What one text is run by.
SHELL = ("/bin/sh", "-c")
#: Ways to check.
WAYS = ("exec", "http", "tcp")
DURATION = re.compile(
    r"(?:(\d{1,5})h)?(?:(\d{1,6})m)?(?:(\d{1,8}(?:\.\d{1,3})?)s)?(?:(\d{1,9})ms)?", re.ASCII
)


def period(text: str) -> int:
    """Milliseconds, up to those of a day."""
    if (time := milliseconds(text, DURATION)) is None:
        raise ValueError(f"{text!r} is no time: write it as in 30s, 1m30s or 500ms")
    if time > 24 * 3_600_000:
        raise ValueError(f"{text!r} is longer than a day")
    return time


def duration(text: str) -> int:
    """The same, and not 0."""
    if not (time := period(text)):
        raise ValueError(f"{text!r} is no time to wait: write one as in 30s, 1m30s or 500ms")
    return time


def port(text: str) -> int:
    """A port of the container."""
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ValueError(f"{text!r} is no port between 1 and 65535")
    return int(text)


def path(text: str) -> str:
    """What is asked for."""
    if not text.startswith("/"):
        raise ValueError(
            f"{text!r} is no path: write one as in /health, and for more a mapping of port and path"
        )
    return text


def tls(text: str) -> bool:
    """Whether a scheme has TLS."""
    if text not in ("http", "https"):
        raise ValueError(f"{text!r} is no scheme: write http or https")
    return text == "https"


def status(text: str) -> int:
    """A status of HTTP."""
    if not re.fullmatch("[1-5][0-9][0-9]", text):
        raise ValueError(f"{text!r} is no status: write a number from 100 to 599")
    return int(text)


def off(text: str) -> dict[str, bool]:
    """Instead of a check: none."""
    if text != "none":
        raise ValueError(f"{text!r} is no check: write none, or a mapping with one of {', '.join(WAYS)}")
    return {"none": True}


@dataclass
class Program:
    """A list of words; or one text, which a shell of the container runs."""

    def find(self, reader: "Reader", node: "yaml.Node", path: str) -> None:
        import yaml

        if not isinstance(node, yaml.SequenceNode):
            reader.value(node, path, self.words, None)
            return
        for item, place in reader.items(node, f"{path}.command"):
            reader.value(item, place, str, "")
        reader.place(path, node)
        if not node.value:
            reader.mistake(node, "a program is expected here")

    def made(self, written: Any) -> Any:
        return {"command": self.words(written) if isinstance(written, str) else written}

    def words(self, text: str) -> list[str]:
        """ValueError when nothing would be run."""
        if not text.strip():
            raise ValueError("a program is expected here")
        return [*SHELL, text]


@dataclass
class Number:
    """A port, in a message of its own."""

    def find(self, reader: "Reader", node: "yaml.Node", path: str) -> None:
        reader.value(node, path, port, None)

    def made(self, written: Any) -> Any:
        return {"port": port(written)}


class Check(Table):
    """One way to check, and how often; or `none`."""

    def find(self, reader: "Reader", node: "yaml.Node", path: str) -> None:
        import yaml

        super().find(reader, node, path)
        if isinstance(node, yaml.MappingNode):
            ways = [key for key, _ in node.value if key.value in WAYS]
            if not ways:
                reader.mistake(node, f"a check is missing here: write one of {', '.join(WAYS)}")
            for further in ways[1:]:
                reader.mistake(
                    further, f"there can be one check, and {ways[0].value!r} is there: remove one of them"
                )


HTTP = Table(
    {
        "path": Key("path", One(path)),
        "port": Key("port", One(port)),
        "scheme": Key("tls", One(tls)),
        "headers": Key("headers", Named(One(str))),
        "status": Key("statuses", Several(One(status))),
    },
    short=lambda text: {"path": path(text)},
)

KEYS = {
    "health": Key(
        "health",
        Check(
            {
                "exec": Key("exec", Program()),
                "http": Key("http", HTTP),
                "tcp": Key("tcp", Number()),
                "interval": Key("interval_ms", One(duration)),
                "timeout": Key("timeout_ms", One(duration)),
                "retries": Key("retries", One(number)),
                "start_period": Key("start_period_ms", One(period)),
                "start_interval": Key("start_interval_ms", One(duration)),
                "restart": Key("restart", One(truth)),
            },
            short=off,
        ),
    )
}

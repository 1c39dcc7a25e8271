"""What a value in a Statefile can be. Each kind finds mistakes where they stand, and makes what the contract has.

Key("resources.pids", One(number))                 # pids: 100
Key("dns.servers", Several(One(address)))          # dns: 1.1.1.1      or a list
Key("labels", Named(One(str)))                     # labels: {a: b}    or [a=b]
Key("restart", Table({"delay": One(seconds)}, short=policy))
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import yaml

    from tinyo_ctl.mistakes import Reader


class Kind(Protocol):
    """What a value can be."""

    def find(self, reader: "Reader", node: "yaml.Node", path: str) -> None:
        """Notes what is wrong with it, and the place of the field at `path`."""

    def made(self, written: Any) -> Any:
        """What a value without mistakes stands for."""


class Key(NamedTuple):
    """A key: the field of its message, which may be in another ("resources.pids"), and what its value can be."""

    field: str
    kind: Kind
    #: A table without it is a mistake.
    needed: bool = False


@dataclass
class One:
    """One value; `parse` raises ValueError with a sentence for people."""

    parse: Callable[[str], Any]

    def find(self, reader: "Reader", node: "yaml.Node", path: str) -> None:
        reader.value(node, path, self.parse, None)

    def made(self, written: Any) -> Any:
        return self.parse(written)


@dataclass
class Several:
    """A list; something that is no list is a list of one."""

    kind: Kind

    def find(self, reader: "Reader", node: "yaml.Node", path: str) -> None:
        for item, place in reader.items(node, path):
            self.kind.find(reader, item, place)

    def made(self, written: Any) -> Any:
        return [self.kind.made(one) for one in (written if isinstance(written, list) else [written])]


@dataclass
class Named:
    """Values by names that people choose: a mapping, or a list of NAME=value."""

    kind: Kind

    def find(self, reader: "Reader", node: "yaml.Node", path: str) -> None:
        import yaml

        reader.place(path, node)
        if isinstance(node, yaml.SequenceNode):
            names = set[str]()
            for item, place in reader.items(node, path):
                name, _ = reader.value(item, place, self._pair, ("", None))
                if name and name in names:
                    reader.mistake(item, f"{name!r} is there twice")
                names.add(name)
            return
        for name, value in reader.mapping(node).items():
            self.kind.find(reader, value, f"{path}[{name}]")

    def made(self, written: Any) -> Any:
        if isinstance(written, list):
            return dict(map(self._pair, written))
        return {name: self.kind.made(value) for name, value in written.items()}

    def _pair(self, text: str) -> tuple[str, Any]:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValueError(f"{text!r}: write NAME=value")
        return name, self.kind.made(value)


@dataclass
class Table:
    """A mapping with these keys; or, where `short` is given, one value, of which it makes the fields."""

    keys: Mapping[str, Key]
    short: Callable[[str], dict[str, Any]] | None = None

    def find(self, reader: "Reader", node: "yaml.Node", path: str) -> None:
        import yaml

        reader.place(path, node)
        if self.short and isinstance(node, yaml.ScalarNode):
            reader.value(node, path, self.short, None)
            return
        values = reader.mapping(node, tuple(self.keys))
        for name, value in values.items():
            key = self.keys[name]
            key.kind.find(reader, value, f"{path}.{key.field}")
        for name, key in self.keys.items():
            if key.needed and name not in values:
                reader.mistake(node, f"{name!r} is missing here")

    def made(self, written: Any) -> Any:
        if self.short and not isinstance(written, dict):
            return self.short(written)
        return {self.keys[name].field: self.keys[name].kind.made(value) for name, value in written.items()}

"""Reading JSON that others wrote: every value has the kind that it must have, or the error says where it is not so.

part = Part({"args": ["sh"]}, "config.json: process")
part.texts("args")                     # ["sh"]
part.number("umask")                   # None
"""

from typing import Any

from tinyo_runtime.oci.errors import OciError

#: The largest number in JSON that every reader takes as it is; limits of the kernel are 64 bits.
MOST = (1 << 64) - 1


class Part:
    """An object of a document, and where it is. What it does not say is None, or empty."""

    def __init__(self, value: Any, where: str) -> None:
        if value is not None and not isinstance(value, dict):
            raise OciError(f"{where} must be an object, and is {value!r:.80}")
        self.value: dict[str, Any] = value or {}
        self.where = where

    def __bool__(self) -> bool:
        return bool(self.value)

    def at(self, key: str) -> str:
        """Where a value of it is, for people."""
        return f"{self.where}.{key}" if not self.where.endswith(".json") else f"{self.where}: {key}"

    def wrong(self, key: str, what: str) -> OciError:
        """The error about one of its values."""
        return OciError(f"{self.at(key)} {what}")

    def part(self, key: str) -> "Part":
        """An object in it."""
        return Part(self.value.get(key), self.at(key))

    def parts(self, key: str) -> list["Part"]:
        """A list of objects in it."""
        return [
            Part(one if one is not None else {}, f"{self.at(key)}[{index}]")
            for index, one in enumerate(self._list(key))
        ]

    def texts(self, key: str) -> list[str]:
        """A list of texts."""
        found = self._list(key)
        for one in found:
            self._text(key, one)
        return found

    def text(self, key: str) -> str:
        """A text; "" when there is none."""
        value = self.value.get(key)
        return self._text(key, value) if value is not None else ""

    def needed(self, key: str) -> str:
        """A text that must be there."""
        if not (value := self.text(key)):
            raise self.wrong(key, "is needed")
        return value

    def flag(self, key: str) -> bool:
        """True or false; false when it says nothing."""
        value = self.value.get(key)
        if value not in (None, True, False) or (isinstance(value, int) and not isinstance(value, bool)):
            raise self.wrong(key, f"must be true or false, and is {value!r:.80}")
        return bool(value)

    def number(self, key: str, least: int = 0, most: int = MOST) -> int | None:
        """A whole number in these bounds."""
        value = self.value.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(key, f"must be a whole number, and is {value!r:.80}")
        if not least <= value <= most:
            raise self.wrong(key, f"must be from {least} to {most}, and is {value}")
        return value

    def texts_by_name(self, key: str) -> dict[str, str]:
        """An object of texts."""
        found = self.part(key)
        return {name: found._text(name, value) for name, value in found.value.items()}

    def refuse(self, key: str, why: str = "is not supported") -> None:
        """A value that changes what a container is, and that nobody here would heed."""
        if self.value.get(key) not in (None, "", 0, False, [], {}):
            raise self.wrong(key, why)

    def _list(self, key: str) -> list[Any]:
        value = self.value.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(key, f"must be a list, and is {value!r:.80}")
        return value

    def _text(self, key: str, value: Any) -> str:
        if not isinstance(value, str) or "\0" in value:
            raise self.wrong(key, f"must be text, and is {value!r:.80}")
        return value

"""For programs: one JSON object a line, as docs/images.md describes them."""

import json
import threading
from typing import Any, Generic, Protocol, TypeVar

from tinyo_ctl.refusals import NodeError


class _Part(Protocol):
    """A layer, or another blob, that is on its way."""

    @property
    def digest(self) -> str: ...


Part = TypeVar("Part", bound=_Part)


class Objects(Generic[Part]):
    """What becomes of one image."""

    _lock = threading.Lock()

    def __init__(self, asked: str) -> None:
        self._asked = asked
        self._told: dict[str, Part] = {}

    def is_news(self, part: Part) -> bool:
        """Whether a part is not as it was when this was asked last."""
        news = self._told.get(part.digest) != part
        self._told[part.digest] = part
        return news

    def failed(self, error: NodeError) -> int:
        """Tells why; the exit code for that."""
        self.tell("error", reason=error.errors[0].reason, message=str(error))
        return error.exit_code

    def tell(self, event: str, **facts: Any) -> None:
        """One object."""
        line = json.dumps({"event": event, "image": self._asked, **facts})  # in ASCII: no terminal obeys it
        with self._lock:
            print(line, flush=True)

"""Several calls at once: how far each is is shown as it comes, and all else that they say is told one after the other."""

import threading
import time
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import Generic, TypeVar

from tinyo.node.v1.node_pb2 import ApplyRequest, ApplyResponse, PullImageResponse

from tinyo_ctl.progress import Shown, showing

Answer = TypeVar("Answer", ApplyResponse, PullImageResponse)
Begun = Sequence[tuple[str, ApplyRequest, Iterator[ApplyResponse]]]


def applies(begun: Begun) -> Begun:
    """The same calls, each of which is read from now on."""
    showing.began = time.monotonic()
    return [(path, request, Stream(answers, showing)) for path, request, answers in begun]


class Stream(Generic[Answer]):
    """The answers of a call in their order; of those that say how far it is, only that all of it is there."""

    def __init__(self, answers: Iterator[Answer], shown: Shown) -> None:
        self._answers: Iterator[Answer] = answers
        self._shown = shown
        #: What it is about that is shown.
        self.titles = set[str]()
        self._queue: SimpleQueue[Answer | BaseException] = SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def __iter__(self) -> Iterator[Answer]:
        return self

    def __next__(self) -> Answer:
        """The next one. Raises what the call ended with."""
        answer = self._queue.get()
        if isinstance(answer, BaseException):
            self._queue.put(answer)
            raise answer
        return answer

    def _read(self) -> None:
        end: BaseException = StopIteration()
        try:
            for answer in self._answers:
                if answer.HasField("progress"):
                    self._show(answer)
                else:
                    if answer.WhichOneof("result") in ("settled", "image"):
                        self._drop()
                    self._queue.put(answer)
        except Exception as error:  # whoever takes the answers gets it
            end = error
        self._drop()
        self._queue.put(end)

    def _show(self, answer: Answer) -> None:
        self.titles.add(answer.progress.reference)
        self._shown.show(answer.progress)
        if answer.progress.layers and all(layer.complete for layer in answer.progress.layers):
            self._queue.put(answer)

    def _drop(self) -> None:
        for title in self.titles:
            self._shown.drop(title)

"""The thread that owns the model: requests wait, join the running batch between steps, and leave.

Whoever waits joins before the next step, as many as there is room for, in the order they came. A
join runs the new prompts by themselves and copies the cache of the running batch once, which costs
about what a step reads of it; so nobody waits for a batch to end. Between two joins there is always
a step: a stream of new requests does not hold up those that run.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch

from polyprefix.evaluation.decoding import Row, RunningBatch, TokenLogprob
from polyprefix.methods import AdaptedModel

logger = logging.getLogger(__name__)
T = TypeVar("T")


class QueueFull(Exception):
    """As many prompts wait as may."""


class Closing(Exception):
    """The engine takes nothing new."""


@dataclass(frozen=True, slots=True)
class Update:
    """How far an answer is.

    Attributes:
        number: of the prompt in its request.
        text: all of it so far.
        tokens: of it, so far.
        reason: why it is finished: ``stop`` or ``length``; ``None`` while it is not.
        logprobs: of tokens that are new since the last update.
    """

    number: int
    text: str
    tokens: int
    reason: str | None
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(eq=False)
class Ticket:
    """A request's rows on their way through the engine.

    Attributes:
        rows: one for each prompt.
        post: called on the engine's thread with the updates of a step, or with what went wrong.
            It must not block.
        stream: post every step, not only what is finished.
        cancelled: nobody waits for it any more.
    """

    rows: Sequence[Row]
    post: Callable[[Sequence[Update] | Exception], None]
    stream: bool = False
    cancelled: bool = False
    told: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.told = [0] * len(self.rows)


class Watcher(Protocol):
    """Who counts what the engine does; called on its thread."""

    def stepped(self, rows: int, left: int, waiting: int, tokens: int) -> None:
        """A step, or a join: rows that were answered, those that are not finished with it, prompts
        that wait, tokens that were written."""

    def idle(self) -> None:
        """There is nothing to do."""


class Engine:
    """Answers rows with one model.

    Args:
        model: used by nobody else from now on.
        max_rows: of a batch.
        batch_tokens: columns of the cache times rows, at most. A row by itself may have more.
        max_waiting: prompts that may wait.
        watcher: told what happens.
    """

    def __init__(
        self,
        model: AdaptedModel,
        *,
        max_rows: int,
        batch_tokens: int,
        max_waiting: int,
        watcher: Watcher,
    ) -> None:
        self.model = model.eval()
        self.max_rows, self.batch_tokens, self.max_waiting = max_rows, batch_tokens, max_waiting
        self._watcher = watcher
        self._batch = RunningBatch(model)
        self._owner: dict[Row, tuple[Ticket, int]] = {}  # of rows that wait or run
        self._waiting: deque[Row] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        # A process that is told twice to stop does not wait for the thread.
        self._thread = threading.Thread(target=self._run, name="polyprefix-engine", daemon=True)

    # For other threads -------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether requests are taken and answered."""
        return self._thread.is_alive() and not self._closing

    def submit(self, ticket: Ticket) -> None:
        """Queue all rows of a request, or none.

        Raises:
            QueueFull: too many wait.
            Closing: the engine is being closed.
        """
        with self._changed:
            self._room_for(len(ticket.rows))
            for number, row in enumerate(ticket.rows):
                self._owner[row] = ticket, number
            self._waiting.extend(ticket.rows)
            self._changed.notify()

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Have a function called with the model between two steps.

        Raises:
            QueueFull: too many wait.
            Closing: the engine is being closed.
        """
        future: Future[T] = Future()
        with self._changed:
            self._room_for(1)
            self._calls.append((function, future))
            self._changed.notify()
        return future

    def cancel(self, ticket: Ticket) -> None:
        """Take a request's rows out before the next step; nothing more is posted for it."""
        with self._changed:
            ticket.cancelled = True
            self._changed.notify()

    def close(self, timeout: float | None = None) -> bool:
        """Take nothing new, answer what there is, and end; whether that was in time."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _room_for(self, more: int) -> None:
        if self._closing or not self._thread.is_alive():
            raise Closing
        if len(self._waiting) + len(self._calls) + more > self.max_waiting:
            raise QueueFull

    # The thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while self._turn():
                    pass
        except BaseException as error:
            self._closing = True
            self._fail(error if isinstance(error, Exception) else RuntimeError(str(error)))
            raise

    def _turn(self) -> bool:
        """One join, step or call, whatever there is; ``False`` when there will be nothing."""
        with self._changed:
            self._drop_cancelled()
            while not (self._waiting or self._owner or self._calls):
                if self._closing:
                    return False
                self._watcher.idle()
                self._batch = RunningBatch(self.model)  # its cache is wanted no more
                self._changed.wait()
                self._drop_cancelled()
            joining = self._batch.admit(self._waiting, self.batch_tokens, self.max_rows)
            call = self._calls.popleft() if self._calls else None
        try:
            if joining:
                self._batch.join(joining)
                self._deliver()
            if self._batch.going:
                self._batch.step()
                self._deliver()
        except Exception as error:
            # Which row it was cannot be told; the rest of the queue may well be answered.
            logger.exception("a batch of %d rows failed", len(self._batch.rows) + len(joining))
            self._fail(error, waiting=False)
        if call is not None:
            function, future = call
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except Exception as error:
                    future.set_exception(error)
        return True

    def _drop_cancelled(self) -> None:
        gone = [row for row, (ticket, _) in self._owner.items() if ticket.cancelled]
        for row in gone:
            row.done = True
            del self._owner[row]
        if gone:
            self._waiting = deque(row for row in self._waiting if row in self._owner)

    def _deliver(self) -> None:
        """Tell requests what their rows have got."""
        updates: dict[Ticket, list[Update]] = {}
        rows = left = written = 0
        for row in self._batch.rows:
            if row not in self._owner:
                continue  # finished, or cancelled, and still in its place
            rows, left = rows + 1, left + (row.left > 0)
            ticket, number = self._owner[row]
            written += len(row.new) - ticket.told[number]
            reason = None if row.left else "stop" if row.done else "length"
            if ticket.stream or reason:
                kept = row.kept
                row.kept = []
                updates.setdefault(ticket, []).append(
                    Update(number, row.text, len(row.new), reason, tuple(kept))
                )
            ticket.told[number] = len(row.new)
            if reason:
                del self._owner[row]
        self._watcher.stepped(rows, left, len(self._waiting), written)
        for ticket, found in updates.items():
            ticket.post(found)

    def _fail(self, error: Exception, *, waiting: bool = True) -> None:
        """Tell the requests that run, or all, and begin anew."""
        with self._changed:
            left = set() if waiting else set(self._waiting)
            lost = {ticket for row, (ticket, _) in self._owner.items() if row not in left}
            for ticket in lost:
                ticket.cancelled = True
            self._drop_cancelled()
            self._batch = RunningBatch(self.model)
            calls = list(self._calls) if waiting else []
            if waiting:
                self._calls.clear()
        for ticket in lost:
            ticket.post(error)
        for _, future in calls:
            future.set_exception(error)

"""Who may use a model as which task: several at a time as one task, whoever wants another one waits their turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from diffpack.errors import UsageError


@dataclass(eq=False)
class _Ticket:
    """One who waits."""

    key: Hashable
    alone: bool


@dataclass
class _State:
    """What is being done with the model: who holds it, as what."""

    key: Hashable = None
    alone: bool = False
    holders: dict[int, int] = field(default_factory=dict)  # threads, and how often each


class Leases:
    """Leases of one model, in the order they were asked for; holders of one key share it."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._waiting: deque[_Ticket] = deque()
        self._state = _State()
        self._busy = False

    def acquire(self, key: Hashable, put: Callable[[], None], *, alone: bool = False) -> None:
        """Wait until the model may be used as `key`, and let `put` make it so. `alone` shares it with nobody.

        `put` is called when nobody else holds a lease, by one thread at a time; not for who joins others. A thread may
        take a key again while it holds it. Raises `UsageError` if it holds another one, which it would wait for for
        ever, and what `put` raises; then nothing is held.
        """
        me = threading.get_ident()
        with self._turn:
            if me in self._state.holders:
                if self._state.key != key or alone:
                    raise UsageError(
                        "this thread uses the model as another task: leave its `with` block first (coroutines of one "
                        "event loop are one thread: run the model in worker threads)"
                    )
                self._state.holders[me] += 1
                return
            ticket = _Ticket(key, alone)
            self._waiting.append(ticket)
            try:
                self._turn.wait_for(lambda: self._is_next(ticket))
            except BaseException:
                self._waiting.remove(ticket)
                self._turn.notify_all()
                raise
            self._waiting.popleft()
            first = not self._state.holders
            self._busy = first
        try:
            if first:
                put()
        except BaseException:
            with self._turn:
                self._busy = False
                self._turn.notify_all()
            raise
        with self._turn:
            if first:
                self._state = _State(key, alone)
            self._state.holders[me] = 1
            self._busy = False
            self._turn.notify_all()

    def _is_next(self, ticket: _Ticket) -> bool:
        if self._busy or self._waiting[0] is not ticket:
            return False
        state = self._state
        return not state.holders or (state.key == ticket.key and not state.alone and not ticket.alone)

    def release(self, back: Callable[[], None]) -> None:
        """Give a lease of this thread back. `back` is called if nobody holds or waits for one."""
        me = threading.get_ident()
        with self._turn:
            self._state.holders[me] -= 1
            if self._state.holders[me]:
                return
            del self._state.holders[me]
            self._busy = last = not self._state.holders and not self._waiting
            if not last:
                self._turn.notify_all()
                return
        try:
            back()
        finally:
            with self._turn:
                self._busy = False
                self._turn.notify_all()

    @property
    def held(self) -> int:
        """How many threads hold a lease."""
        return len(self._state.holders)

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._waiting)

"""Which turn or thread a batch of notifications belongs to: one dictionary look-up a batch.

Invariants: events of a turn that is being started are kept by it until its id is known; events of
an ended turn go to its thread; events of a sub-agent count as activity of the turn that started
it, and are never taken for that turn's own. A server that names no thread means the only turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from codex_app_server.protocol.rpc import Run, ServerRequest

if TYPE_CHECKING:
    from codex_app_server.threads import Thread
    from codex_app_server.turns import Turn

__all__ = ["Router"]

_OF_A_TURN = ("turn/", "item/", "thread/tokenUsage/", "error")


class Router:
    """The table of one connection.

    Attributes:
        threads: Opened threads by id.
    """

    __slots__ = ("_active", "_parents", "_turns", "threads")

    def __init__(self) -> None:
        self.threads: dict[str, Thread] = {}
        self._turns: dict[tuple[str | None, str | None], Turn] = {}
        self._active: dict[str, Turn] = {}
        self._parents: dict[str, Turn] = {}

    def adopt(self, thread: Thread, reply: dict[str, Any]) -> Thread:
        """Enter an opened thread; one that is open already keeps its object, with the new tools."""
        known = self.threads.setdefault(thread.id, thread)
        known.take_tools(thread)
        known.info = reply
        return known

    def running(self) -> list[Turn]:
        """Return the turns that have not ended."""
        return list(self._active.values())

    def wants_pause(self) -> bool:
        """Tell whether an iterator is so far behind that reading should stop."""
        return any(turn.wants_pause for turn in self._active.values())

    def expect(self, turn: Turn) -> None:
        """A turn is about to be started."""
        self._active[turn.thread.id] = turn

    def bind(self, turn: Turn, turn_id: str, now: float) -> None:
        """A turn has got its id: give it what arrived before."""
        if turn.done:
            return
        self._turns[turn.thread.id, turn_id] = turn
        others = turn.bound(turn_id, now)
        self._link(turn.children, turn)
        if others:
            turn.thread.deliver(others)

    def retire(self, turn: Turn) -> None:
        """A turn has ended."""
        self._turns.pop((turn.thread.id, turn.id), None)
        if self._active.get(turn.thread.id) is turn:
            del self._active[turn.thread.id]
        for child in turn.children:
            if self._parents.get(child) is turn:
                del self._parents[child]

    def route(self, run: Run, now: float) -> None:
        """Hand a batch over."""
        thread_id = run.thread_id
        if thread_id is None:
            self._route_unnamed(run, now)
            return
        turn = self._turns.get((thread_id, run.turn_id))
        if turn is None:
            active = self._active.get(thread_id)
            if active is not None and (active.id is None or run.turn_id is None):
                turn = active
        if turn is not None:
            turn.deliver(run, now)
            if not run.only_deltas and not turn.done:
                self._link(turn.children, turn)
        elif thread_id in self.threads:
            self.threads[thread_id].deliver(run.events)
        elif thread_id in self._parents:
            self._parents[thread_id].touch(now)

    def _route_unnamed(self, run: Run, now: float) -> None:
        """Hand over what says no thread: simple servers leave out the ids; Codex never does."""
        turn = next((one for (_, named), one in self._turns.items() if named == run.turn_id), None)
        if turn is None:
            turn = self.only_turn()
            if turn is None or (turn.id is not None and run.turn_id is not None):
                return
        events = [event for event in run.events if event.method.startswith(_OF_A_TURN)]
        if events:
            turn.deliver(Run(run.thread_id, run.turn_id, events, run.only_deltas), now)

    def name(self, request: ServerRequest) -> None:
        """Enter whom a server request of a turn concerns, where it does not say so."""
        turn = self.only_turn()
        if request.thread_id is None and turn is not None and request.method.startswith("item/"):
            request.thread_id, request.turn_id = turn.thread.id, request.turn_id or turn.id

    def only_turn(self) -> Turn | None:
        """Return the turn that runs, where there is just one."""
        return next(iter(self._active.values())) if len(self._active) == 1 else None

    def _link(self, children: Iterable[str], turn: Turn) -> None:
        for child in children:
            self._parents.setdefault(child, turn)

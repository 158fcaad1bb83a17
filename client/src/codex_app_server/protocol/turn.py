"""One turn as an automaton: events in, at most one outcome out.

Invariants: the outcome is read from ``turn.status`` of the ``turn/completed`` whose thread and
turn are this turn's, never from the arrival of an event (a failed turn completes too, and a
sub-agent's turn completes first on the same connection). Servers that are not Codex may leave out
ids and status, and may say ``turn/failed`` or ``turn/cancelled``; that ends a turn too. Events
that arrive before the reply to ``turn/start`` named the turn are kept and sorted when it does.
Items left open by a stream that is retried are dropped: they never complete.

Fed by `codex_app_server.turns` with what `protocol.rpc` decoded. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from msgspec import Struct, field

from codex_app_server.checks import Check, check_values
from codex_app_server.errors import decode_error_info
from codex_app_server.events import DELTA_METHODS, Event

__all__ = ["Failure", "TokenUsage", "TurnMachine", "TurnOutcome"]

TurnStatus = Literal["completed", "interrupted", "failed"]
EARLY_LIMIT = 65536
FINAL_PHASE = "final_answer"
NO_FRESH_TOKENS = "auth refresh request failed"
_STATUS = re.compile(r"unexpected status (\d{3})\b")


class TokenUsage(Struct, frozen=True):
    """Counts of tokens."""

    total_tokens: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_output_tokens: int = 0

    @classmethod
    def decode(cls, counts: object) -> TokenUsage:
        """Read a breakdown as received; what is absent or no number counts as 0."""

        def count(name: str) -> int:
            value = counts.get(name) if isinstance(counts, Mapping) else None
            return value if isinstance(value, int) else 0

        return cls(
            count("totalTokens"),
            count("inputTokens"),
            count("cachedInputTokens"),
            count("cacheWriteInputTokens"),
            count("outputTokens"),
            count("reasoningOutputTokens"),
        )

    def since(self, earlier: TokenUsage) -> TokenUsage:
        """Return what was added since ``earlier``, never below zero.

        Raises:
            InvalidArgument: ``earlier`` is no `TokenUsage`.
        """
        check_values(earlier=(earlier, A_USAGE))
        return TokenUsage(
            max(0, self.total_tokens - earlier.total_tokens),
            max(0, self.input_tokens - earlier.input_tokens),
            max(0, self.cached_input_tokens - earlier.cached_input_tokens),
            max(0, self.cache_write_input_tokens - earlier.cache_write_input_tokens),
            max(0, self.output_tokens - earlier.output_tokens),
            max(0, self.reasoning_output_tokens - earlier.reasoning_output_tokens),
        )


A_USAGE: Check = ("a TokenUsage", lambda value: isinstance(value, TokenUsage))


class Failure(Struct, frozen=True):
    """``turn.error`` of a failed turn, decoded."""

    code: str
    message: str
    http_status: int | None = None
    details: str | None = None

    @classmethod
    def decode(cls, error: object) -> Failure:
        """Read a ``TurnError`` as received."""
        if not isinstance(error, Mapping):
            return cls("other", "the server gave no reason")
        code, http_status = decode_error_info(error.get("codexErrorInfo"))
        if code == "other" and http_status is None:
            # Up to 0.125 the status of the provider is in the words only.
            found = _STATUS.match(str(error.get("message") or ""))
            http_status = int(found[1]) if found else None
        if code == "other" and NO_FRESH_TOKENS in str(error.get("message")):
            # The server has no code for it; without a login no later turn would fare better.
            code = "unauthorized"
        details = error.get("additionalDetails")
        return cls(
            code,
            str(error.get("message") or code),
            http_status,
            details if isinstance(details, str) else None,
        )


class TurnOutcome(Struct, frozen=True):
    """How a turn ended.

    Attributes:
        status: From ``turn.status``; one that this library does not know counts as failed.
        failure: Where the status is "failed".
        duration_s: As the server measured it, or None.
    """

    status: TurnStatus
    failure: Failure | None = None
    duration_s: float | None = None


class TurnMachine(Struct, eq=False):
    """The state of one turn.

    Args:
        thread_id: Of the turn.
        baseline: Token total of the thread when the turn starts; None where it is not known (a
            resumed thread): the first report then tells it as ``total - last``, or as ``total``
            where nothing of the model has come yet (0.125 repeats the total of the thread so).
        keep_items: Whether completed items are kept for `items`.

    Attributes:
        turn_id: None until `bind`.
        outcome: None while the turn runs.
        waiting: Flags of the thread's status, such as ``waitingOnApproval``.
        total: Last token total of the thread, or None.
        last_error: The last ``error`` notification's failure, retried or not.
        children: Threads of sub-agents that this turn started.
        diff: Last ``turn/diff/updated``.
    """

    thread_id: str
    baseline: TokenUsage | None = None
    keep_items: bool = True
    turn_id: str | None = None
    outcome: TurnOutcome | None = None
    waiting: frozenset[str] = frozenset()
    total: TokenUsage | None = None
    last_error: Failure | None = None
    children: set[str] = field(default_factory=set)
    diff: str | None = None
    _early: list[Event] = field(default_factory=list)
    _open: dict[str, Event] = field(default_factory=dict)
    _completed: dict[str, Event] = field(default_factory=dict)
    _messages: list[tuple[str | None, str]] = field(default_factory=list)
    _summary: str | None = None
    _answered: bool = False
    _gave_up: bool = False

    @property
    def usage(self) -> TokenUsage:
        """Tokens that this turn added to its thread so far."""
        if self.total is None:
            return TokenUsage()
        return self.total.since(self.baseline or TokenUsage())

    @property
    def final_message(self) -> str | None:
        """The last agent message, a final answer before commentary; None where there is none."""
        for phase, text in reversed(self._messages):
            if phase == FINAL_PHASE:
                return text
        return self._messages[-1][1] if self._messages else self._summary

    @property
    def open_items(self) -> list[str]:
        """Ids of items that have started and not completed."""
        return list(self._open)

    @property
    def items(self) -> list[Event]:
        """The ``item/completed`` events of this turn in the order of completion."""
        return list(self._completed.values())

    def hold(self, events: list[Event]) -> None:
        """Keep events of the thread that arrive before the turn has its id."""
        room = EARLY_LIMIT - len(self._early)
        self._early += (
            events
            if len(events) <= room
            else [event for event in events if event.method not in DELTA_METHODS]
        )

    def bind(self, turn_id: str) -> tuple[list[Event], list[Event]]:
        """Learn the id; return the early events that are the turn's (or thread-wide), and the rest.

        The first list is not applied yet: pass it to `feed` like any other batch.
        """
        self.turn_id = turn_id
        early, self._early = self._early, []
        ours = [event for event in early if event.turn_id in (turn_id, None)]
        return ours, [event for event in early if event.turn_id not in (turn_id, None)]

    def early_turn_id(self) -> str | None:
        """Return the turn that started on the thread while the reply is still missing, if any."""
        started = [event.turn_id for event in self._early if event.method == "turn/started"]
        return started[-1] if started else None

    def feed(self, events: list[Event]) -> None:
        """Apply a batch of the turn's and its thread's events."""
        for event in events:
            handler = _HANDLERS.get(event.method)
            if handler is not None:
                handler(self, event)

    def _on_status(self, event: Event) -> None:
        status = event.data.get("status")
        flags = status.get("activeFlags") if isinstance(status, dict) else None
        self.waiting = frozenset(
            flag for flag in (flags if isinstance(flags, list) else ()) if isinstance(flag, str)
        )

    def _on_usage(self, event: Event) -> None:
        usage = event.data.get("tokenUsage")
        if not isinstance(usage, dict):
            return
        self.total = TokenUsage.decode(usage.get("total"))
        if self.baseline is None:
            last = TokenUsage.decode(usage.get("last"))
            repeated = not self._answered and self.total != last
            self.baseline = self.total if repeated else self.total.since(last)

    def _on_error(self, event: Event) -> None:
        data = event.data
        self.last_error = Failure.decode(data.get("error"))
        self._gave_up = not data.get("willRetry")
        if not self._gave_up:
            self._open.clear()

    def _on_diff(self, event: Event) -> None:
        diff = event.data.get("diff")
        if isinstance(diff, str):
            self.diff = diff

    def _on_item_started(self, event: Event) -> None:
        item = _item(event)
        item_id = item.get("id")
        if isinstance(item_id, str):
            self._open[item_id] = event
        self._note_model(item)
        self._note_children(item)

    def _note_model(self, item: dict[str, Any]) -> None:
        self._answered = self._answered or item.get("type") != "userMessage"

    def _note_children(self, item: dict[str, Any]) -> None:
        child = item.get("agentThreadId")
        if isinstance(child, str):
            self.children.add(child)
        # Up to 0.125 (and in the older feature) the tool call itself names the new thread.
        if item.get("type") == "collabAgentToolCall" and item.get("tool") == "spawnAgent":
            receivers = item.get("receiverThreadIds")
            self.children.update(
                one
                for one in (receivers if isinstance(receivers, list) else ())
                if one and isinstance(one, str)
            )

    def _on_item_completed(self, event: Event) -> None:
        item = _item(event)
        item_id = item.get("id")
        if not isinstance(item_id, str):
            return
        self._open.pop(item_id, None)
        self._note_model(item)
        self._note_children(item)
        if item.get("type") == "agentMessage" and isinstance(item.get("text"), str):
            phase = item.get("phase")
            self._messages.append((phase if isinstance(phase, str) else None, item["text"]))
        if self.keep_items:
            self._completed[item_id] = event

    def _on_completed(self, event: Event) -> None:
        # Both ids must match: a sub-agent's turn ends on the same connection.
        if self.outcome is not None or event.thread_id not in (None, self.thread_id):
            return
        if self.turn_id is None or event.turn_id not in (None, self.turn_id):
            return
        turn = event.data.get("turn")
        turn = turn if isinstance(turn, dict) else {}
        self._summary = _last_message(turn.get("items"))
        duration = turn.get("durationMs")
        duration_s = duration / 1000 if isinstance(duration, int | float) else None
        self._open.clear()
        self.waiting = frozenset()
        status = turn.get("status")
        if status is None:
            status = self._status_of(event, turn)
        match status:
            case "completed":
                self.outcome = TurnOutcome("completed", None, duration_s)
            case "interrupted":
                self.outcome = TurnOutcome("interrupted", None, duration_s)
            case "failed":
                error = turn.get("error") or event.data.get("error")
                failure = Failure.decode(error) if error else None
                failure = failure or self.last_error or Failure.decode(None)
                self.outcome = TurnOutcome("failed", failure, duration_s)
            case status:
                failure = Failure("other", f"unknown turn status {status!r}")
                self.outcome = TurnOutcome("failed", failure, duration_s)

    def _status_of(self, event: Event, turn: Mapping[str, Any]) -> TurnStatus:
        """Read a status that was not given out of everything else that was said."""
        if event.method != "turn/completed":
            return "failed" if event.method == "turn/failed" else "interrupted"
        return "failed" if turn.get("error") or self._gave_up else "completed"


def _item(event: Event) -> dict[str, Any]:
    item = event.data.get("item")
    return item if isinstance(item, dict) else {}


def _last_message(items: object) -> str | None:
    for item in reversed(items if isinstance(items, list) else []):
        if isinstance(item, dict) and item.get("type") == "agentMessage":
            text = item.get("text")
            return text if isinstance(text, str) else None
    return None


_HANDLERS: dict[str, Callable[[TurnMachine, Event], None]] = {
    "thread/status/changed": TurnMachine._on_status,
    "thread/tokenUsage/updated": TurnMachine._on_usage,
    "error": TurnMachine._on_error,
    "turn/diff/updated": TurnMachine._on_diff,
    "item/started": TurnMachine._on_item_started,
    "item/completed": TurnMachine._on_item_completed,
    "turn/completed": TurnMachine._on_completed,
    "turn/failed": TurnMachine._on_completed,
    "turn/cancelled": TurnMachine._on_completed,
}

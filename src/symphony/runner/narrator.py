"""Keeps a run's live record: tokens, last event, last activity. The O(1) path beside the scheduler.

The connection hands over whatever one read brought, as a batch. The narrator looks at the few
methods that carry numbers and keeps the newest event undecoded; text for people is made when a
snapshot is built, not when an event arrives.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import codex_app_server as codex

from symphony.model.clock import Instant
from symphony.model.run import RunProgress
from symphony.model.spend import Price
from symphony.model.usage import TokenUsage

EventSink = Callable[[str, Any], None]
"""Takes (event name, JSON-able detail) for the run's bounded history."""

PriceOf = Callable[[str | None], Price | None]
"""Returns the price of a model that is in force, or None for an unknown one."""

_TOKEN_USAGE = "thread/tokenUsage/updated"
_THREAD_STARTED = "thread/started"
_REROUTED = "model/rerouted"
_RATE_LIMITS = "account/rateLimits/updated"
# They accompany every answer of the model and would hide what the agent does.
_QUIET = frozenset(
    {
        _TOKEN_USAGE,
        _RATE_LIMITS,
        "thread/status/changed",
        "remoteControl/status/changed",
        "serverRequest/resolved",
        "turn/diff/updated",
        "mcpServer/startupStatus/updated",
    }
)
# What Codex says of a turn before the agent has done anything.
_PREAMBLE = _QUIET | {
    "thread/started",
    "thread/name/updated",
    "thread/settings/updated",
    "turn/started",
}
_STARTED_KEPT = 16
"""Items that an approval may be about are remembered, undecoded; larger ones are not."""
_STARTED_BYTES = 256 * 1024
_KEPT = frozenset({"item/completed", "turn/completed", "error", "warning", "turn/plan/updated"})


class Narrator:
    """Turns what a connection reports into one run's record and history.

    Attributes:
        sign: Set once the agent itself has given a sign of life in the present turn.
    """

    def __init__(
        self,
        progress: RunProgress,
        *,
        clock: Callable[[], Instant],
        history: EventSink,
        rate_limits: Callable[[Mapping[str, Any]], None],
        price_of: PriceOf = lambda model: None,
        spent: Callable[[], None] = lambda: None,
    ) -> None:
        self._progress = progress
        self._clock = clock
        self._history = history
        self._rate_limits = rate_limits
        self._price_of = price_of
        self._spent = spent
        self._in_flight = 0
        self._started: deque[codex.Event] = deque(maxlen=_STARTED_KEPT)
        self._unmeasured: set[str] = set()
        self._spoke = self._resuming = False
        self.sign = asyncio.Event()

    def batch(self, events: Sequence[codex.Event]) -> None:
        """Take the events of one read, oldest first."""
        now = self._touch()
        progress = self._progress
        for event in events:
            method = event.method
            if not (self._spoke and self.sign.is_set()) and _is_sign(event):
                self._spoke = True
                self.sign.set()
            if method == _TOKEN_USAGE:
                self._tokens(event)
            elif method in (_THREAD_STARTED, _REROUTED):
                self._model(event)
            elif method == _RATE_LIMITS:
                limits = event.data.get("rateLimits")
                if isinstance(limits, Mapping):
                    self._rate_limits(limits)
            elif method in _KEPT:
                self._history(method, event)
            elif method == "item/started" and len(event.raw) <= _STARTED_BYTES:
                self._started.append(event)
        newest = next((event for event in reversed(events) if event.method not in _QUIET), None)
        if newest is not None:
            progress.last_event = "notification"
            progress.last_message = newest
            progress.last_event_wall = now.wall

    def item(self, item_id: str | None) -> Mapping[str, Any] | None:
        """Return an item as it was started, where it is one of the last ones; else None."""
        for event in reversed(self._started):
            item = event.data.get("item")
            if isinstance(item, Mapping) and item.get("id") == item_id:
                return item
        return None

    def happened(self, event: str, detail: Mapping[str, Any] | None = None) -> None:
        """Record one of our own events (SPEC 10.4), such as ``session_started``."""
        now = self._touch()
        progress = self._progress
        progress.last_event = event
        progress.last_message = {"event": event, **(detail or {})}
        progress.last_event_wall = now.wall
        self._history(event, progress.last_message)

    def resuming(self) -> None:
        """Take note that an earlier thread is asked for: its total may be told at once."""
        self._resuming = True

    def began_anew(self) -> None:
        """Take note that the earlier thread was not to be had."""
        self._resuming = False

    def resumed(self, thread_id: str) -> None:
        """Take note that this thread was used before: its first total is not this run's."""
        self._unmeasured.add(thread_id)

    def call_began(self, limit_s: float) -> None:
        """Count the run as alive while a call or a hook is in flight, at most for its limit."""
        until = self._touch().mono + limit_s
        self.sign.set()
        self._in_flight += 1
        self._progress.busy_until_mono = max(self._progress.busy_until_mono or until, until)

    def call_ended(self) -> None:
        """Take a call's end; with the last one, silence counts again."""
        self._touch()
        self._in_flight -= 1
        if self._in_flight == 0:
            self._progress.busy_until_mono = None

    def _touch(self) -> Instant:
        now = self._clock()
        self._progress.last_activity_mono = now.mono
        return now

    def _tokens(self, event: codex.Event) -> None:
        # Params of another shape than the schema's have no such field.
        usage: Any = getattr(event.params, "token_usage", None)
        total = usage.total if usage is not None else None
        if event.thread_id is None or total is None:
            return
        window = usage.model_context_window
        counted = _counts(total, window)
        progress = self._progress
        if self._resuming and not self._spoke:
            # Codex repeats the total of a resumed thread before the agent has done anything: 0.125
            # under the new turn's id, later ones at once, even before resumed() is called.
            self._unmeasured.discard(event.thread_id)
            progress.meter.set_baseline(event.thread_id, counted)
            return
        if event.thread_id in self._unmeasured:
            # Where it has not, earlier runs have counted all but the answer of this report.
            self._unmeasured.discard(event.thread_id)
            newest = _counts(usage.last, window) if usage.last is not None else TokenUsage()
            progress.meter.set_baseline(event.thread_id, counted.since(newest))
        added = progress.meter.report(event.thread_id, counted)
        model = progress.models.get(event.thread_id, progress.model)
        progress.cost.add(added, self._price_of(model))
        self._spent()

    def _model(self, event: codex.Event) -> None:
        """Take note of which model a thread uses: a sub-agent may have one of another price."""
        params: Any = event.params
        if event.method == _REROUTED:
            thread_id, model = event.thread_id, getattr(params, "to_model", None)
        else:
            thread = getattr(params, "thread", None)
            thread_id, model = getattr(thread, "id", None), getattr(thread, "model", None)
        if thread_id and model:
            self._progress.models[thread_id] = model


def _is_sign(event: codex.Event) -> bool:
    """Tell whether an event comes of the agent's own doing: not its prompt, no bookkeeping."""
    if event.method in _PREAMBLE:
        return False
    item = event.data.get("item") if event.method.startswith("item/") else None
    return not (isinstance(item, Mapping) and item.get("type") == "userMessage")


def _counts(breakdown: Any, window: int | None) -> TokenUsage:
    sent, received = breakdown.input_tokens or 0, breakdown.output_tokens or 0
    total = breakdown.total_tokens or 0
    if window and total >= window:
        # Codex sets the total to the whole context window once that is full; nobody spent it.
        total = min(total, sent + received)
    return TokenUsage(
        sent,
        received,
        total,
        breakdown.cached_input_tokens or 0,
        breakdown.reasoning_output_tokens or 0,
    )

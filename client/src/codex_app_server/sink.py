"""The bounded queue between the reader and one turn's iterator.

Invariants: lifecycle events are never dropped; a fast consumer gets every event as it came. Over
the limit the policy decides: ``coalesce`` merges the deltas of an item into its last one that
waits, ``drop_deltas`` drops them, ``block`` lets the queue ask the reader to stop (which is
back-pressure down to the server's model stream).
"""

from __future__ import annotations

from collections import deque
from typing import Any, Literal, get_args

from codex_app_server.events import Event, with_delta

__all__ = ["OVERFLOWS", "Overflow", "Sink"]

Overflow = Literal["coalesce", "drop_deltas", "block"]
OVERFLOWS: tuple[str, ...] = get_args(Overflow)
DEFAULT_LIMIT = 2048
MERGED_TEXT_BYTES = 4 * 1024 * 1024
MERGED_EVENT_BYTES = 64 * 1024
"""After which a further event is begun: reading one copies its text a few times."""


class Sink:
    """Events of one turn that wait to be read.

    Attributes:
        events: What waits, oldest first.
        merging: The waiting deltas that others are merged into; while there are any, take events
            with `pop` only.
        dropped: Deltas that were dropped.
    """

    __slots__ = ("_limit", "_overflow", "_texts", "_texts_bytes", "dropped", "events", "merging")

    def __init__(self, overflow: Overflow = "coalesce", limit: int = DEFAULT_LIMIT) -> None:
        self.events: deque[Event] = deque()
        self.dropped = 0
        self._overflow = overflow
        self._limit = limit
        self.merging: dict[tuple[Any, ...], Event] = {}
        # Bytes that grow: a list of the parts, or io.StringIO, takes five times as much.
        self._texts: dict[int, _Text] = {}
        self._texts_bytes = 0

    @property
    def wants_pause(self) -> bool:
        """Whether the reader should stop until the consumer has caught up."""
        return self._overflow == "block" and len(self.events) > self._limit

    def push(self, events: list[Event], *, may_block: bool) -> None:
        """Queue a batch. ``may_block``: somebody consumes, so ``block`` may let it grow."""
        room = self._limit - len(self.events)
        if len(events) <= room or (may_block and self._overflow == "block"):
            self.events.extend(events)
            return
        for event in events:
            if len(self.events) < self._limit or not event.is_delta:
                self.events.append(event)
            elif self._overflow == "drop_deltas":
                self.dropped += 1
            else:
                self._merge(event)

    def _merge(self, event: Event) -> None:
        body = event.params
        delta = getattr(body, "delta", None)
        if not isinstance(delta, str):
            self.events.append(event)
            return
        text = delta.encode("utf-8", "surrogatepass")
        if self._texts_bytes + len(text) > MERGED_TEXT_BYTES:
            self.dropped += 1
            return
        self._texts_bytes += len(text)
        key = (
            event.method,
            body.item_id,
            getattr(body, "summary_index", None),
            getattr(body, "content_index", None),
        )
        last = self.merging.get(key)
        if last is None or len(self._texts[id(last)].utf8) > MERGED_EVENT_BYTES:
            self.merging[key] = event
            self._texts[id(event)] = _Text(text)
            self.events.append(event)
        else:
            self._texts[id(last)].add(text)

    def pop(self) -> Event:
        """Return the next event; merged deltas come as one whose raw line has the whole text."""
        event = self.events.popleft()
        text = self._texts.pop(id(event), None) if self._texts else None
        if text is None:
            return event
        self._texts_bytes -= len(text.utf8)
        self.merging = {key: last for key, last in self.merging.items() if last is not event}
        return event if text.parts == 1 else with_delta(event, text.whole(), text.parts)

    def take_over(self) -> deque[Event]:
        """Return `events` for a new reader; whoever read it so far sees it empty."""
        waiting, self.events = self.events, deque(self.events)
        waiting.clear()
        return self.events

    def clear(self) -> None:
        """Drop what waits: nobody will read it."""
        self.events.clear()
        self.merging.clear()
        self._texts.clear()
        self._texts_bytes = 0


class _Text:
    """The text of merged deltas."""

    __slots__ = ("parts", "utf8")

    def __init__(self, first: bytes) -> None:
        self.parts = 1
        self.utf8 = bytearray(first)

    def add(self, text: bytes) -> None:
        """Append a delta's."""
        self.parts += 1
        self.utf8 += text

    def whole(self) -> str:
        """Return all of it."""
        return self.utf8.decode("utf-8", "surrogatepass")

"""What limits a turn and what it gives: its time limits, its options' checks, its result.

Invariant: only a completed turn has a result; every other outcome is raised. Pure: the clock's
readings come in as arguments.

Used by `codex_app_server.turns` and `codex_app_server.exec_run`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from codex_app_server.checks import (
    COUNT,
    FLAG,
    LIMIT,
    SECONDS,
    Checks,
    check_values,
    is_seconds,
    one_of,
    shown,
)
from codex_app_server.errors import InvalidArgument, TurnFailed, TurnInterrupted, limit_reset
from codex_app_server.events import Event
from codex_app_server.protocol.turn import TokenUsage, TurnMachine
from codex_app_server.sink import OVERFLOWS

__all__ = ["TURN_CHECKS", "LimitKind", "TurnResult", "TurnTimeouts", "result_of"]

LimitKind = Literal["total", "idle", "first_event"]

INTERRUPT_S = 10.0
"""Codex answers an interrupt within milliseconds; the rest is for machines that are overloaded."""


class TurnTimeouts(Struct, frozen=True, kw_only=True):
    """Limits of a turn in seconds; None or 0 means none. Others are refused (`InvalidArgument`).

    Not so ``interrupt_s``, which is always above 0: a server that ignores interrupts must hold
    nobody for ever.

    Attributes:
        total_s: From the reply to ``turn/start`` to the end.
        idle_s: Silence of the turn, its thread and its sub-agents. Waiting for an approval or an
            answer of a person does not count.
        first_event_s: From the reply to ``turn/start`` to the first event.
        interrupt_s: How long an interrupt of the turn is waited for: by `Turn.interrupt`, after a
            cancelled wait, where ``async with`` is left, and before a limit's `TurnTimeout`. Then
            the caller goes on, though the turn may run on in a server that is deaf; end the
            connection for that. Each event of the thread is written down as it happens, so the
            thread can be resumed all the same. An `ExecRun` has no use for it; it ends its process.
    """

    total_s: float | None = None
    idle_s: float | None = 3600.0
    first_event_s: float | None = None
    interrupt_s: float = INTERRUPT_S

    def __post_init__(self) -> None:
        check_values(interrupt_s=(self.interrupt_s, SECONDS))
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not (value is None or value == 0 or is_seconds(value)):
                raise InvalidArgument(
                    f"{name}={shown(value)}: give seconds; None or 0 means no limit"
                )

    def due(
        self, started_at: float, last_activity: float, *, heard: bool
    ) -> list[tuple[float, LimitKind, float]]:
        """Return when which limit runs out, as far as is known; times are of one clock.

        Args:
            started_at: When the reply to ``turn/start`` came.
            last_activity: When the turn last was not silent.
            heard: Whether the first event has come.
        """
        limits: list[tuple[float, LimitKind, float]] = []
        if self.total_s:
            limits.append((started_at + self.total_s, "total", self.total_s))
        if self.first_event_s and not heard:
            limits.append((started_at + self.first_event_s, "first_event", self.first_event_s))
        if self.idle_s:
            limits.append((last_activity + self.idle_s, "idle", self.idle_s))
        return limits


TURN_CHECKS: Checks = {
    "timeouts": ("TurnTimeouts or None", lambda value: isinstance(value, TurnTimeouts)),
    "start_timeout_s": LIMIT,
    "overflow": one_of(*OVERFLOWS),
    "queue_limit": COUNT,
    "keep_items": FLAG,
}


class TurnResult(Struct, frozen=True, kw_only=True):
    """A completed turn.

    Attributes:
        thread_id: Of the turn.
        turn_id: Of the turn.
        status: Always ``completed``; other ends are raised.
        final_message: The agent's last message, a final answer before commentary, or None.
        item_events: ``item/completed`` events in order; empty with ``keep_items=False``. The server
            leaves some commands out, so do not count them.
        usage: Tokens that the turn added to its thread.
        diff: Unified diff of the turn's file changes, or None.
        duration_s: As the server measured it, or None.
    """

    thread_id: str
    turn_id: str
    status: Literal["completed"]
    final_message: str | None
    item_events: tuple[Event, ...]
    usage: TokenUsage
    diff: str | None
    duration_s: float | None

    @property
    def items(self) -> list[Any]:
        """The completed items as typed structs, decoded at each access."""
        return [_item(event) for event in self.item_events]


def result_of(
    machine: TurnMachine, thread_id: str, rate_limits: Mapping[str, Any] | None
) -> TurnResult:
    """Return the result of a turn that has its outcome.

    Args:
        machine: The turn's.
        thread_id: Of the turn.
        rate_limits: The last known ones, for `TurnFailed.resets_at`.

    Raises:
        TurnInterrupted: It was interrupted.
        TurnFailed: It failed.
    """
    outcome = machine.outcome
    assert outcome is not None
    assert machine.turn_id is not None
    if outcome.status == "interrupted":
        raise TurnInterrupted(thread_id=thread_id, turn_id=machine.turn_id)
    if outcome.failure is not None:
        failure = outcome.failure
        limited = failure.code == "usageLimitExceeded"
        raise TurnFailed(
            failure.message,
            thread_id=thread_id,
            turn_id=machine.turn_id,
            code=failure.code,
            http_status=failure.http_status,
            resets_at=limit_reset(rate_limits) if limited else None,
            details=failure.details,
        )
    return TurnResult(
        thread_id=thread_id,
        turn_id=machine.turn_id,
        status="completed",
        final_message=machine.final_message,
        item_events=tuple(machine.items),
        usage=machine.usage,
        diff=machine.diff,
        duration_s=outcome.duration_s,
    )


def _item(event: Event) -> Any:
    params = event.params
    item = getattr(params, "item", None)
    return item if item is not None else event.data.get("item")

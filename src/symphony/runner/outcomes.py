"""Failures become outcomes here, and nowhere else: retry policy reads the outcome, not a text.

The categories are those of SPEC 10.6 and of our own error tree. What Codex reports about a failed
turn decides whether another attempt can help and when; ``turn_faults`` has the table.
"""

from __future__ import annotations

import codex_app_server as codex

from symphony.errors import HookError, HostError, PromptError, SymphonyError, TrackerError
from symphony.model.run import Outcome, OutcomeKind, StopReason
from symphony.runner.turn_faults import fault_of

_MESSAGE_CAP = 600


def outcome_of(error: BaseException) -> Outcome:
    """Return the outcome that an attempt's exception stands for."""
    match error:
        case codex.TurnFailed():
            return _turn_failed(error)
        case codex.TurnInterrupted():
            return Outcome(
                kind=OutcomeKind.INTERRUPTED, category="turn_cancelled", message=_line(error)
            )
        case codex.TurnTimeout():
            return Outcome(
                kind=OutcomeKind.TIMED_OUT, category="turn_timeout", message=_line(error)
            )
        case codex.RequestTimeout():
            return _failed("response_timeout", error)
        case codex.RequestError():
            return _failed("response_error", error)
        case codex.ConnectionClosed():
            return _failed("port_exit", error)
        case codex.CodexError():
            return _failed("codex_error", error)
        case HostError(category="host_lost"):
            return Outcome(kind=OutcomeKind.HOST_LOST, category="host_lost", message=_line(error))
        case TrackerError():
            return _failed("issue_state_refresh_failed", error)
        case HookError() | PromptError() | SymphonyError():
            return _failed(error.category, error)
        case _:
            return Outcome(
                kind=OutcomeKind.FAILED,
                category="internal_error",
                message=f"{type(error).__name__}: {_line(error)}",
            )


def stopped(reason: StopReason, message: str) -> Outcome:
    """Return the outcome of a run that the scheduler ended."""
    if reason is StopReason.STALLED:
        return Outcome(
            kind=OutcomeKind.STALLED, category="stalled", message=message, stop_reason=reason
        )
    return Outcome(
        kind=OutcomeKind.CANCELLED,
        category=f"stopped_{reason.value}",
        message=message,
        stop_reason=reason,
    )


def exited(error: codex.ConnectionClosed, stderr_tail: str) -> Outcome:
    """Return the outcome of an app-server that went away by itself."""
    lines = [line.strip() for line in stderr_tail.splitlines() if line.strip()]
    # A Rust program ends with its error first and a backtrace after it.
    telling = next((line for line in lines if line.startswith("Error")), lines[-1] if lines else "")
    said = f": {telling[:300]}" if telling else ""
    return Outcome(kind=OutcomeKind.FAILED, category="port_exit", message=f"{_line(error)}{said}")


def _turn_failed(error: codex.TurnFailed) -> Outcome:
    fault = fault_of(error)
    return Outcome(
        kind=OutcomeKind.FAILED,
        category="turn_failed",
        code=fault.code,
        message=_line(f"turn failed ({fault.code}): {fault.said}", more=fault.mend),
        retryable=fault.retryable,
        retry_at=error.resets_at,
    )


def _failed(category: str, error: BaseException) -> Outcome:
    return Outcome(kind=OutcomeKind.FAILED, category=category, message=_line(error))


def _line(error: object, more: str = "") -> str:
    text = " ".join(str(error).split())
    room = _MESSAGE_CAP - (len(more) + 2 if more else 0)
    text = text if len(text) <= room else text[: room - 1] + "…"
    return f"{text.rstrip('.')}; {more}" if more else text

"""What follows the end of a run: a function of its outcome, never of a text (SPEC 7.3, 8.4).

``decide`` returns a verdict, ``settle`` turns it into the issue's next claim and the commands that
make it durable. Two counters are kept apart: ``failures`` counts failed runs in a row and alone
drives backoff; a completed run sets it to zero. ``attempt`` is what the prompt is told: 1 for a
continuation, the number of failures after a failure, unchanged after a usage limit, a wait for a
slot, a failed read or a restart of the daemon.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from random import Random

from symphony.model.clock import Instant, iso
from symphony.model.run import Outcome, OutcomeKind, RetryKind, StopReason
from symphony.model.spend import Crossing

from .budget import lift, run_ended
from .claims import Blocked, Cleaning, RetryQueued, Running
from .commands import CleanWorkspace, Command, DropClaim, Level, Note, SavePark
from .eligibility import Rules
from .events import RunEnded
from .notes import note
from .placement import LOCAL_HOST
from .state import SUSPECT_S, Asked, Park, SchedulerState
from .unblocking import retry_after_s, watches

CONTINUATION_DELAY_S = 1.0
"""Delay after a completed run (SPEC 8.4)."""

FAILURE_DELAY_S = 10.0
"""Delay after the first failure; it doubles with each further one (SPEC 8.4)."""

JITTER = 0.1
"""Largest part by which a failure's delay is shortened; it is never lengthened."""

_USAGE_LIMIT = "usagelimitexceeded"
_CONTEXT_WINDOW = "contextwindowexceeded"

_DEFAULT_BLOCK_TEXT = {
    OutcomeKind.INPUT_REQUIRED: "codex turn requires operator input",
    OutcomeKind.APPROVAL_REQUIRED: "codex turn requires approval",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Run again after ``delay_s``; the thread is resumed only where ``resume`` says so."""

    kind: RetryKind
    attempt: int | None
    failures: int
    delay_s: float
    error: str | None
    resume: bool


@dataclass(frozen=True, slots=True)
class ParkAll:
    """A usage limit: nothing starts for ``delay_s``; then this issue runs again like before."""

    delay_s: float
    retry: Retry


@dataclass(frozen=True, slots=True)
class Block:
    """Wait for a person; for a higher limit where one was ``crossed``."""

    category: str
    error: str
    crossed: Crossing | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """The issue is no longer ours to work on."""

    reason: StopReason


@dataclass(frozen=True, slots=True)
class Clean:
    """The issue is finished: its workspace goes, then the claim."""


@dataclass(frozen=True, slots=True)
class Keep:
    """The daemon stops: the ledger's claim stays and the next lifetime takes it up."""


Verdict = Retry | ParkAll | Block | Release | Clean | Keep


def backoff_s(failures: int, rules: Rules, rng: Random) -> float:
    """Return the delay after this many failures in a row: 10 s doubling to the cap, less jitter."""
    # The bound keeps a long outage from building a number of a thousand digits.
    doubled = FAILURE_DELAY_S * float(1 << min(failures - 1, 30))
    return min(doubled, rules.max_backoff_s) * (1 - JITTER * rng.random())


def decide(
    run: Running, outcome: Outcome, *, rules: Rules, rng: Random, now: Instant, shutting_down: bool
) -> Verdict:
    """Return what follows this outcome. Why we stopped the run counts before how it ended."""
    reason = run.stopping
    if reason is None and outcome.kind is OutcomeKind.CANCELLED:
        reason = outcome.stop_reason
    match reason:
        case StopReason.TERMINAL:
            # No clean-up is begun while stopping: the next start finds the issue terminal.
            return Keep() if shutting_down else Clean()
        case StopReason.INACTIVE | StopReason.UNROUTABLE | StopReason.MISSING:
            return Release(reason)
        case StopReason.OPERATOR if run.resumed and not _needs_person(outcome):
            return _resumed(run)
        case StopReason.OPERATOR if run.resumed:
            # It had asked before the stop reached it: without an answer it would only ask again.
            return _after_failure(run, outcome, rules=rules, rng=rng, now=now)
        case StopReason.OPERATOR:
            # Also where it has ended by itself just then: only a person starts it again.
            return Block("stopped_by_operator", outcome.message or "stopped by an operator")
        case _ if outcome.kind is OutcomeKind.COMPLETED:
            return _continuation()
        case StopReason.BUDGET_DAY | StopReason.BUDGET_TOTAL if not _needs_person(outcome):
            return _budget_spent(run)
        case StopReason.SHUTDOWN if shutting_down and outcome.kind not in _DEFAULT_BLOCK_TEXT:
            return Keep()
        case _:
            return _after_failure(run, outcome, rules=rules, rng=rng, now=now)


def _needs_person(outcome: Outcome) -> bool:
    return outcome.kind in _DEFAULT_BLOCK_TEXT


def _budget_spent(run: Running) -> Retry | Block:
    """What follows where all work was ended: the day's end opens the gate, a person the other."""
    error = run.stop_error or "a budget is spent"
    if run.stopping is StopReason.BUDGET_TOTAL and run.crossed is not None:
        return Block(run.crossed.category, error, run.crossed)
    return Retry(
        kind=RetryKind.RECOVERY,
        attempt=run.spec.attempt,
        failures=run.failures,
        delay_s=CONTINUATION_DELAY_S,
        error=error,
        resume=True,
    )


def _continuation() -> Retry:
    return Retry(
        kind=RetryKind.CONTINUATION,
        attempt=1,
        failures=0,
        delay_s=CONTINUATION_DELAY_S,
        error=None,
        resume=True,
    )


def _resumed(run: Running) -> Retry:
    """What an operator has stopped and resumed before it had ended: it runs again at once."""
    return Retry(
        kind=RetryKind.RECOVERY,
        attempt=run.spec.attempt,
        failures=0,
        delay_s=0.0,
        error=None,
        resume=True,
    )


def _after_failure(
    run: Running, outcome: Outcome, *, rules: Rules, rng: Random, now: Instant
) -> Verdict:
    error = run.stop_error or outcome.message or outcome.category or outcome.kind.value
    if _is(outcome, _USAGE_LIMIT):
        return _usage_limit(run, outcome, error, rules=rules, now=now)
    if outcome.kind in _DEFAULT_BLOCK_TEXT:
        text = outcome.message or _DEFAULT_BLOCK_TEXT[outcome.kind]
        return Block(outcome.category or outcome.kind.value, text)
    if not outcome.retryable:
        category = _word(outcome.code) or outcome.category or outcome.kind.value
        return Block(category, error, outcome.crossed)
    failures = run.failures + 1
    delay_s = backoff_s(failures, rules, rng)
    if outcome.retry_at is not None:
        delay_s = max(delay_s, outcome.retry_at - now.wall)
    # A thread is resumed after a first failure only: a second one in a row may lie in its history.
    poisoned = failures > 1 or _is(outcome, _CONTEXT_WINDOW)
    return Retry(
        kind=RetryKind.FAILURE,
        attempt=failures,
        failures=failures,
        delay_s=delay_s,
        error=error,
        resume=not poisoned and outcome.kind is not OutcomeKind.HOST_LOST,
    )


def _usage_limit(
    run: Running, outcome: Outcome, error: str, *, rules: Rules, now: Instant
) -> ParkAll:
    # Without a reset that lies ahead, the longest backoff bounds how often the limit is met.
    delay_s = (outcome.retry_at or 0.0) - now.wall
    if delay_s <= 0:
        delay_s = rules.max_backoff_s
    retry = Retry(
        kind=RetryKind.FAILURE,
        attempt=run.spec.attempt,
        failures=run.failures,
        delay_s=delay_s,
        error=error,
        resume=True,
    )
    return ParkAll(delay_s, retry)


def _is(outcome: Outcome, word: str) -> bool:
    """Compare codes in any spelling: Codex writes usageLimitExceeded, we write snake case."""
    return any(
        name is not None and name.replace("_", "").lower() == word
        for name in (outcome.code, outcome.category)
    )


def _word(code: str | None) -> str | None:
    """Return a code of Codex as our categories are written: ``modelNotFound`` in snake case."""
    return None if code is None else re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", code).lower()


def settle(state: SchedulerState, run: Running, ended: RunEnded, now: Instant) -> list[Command]:
    """Give the issue of an ended run its next claim, or release it; add the run to the totals."""
    state.usage = state.usage + ended.usage
    state.seconds += max(0.0, ended.seconds)
    run_ended(state.books, run, ended)
    if ended.outcome.kind is OutcomeKind.HOST_LOST:
        state.suspects[run.spec.host] = now.mono + SUSPECT_S
    counted = _count_for_breaker(state, run, ended, now)
    return [*counted, *_follow(state, run, ended, now)]


def _count_for_breaker(
    state: SchedulerState, run: Running, ended: RunEnded, now: Instant
) -> list[Command]:
    outcome = ended.outcome
    ended_by_us = run.stopping not in (None, StopReason.STALLED)
    if ended_by_us and outcome.kind is not OutcomeKind.COMPLETED:
        # How it ended under our hands says nothing of what fails.
        outcome = Outcome(kind=OutcomeKind.CANCELLED, stop_reason=run.stopping)
    was_shut = bool(state.breaker.tripped)
    commands = state.breaker.run_ended(
        run.issue,
        outcome,
        used_tokens=ended.usage.total_tokens > 0,
        seconds=max(0.0, ended.seconds),
        rules=state.rules.breaker,
        now=now,
    )
    if was_shut:
        state.claims.freed = True
    return commands


def _follow(state: SchedulerState, run: Running, ended: RunEnded, now: Instant) -> list[Command]:
    verdict = decide(
        run,
        ended.outcome,
        rules=state.rules,
        rng=state.rng,
        now=now,
        shutting_down=state.shutting_down,
    )
    if isinstance(verdict, Retry) and verdict.kind is RetryKind.FAILURE:
        crossed = state.books.issue_crossed(run.issue.id)
        if crossed is not None:
            # Waiting out the delay would only hide that no further run is allowed.
            sentence = f"{crossed.sentence}; the last run failed: {verdict.error}"
            verdict = Block(crossed.category, sentence, crossed)
    workspace_path = ended.workspace_path or run.workspace_path
    run = replace(run, workspace_path=workspace_path)
    match verdict:
        case Retry():
            return _queue(state, run, ended, verdict, now=now)
        case ParkAll():
            return [
                *park(state, verdict.delay_s, verdict.retry.error or "usage limit", now),
                *_queue(state, run, ended, verdict.retry, now=now),
            ]
        case Block():
            commands = _block(state, run, ended, verdict, now=now)
            # Its limit may have been raised while the run was ending, when nothing was blocked yet.
            return commands if verdict.crossed is None else [*commands, *lift(state, now)]
        case Release():
            state.claims.drop(run.issue.id)
            return [
                DropClaim(run.issue.id),
                note(Level.INFO, "released after its run", run.issue, reason=verdict.reason.value),
            ]
        case Clean():
            return clean(state, run, now)
        case Keep():
            state.claims.drop(run.issue.id)
            return []


def _queue(
    state: SchedulerState, run: Running, ended: RunEnded, retry: Retry, *, now: Instant
) -> list[Command]:
    claim = RetryQueued(
        issue=run.issue,
        attempt=retry.attempt,
        retry_kind=retry.kind,
        failures=retry.failures,
        due_mono=now.mono + retry.delay_s,
        due_wall=now.wall_after(retry.delay_s),
        error=retry.error,
        category=None if retry.kind is RetryKind.CONTINUATION else ended.outcome.category,
        thread_id=(ended.thread_id or run.spec.thread_id) if retry.resume else None,
        host=run.spec.host,
        workspace_path=run.workspace_path,
        scope=run.scope,
        idle=ended.idle,
        # Until a run has completed with it, no run may lack it: this one may not have got so far.
        reply=None if retry.kind is RetryKind.CONTINUATION else run.spec.reply,
    )
    state.claims.put(claim)
    level = Level.WARNING if retry.kind is RetryKind.FAILURE else Level.INFO
    return [
        claim.saved(),
        note(
            level,
            "retry scheduled",
            run.issue,
            run_id=run.spec.run_id,
            outcome=ended.outcome.kind.value,
            category=ended.outcome.category,
            retry_kind=retry.kind.value,
            attempt=retry.attempt,
            delay_s=round(retry.delay_s, 3),
            error=retry.error,
        ),
    ]


def _block(
    state: SchedulerState, run: Running, ended: RunEnded, verdict: Block, *, now: Instant
) -> list[Command]:
    wait_s = retry_after_s(verdict.category, state.rules)
    claim = Blocked(
        issue=run.issue,
        category=verdict.category,
        error=verdict.error,
        since_wall=now.wall,
        attempt=run.spec.attempt,
        retry_kind=run.spec.retry_kind,
        thread_id=ended.thread_id or run.spec.thread_id,
        host=run.spec.host,
        workspace_path=run.workspace_path,
        scope=run.scope,
        session_id=ended.session_id,
        last_event=ended.last_event,
        last_message=ended.last_message,
        last_event_wall=ended.last_event_wall,
        crossed=verdict.crossed,
        until_mono=None if wait_s is None else now.mono + wait_s,
        until_wall=None if wait_s is None else now.wall_after(wait_s),
        question=ended.outcome.question,
        reply=None if ended.outcome.kind in _DEFAULT_BLOCK_TEXT else run.spec.reply,
        read_mono=now.mono,
    )
    state.claims.put(claim)
    if watches(verdict.category, state.rules):
        # How the agent has left its issue is read at once: what a person does comes after that.
        state.poll_soon(now)
    return [
        claim.saved(),
        note(
            Level.WARNING,
            "blocked",
            run.issue,
            run_id=run.spec.run_id,
            category=verdict.category,
            error=verdict.error,
        ),
    ]


def park(state: SchedulerState, delay_s: float, reason: str, now: Instant) -> list[Command]:
    """Let nothing start for ``delay_s``; a longer park that is in force already stays."""
    until_mono = now.mono + delay_s
    if state.park is not None and state.park.until_mono >= until_mono:
        return []
    state.park = Park(until_mono, now.wall_after(delay_s), reason)
    return [
        SavePark(state.park.until_wall, reason),
        Note(
            Level.WARNING,
            "dispatch parked",
            {"until": iso(state.park.until_wall), "reason": reason},
        ),
    ]


def clean(
    state: SchedulerState, claim: Running | RetryQueued | Blocked, now: Instant
) -> list[Command]:
    """Begin to remove a finished issue's workspace: where it was made, not where it would be now.

    The ledger's claim stays until that has ended, so a crash in between repeats it.
    """
    host = claim.spec.host if isinstance(claim, Running) else claim.host
    cause = state.ask(Asked.CLEANUP, [claim.issue.id], now=now)
    state.claims.put(Cleaning(issue=claim.issue, cause=cause))
    return [
        note(Level.INFO, "issue is terminal, removing its workspace", claim.issue),
        CleanWorkspace(cause, claim.issue, claim.workspace_path, host or LOCAL_HOST),
    ]

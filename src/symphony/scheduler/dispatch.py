"""From candidate or due retry to a started run: take a slot, ask the tracker once more, start.

A slot is taken in the same step that chooses the issue and held through the read that confirms it,
so nothing can be chosen twice or above a limit meanwhile. All choices of one step share one read.
Due retries and fresh candidates compete in one dispatch order. ``eligibility`` judges, ``retry``
and ``reconcile`` bring issues here, ``polling`` brings the candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from symphony.model.clock import Instant
from symphony.model.issue import Issue, IssueId
from symphony.model.run import RunSpec

from .books import ONE_RUN
from .budget import block_spent
from .claims import Dispatching, Rechecking, RetryQueued, Running, is_same
from .commands import (
    Command,
    DropClaim,
    Level,
    Note,
    RefreshIssues,
    RefreshPurpose,
    StartRun,
)
from .eligibility import (
    DispatchKey,
    Gate,
    GateName,
    Standing,
    View,
    dispatch_key,
    first_shut,
)
from .events import Cause, IssuesRefreshed, RefreshFailed
from .notes import note
from .retry import backoff_s, clean
from .state import Pending, SchedulerState

WAITING_LIMIT = 200
"""How many candidates that may not start are kept with their reason."""


def allocate(
    state: SchedulerState, now: Instant, candidates: Sequence[Issue] | None = None
) -> list[Command]:
    """Give free slots to due retries and candidates in dispatch order; ask about the chosen ones.

    Without candidates only due retries that have no slot yet are served: a slot became free
    between two polls.
    """
    _forget_old_suspects(state, now)
    view = state.view()
    if candidates is None and view.closed:
        return []
    retries: list[IssueId] = []
    fresh: list[IssueId] = []
    blocks: list[Command] = []
    waiting: list[tuple[Issue, Gate]] = []
    # Both causes are numbered up front because a claim names the read that stands behind it.
    retry_cause, fresh_cause = state.new_cause(), state.new_cause()
    for issue, is_fresh in _contest(state, candidates or ()):
        if view.closed and (candidates is None or len(waiting) >= WAITING_LIMIT):
            break
        if not is_fresh:
            if _serve_retry(state, view, issue, retry_cause, now=now):
                retries.append(issue.id)
            else:
                blocks += _block_if_spent(state, issue.id, now)
            continue
        gate = first_shut(issue, view)
        if gate is None:
            _choose(state, Dispatching(issue=issue, cause=fresh_cause, host=_host(view, None)), now)
            fresh.append(issue.id)
        elif gate.name is not GateName.UNCLAIMED and len(waiting) < WAITING_LIMIT:
            waiting.append((issue, gate))
    if candidates is not None:
        state.waiting = tuple(waiting)
    return [
        *blocks,
        *_ask(state, retry_cause, RefreshPurpose.RETRY, retries, now=now),
        *_ask(state, fresh_cause, RefreshPurpose.DISPATCH, fresh, now=now),
    ]


def _contest(state: SchedulerState, candidates: Sequence[Issue]) -> list[tuple[Issue, bool]]:
    """Merge due retries (False) and candidates (True, each id once) in dispatch order."""
    entries: list[tuple[DispatchKey, int, Issue, bool]] = []
    for issue_id, key in state.claims.contending.items():
        claim = state.claims.get(issue_id)
        assert claim is not None
        entries.append((key, len(entries), claim.issue, False))
    seen: set[IssueId] = set()
    for issue in candidates:
        if issue.id not in seen:
            seen.add(issue.id)
            entries.append((dispatch_key(issue, fresh=True), len(entries), issue, True))
    entries.sort(key=lambda entry: entry[:2])
    return [(issue, is_fresh) for _, _, issue, is_fresh in entries]


def _choose(state: SchedulerState, claim: Dispatching | Rechecking, now: Instant) -> None:
    """Take a slot for an issue; what it needs of its host counts as taken from here on."""
    assert claim.host is not None, "it was placed"
    state.claims.put(claim)
    state.breaker.took_slot(claim.issue)
    state.resources.reserve(claim.issue.id, claim.host, state.rules.resources, now.mono)


def _give_back(state: SchedulerState, issue_id: IssueId) -> None:
    """Release a chosen issue: its slot, and what was reserved for it."""
    state.claims.drop(issue_id)
    state.resources.give_back(issue_id, state.rules.resources)


def _serve_retry(
    state: SchedulerState, view: View, issue: Issue, cause: Cause, *, now: Instant
) -> bool:
    """Take a slot for a due retry if it may have one; say whether a read must be issued for it."""
    claim = state.claims.get(issue.id)
    gate = first_shut(issue, view, claimed=True)
    match claim:
        case RetryQueued() if gate is None:
            host = _host(view, claim.host)
            _choose(state, Rechecking(retry=claim, cause=cause, host=host), now)
            return True
        case RetryQueued():
            state.claims.put(replace(claim, hold=gate))
        case Rechecking() if gate is None:
            _choose(state, replace(claim, host=_host(view, claim.retry.host)), now)
    return False


def _block_if_spent(state: SchedulerState, issue_id: IssueId, now: Instant) -> list[Command]:
    """Block a due retry that finds its issue's own budget spent: only more of it can help."""
    claim = state.claims.get(issue_id)
    if not isinstance(claim, RetryQueued) or claim.hold is None:
        return []
    crossed = state.books.issue_crossed(issue_id)
    if crossed is None or claim.hold.name is not GateName.WITHIN_BUDGET:
        return []
    blocked = block_spent(claim, crossed, now)
    state.claims.put(blocked)
    return [blocked.saved(), note(Level.WARNING, "blocked", claim.issue, error=blocked.error)]


def _host(view: View, preferred: str | None) -> str:
    host = view.place(preferred)
    assert host is not None, "the host gate was open"
    return host


def _ask(
    state: SchedulerState,
    cause: Cause,
    purpose: RefreshPurpose,
    ids: Sequence[IssueId],
    *,
    now: Instant,
) -> list[Command]:
    if not ids:
        return []
    state.expect(cause, purpose, ids, now=now)
    return [RefreshIssues(cause, purpose, tuple(ids))]


def _forget_old_suspects(state: SchedulerState, now: Instant) -> None:
    if state.suspects:
        state.suspects = {host: until for host, until in state.suspects.items() if until > now.mono}


def recheck_due(state: SchedulerState, now: Instant) -> list[Command]:
    """Ask about every retry whose time has come, in one read; those that may start take a slot.

    The others are read as well (SPEC 8.4: a finished or withdrawn issue is let go of even where
    nothing is free) and wait for a slot after that.
    """
    due = state.claims.pop_due(now.mono)
    if not due:
        return []
    due.sort(key=lambda claim: dispatch_key(claim.issue, fresh=False))
    cause = state.new_cause()
    view = state.view()
    for claim in due:
        gate = first_shut(claim.issue, view, claimed=True)
        if gate is None:
            host = _host(view, claim.host)
            _choose(state, Rechecking(retry=claim, cause=cause, host=host), now)
        else:
            state.claims.put(Rechecking(retry=claim, cause=cause))
    return _ask(state, cause, RefreshPurpose.RETRY, [claim.issue.id for claim in due], now=now)


def dispatch_read(
    state: SchedulerState, pending: Pending, answer: IssuesRefreshed, now: Instant
) -> list[Command]:
    """Start the chosen candidates that the tracker still shows as eligible; release the others.

    All gates are asked again with the refreshed issue, its new state's slots included.
    """
    found = {issue.id: issue for issue in answer.issues}
    view = state.view()
    commands: list[Command] = []
    for issue_id in pending.ids:
        claim = state.claims.get(issue_id)
        assert isinstance(claim, Dispatching)
        _give_back(state, issue_id)
        issue = found.get(issue_id)
        if pending.generation != state.generation:
            why = "the tracker's configuration changed"
        elif issue is None:
            why = "the tracker does not show it any more"
        else:
            gate = first_shut(issue, view)
            if gate is None:
                commands.append(_start_fresh(state, issue, view.place(claim.host), now))
                continue
            why = gate.detail
            state.waiting = (*state.waiting, (issue, gate))[:WAITING_LIMIT]
        commands.append(note(Level.INFO, "not dispatched after all", claim.issue, reason=why))
    return commands


def dispatch_read_failed(
    state: SchedulerState, pending: Pending, answer: RefreshFailed, now: Instant
) -> list[Command]:
    """Release the chosen candidates: the next poll chooses again."""
    state.read_failed(answer.message, answer.retry_after_s, now=now)
    for issue_id in pending.ids:
        _give_back(state, issue_id)
    return [
        Note(
            Level.WARNING,
            "dispatch refresh failed",
            {"category": answer.category, "error": answer.message, "issues": len(pending.ids)},
        )
    ]


def retry_read(
    state: SchedulerState, pending: Pending, answer: IssuesRefreshed, now: Instant
) -> list[Command]:
    """Start due retries, let them wait, or let go of their issues (SPEC 8.4)."""
    found = {issue.id: issue for issue in answer.issues}
    view = state.view()
    commands: list[Command] = []
    for issue_id in pending.ids:
        claim = state.claims.get(issue_id)
        assert isinstance(claim, Rechecking)
        state.resources.give_back(issue_id, state.rules.resources)
        if pending.generation != state.generation:
            # Another tracker answered; the one in force is asked at the next wake-up.
            state.claims.put(replace(claim.retry, due_mono=now.mono, hold=None))
            continue
        issue = found.get(issue_id)
        if issue is not None and not is_same(claim.retry, issue, state.scope):
            issue = None
        standing = None if issue is None else state.rules.standing(issue)
        if issue is not None and standing is Standing.WANTED:
            commands.extend(_start_or_wait(state, view, claim, issue, now=now))
        elif issue is not None and standing is Standing.TERMINAL:
            commands.extend(clean(state, replace(claim.retry, issue=issue), now))
        else:
            reason = "missing" if standing is None else standing.value
            commands.extend(let_go(state, claim.issue, reason))
    return commands


def retry_read_failed(
    state: SchedulerState, pending: Pending, answer: RefreshFailed, now: Instant
) -> list[Command]:
    """Queue the retries again with their attempts unchanged: the tracker failed, not the issue.

    The delay backs off by the number of failed reads in a row and respects the tracker's own wish.
    """
    state.read_failed(answer.message, answer.retry_after_s, now=now)
    for issue_id in pending.ids:
        claim = state.claims.get(issue_id)
        assert isinstance(claim, Rechecking)
        state.resources.give_back(issue_id, state.rules.resources)
        retry = claim.retry
        failures = retry.read_failures + 1
        delay_s = max(backoff_s(failures, state.rules, state.rng), answer.retry_after_s or 0.0)
        state.claims.put(
            replace(
                retry,
                due_mono=now.mono + delay_s,
                due_wall=now.wall_after(delay_s),
                hold=None,
                read_failures=failures,
                read_error=f"retry poll failed: {answer.message}",
            )
        )
    return [
        Note(
            Level.WARNING,
            "retry poll failed",
            {"category": answer.category, "error": answer.message, "issues": len(pending.ids)},
        )
    ]


def let_go(state: SchedulerState, issue: Issue, reason: str) -> list[Command]:
    """Release a durable claim without a clean-up."""
    state.claims.drop(issue.id)
    return [DropClaim(issue.id), note(Level.INFO, "released", issue, reason=reason)]


def _start_or_wait(
    state: SchedulerState, view: View, claim: Rechecking, issue: Issue, *, now: Instant
) -> list[Command]:
    retry = replace(
        claim.retry,
        issue=issue,
        scope=state.scope,
        read_failures=0,
        read_error=None,
        missing_since=None,
    )
    # The claim's own slot counts as free: the issue's state, and so its slot, may have changed.
    state.claims.drop(issue.id)
    gate = first_shut(issue, view)
    if gate is None:
        return [_start_again(state, retry, view.place(claim.host or retry.host), now)]
    state.claims.put(replace(retry, hold=gate))
    blocks = _block_if_spent(state, issue.id, now)
    if blocks:
        return blocks
    if claim.retry.hold is not None:
        return []
    return [note(Level.INFO, "retry waits", issue, gate=gate.name.value, reason=gate.detail)]


def _start_fresh(state: SchedulerState, issue: Issue, host: str | None, now: Instant) -> StartRun:
    assert host is not None, "the host gate was open"
    spec = RunSpec(
        run_id=state.new_run_id(),
        issue=issue,
        attempt=None,
        retry_kind=None,
        host=host,
        spent=state.books.spent_by(issue.id),
        raised=state.books.raised(f"issue:{issue.id}"),
    )
    return _start(state, spec, now, failures=0)


def _start_again(
    state: SchedulerState, retry: RetryQueued, host: str | None, now: Instant
) -> StartRun:
    assert host is not None, "the host gate was open"
    # A thread's history lies on the host that ran it.
    moved = retry.host is not None and host != retry.host
    spec = RunSpec(
        run_id=state.new_run_id(),
        issue=retry.issue,
        attempt=retry.attempt,
        retry_kind=retry.retry_kind,
        host=host,
        thread_id=None if moved else retry.thread_id,
        previous_error=retry.error,
        failures=retry.failures,
        spent=state.books.spent_by(retry.issue.id),
        raised=state.books.raised(f"issue:{retry.issue.id}"),
        idle=retry.idle,
        reply=retry.reply,
    )
    workspace_path = None if moved else retry.workspace_path
    return _start(state, spec, now, failures=retry.failures, workspace_path=workspace_path)


def _start(
    state: SchedulerState,
    spec: RunSpec,
    now: Instant,
    *,
    failures: int,
    workspace_path: str | None = None,
) -> StartRun:
    state.books.book(spec.issue_id, spec.issue.identifier, ONE_RUN)
    state.claims.put(
        Running(
            spec=spec,
            issue=spec.issue,
            started_mono=now.mono,
            started_wall=now.wall,
            failures=failures,
            scope=state.scope,
            workspace_path=workspace_path,
        )
    )
    state.breaker.took_slot(spec.issue)
    state.breaker.started(spec.issue_id, state.rules.breaker, now)
    state.resources.reserve(spec.issue_id, spec.host, state.rules.resources, now.mono)
    return StartRun(spec)

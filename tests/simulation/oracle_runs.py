"""Runs: what may start and with what, why one may be stopped, and that each ends once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from symphony.model.run import RetryKind, RunSpec, StopReason
from symphony.scheduler.commands import (
    FinishRun,
    StopRun,
)
from symphony.scheduler.events import (
    RunEnded,
    RunSilent,
)

from .expectations import Live, is_usage_limit, is_within
from .oracle_books import TOLERANCE_S, Books

if TYPE_CHECKING:
    pass


class RunBooks(Books):
    """Judges starts, stops and ends of runs."""

    def _start(self, spec: RunSpec) -> None:
        issue_id = spec.issue_id
        self._must(not self._stopping, lambda: f"{spec} starts during a shutdown")
        self._must(not self._config_broken, lambda: f"{spec} starts under a broken configuration")
        self._must(
            self._now >= self._parked_until - TOLERANCE_S, lambda: f"{spec} starts while parked"
        )
        self._must(spec.host not in self._short, lambda: f"{spec} starts on a short host")
        windows = self._settings.agent.active_hours
        self._must(
            is_within(windows, self._world.timeline.wall) or self._now < self._lifted_until,
            lambda: f"{spec} starts outside {windows}",
        )
        self._must(spec.run_id not in self._memory.run_ids, lambda: f"run id used twice: {spec}")
        self._must(self._standing(spec.issue) == "wanted", lambda: f"{spec} is not wanted")
        self._must(self._seen.get(issue_id) == spec.issue, lambda: f"{spec} starts unread")
        held = self._holds & {None, spec.issue.identifier}
        self._must(not held, lambda: f"{spec} starts though an operator holds {held}")
        stopped = issue_id in self._put_down
        self._must(not stopped, lambda: f"{spec} starts though an operator has stopped it")
        for scope in ("issue", "day", "total"):
            over = self._spent(scope, issue_id)
            self._must(not over, lambda over=over: f"{spec} starts though spent: {over}")
        self._purse.starts(issue_id, self._wall)
        twin = [one for one in self._live.values() if one.spec.issue_id == issue_id]
        self._must(not twin, lambda: f"{spec} starts beside {twin}")
        due = self._due.pop(issue_id, None)
        blocked = issue_id in self._blocked() or issue_id in self._blocks
        self._must(not blocked, lambda: f"{spec} starts though it is blocked")
        self._starts_with_answer(spec)
        if due is None:
            self._must(
                spec.attempt is None and spec.retry_kind is None, lambda: f"{spec} is no first run"
            )
        else:
            self._must(
                (spec.attempt, spec.retry_kind) == (due.attempt, due.kind),
                lambda: f"{spec} should be {due}",
            )
            self._must(self._now >= due.not_before - TOLERANCE_S, lambda: f"{spec} is early: {due}")
        failures = 0 if due is None else due.failures
        self._memory.run_ids.add(spec.run_id)
        self._memory.specs[spec.run_id] = spec
        self._memory.newest[issue_id] = spec.run_id
        self._memory.failures[(issue_id, "running", spec.attempt, spec.retry_kind)] = failures
        self._live[spec.run_id] = Live(spec, failures)
        self._memory.claims[issue_id] = ("running", self._memory.number)
        self.recovering.discard(issue_id)
        self._excused.discard(issue_id)
        self._absences.pop(issue_id, None)
        self._limits(spec)

    def _finish(self, command: FinishRun) -> None:
        """A run that had an outcome is wound up with it, and as what it was started."""
        spec, run_id = command.spec, command.spec.run_id
        live = self._live.get(run_id)
        self._must(live is not None, lambda: f"{command} of no run that had ended")
        assert live is not None
        was = live.spec
        same = (was.attempt, was.retry_kind, was.failures, was.host, was.reply)
        self._must(
            same == (spec.attempt, spec.retry_kind, spec.failures, spec.host, spec.reply),
            lambda: f"{spec} was started as {was}",
        )
        self._world.counts["runs wound up after a crash"] += 1
        self._world.counts[f"wound up {command.ended.outcome.kind}"] += 1

    def _starts_with_answer(self, spec: RunSpec) -> None:
        """What was answered is told; once, since the due time of the answer has been taken."""
        said = None if spec.reply is None else spec.reply.text
        expected = self._replies.get(spec.issue_id)
        self._must(said == expected, lambda: f"{spec} should carry {expected!r}")
        self._memory.stopped.pop(spec.issue_id, None)
        if said is not None and spec.retry_kind is RetryKind.UNBLOCKED:
            self._world.counts["answered runs"] += 1

    def _limits(self, spec: RunSpec) -> None:
        agent, worker = self._settings.agent, self._settings.worker
        self._must(
            len(self._live) <= agent.max_concurrent_agents, lambda: f"{spec}: above the limit"
        )
        state = spec.issue.state.lower()
        limit = agent.max_concurrent_agents_by_state.get(state)
        claims = [self._life.state.claims.get(one.spec.issue_id) for one in self._live.values()]
        same = [one for one in claims if one is not None and one.issue.state.lower() == state]
        self._must(
            limit is None or len(same) <= limit, lambda: f"{spec}: above the limit of its state"
        )
        hosts = worker.ssh_hosts or ("local",)
        self._must(spec.host in hosts, lambda: f"{spec}: not a host of the configuration")
        here = [one for one in self._live.values() if one.spec.host == spec.host]
        per_host = worker.max_concurrent_agents_per_host if worker.ssh_hosts else None
        self._must(
            per_host is None or len(here) <= per_host, lambda: f"{spec}: above the host's limit"
        )

    def _stop(self, command: StopRun) -> None:
        live = self._live.get(command.run_id)
        self._must(live is not None, lambda: f"{command} of no live run")
        assert live is not None
        follows = command.reason in (
            StopReason.TERMINAL,
            StopReason.INACTIVE,
            StopReason.UNROUTABLE,
        )
        # An operator's order holds over a stop that was under way for another reason.
        follows |= command.reason is StopReason.OPERATOR and live.spec.issue_id in self._put_down
        told = live.stop is command.reason or (live.stop is not None and follows)
        if told and isinstance(self._event, RunSilent):
            # Told once more because it stays silent; that it had a reason was judged before, and
            # the tracker may have shown another one since.
            return self._must_be_silent(command)
        self._must(live.stop is None, lambda: f"{command} after {live.stop}")
        live.stop = command.reason
        issue_id = live.spec.issue_id
        match command.reason:
            case StopReason.OPERATOR:
                self._must(issue_id in self._put_down, lambda: f"{command} unordered")
            case StopReason.SHUTDOWN:
                self._must(self._stopping, lambda: f"{command} without a shutdown")
            case StopReason.STALLED:
                self._must_be_silent(command)
            case StopReason.BUDGET_DAY | StopReason.BUDGET_TOTAL:
                scope = command.reason.value.removeprefix("budget_")
                self._must(self._spent(scope), lambda: f"{command}, but {scope} is not spent")
            case StopReason.MISSING:
                self._must(
                    self._is_absent(issue_id), lambda: f"{command} without two reads that lack it"
                )
                self._excused.add(issue_id)
            case reason:
                standing = self._standing(self._seen[issue_id])
                self._must(standing == reason.value, lambda: f"{command}, but it is {standing}")

    def _must_be_silent(self, command: StopRun) -> None:
        limit_s = self._settings.codex.stall_timeout_ms / 1000
        record = self._life.progress[command.run_id]
        self._must(isinstance(self._event, RunSilent), lambda: f"{command} unasked")
        self._must(limit_s > 0, lambda: f"{command} though stalls are off")
        self._must(
            self._now - record.last_activity_mono >= limit_s, lambda: f"{command} of a healthy run"
        )

    def _run_ended(self, event: RunEnded) -> None:
        live = self._live.pop(event.run_id, None)
        if live is None:
            return
        self._just_ended = (live, event)
        self._must(
            event.run_id not in self._memory.recorded, lambda: f"{event}, which was recorded before"
        )
        self._must(
            event.workspace_path is None or event.run_id in self._world.wound_up,
            lambda: f"{event} without after_run",
        )
        known = self._memory.outcomes.get(event.run_id)
        self._must(known in (None, event.outcome), lambda: f"{event}, but it came to {known}")
        self._usage = self._usage + event.usage
        outcome = event.outcome
        if event.spend is not None:
            self._purse.reports(event.run_id, live.spec.issue_id, event.spend, self._wall)
        is_ordered = event.run_id in self._ordered_ends
        if is_usage_limit(outcome) and live.stop in (None, StopReason.STALLED) and not is_ordered:
            wait_s = (outcome.retry_at or 0.0) - self._world.timeline.wall
            if wait_s <= 0:
                wait_s = self._settings.agent.max_retry_backoff_ms / 1000
            self._parked_until = max(self._parked_until, self._now + wait_s)

    def _same_runs(self) -> None:
        claims = self._life.state.claims
        running = {claim.spec.run_id for claim in claims.running()}
        self._must(
            running == set(self._live), lambda: f"runs {running}, live are {set(self._live)}"
        )
        executor = self._life.executor
        assert executor is not None
        at_work = {attempt.spec.run_id for attempt in executor.attempts}
        self._must(at_work <= running, lambda: f"attempts without a claim: {at_work - running}")
        for run_id in running - at_work:
            if not self._reported[run_id]:
                self._fail(f"a claim whose worker is gone: {run_id}")

    def _same_spend(self) -> None:
        """What the books have of the issue whose run has just ended is what its runs reported."""
        if self._just_ended is not None:
            issue_id = self._just_ended[0].spec.issue_id
            booked, spent = (
                self._life.state.books.spent_by(issue_id).tokens,
                self._purse.issues[issue_id]["tokens"],
            )
            self._must(booked == spent, lambda: f"{issue_id} is booked {booked}, spent {spent}")

    def process_starts(self, spec: RunSpec) -> None:
        """The run's row is there before its process, unless the disk fails."""
        self._must(spec.run_id in self._live, lambda: f"{spec} has a process but no claim")
        self._life.check_recorded(spec)

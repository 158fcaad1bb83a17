"""Runs one seed: trouble for some hours, then peace, in which everything must come to its end.

``simulate`` returns a report or raises ``SeedFailed``, whose text holds the command to replay it.
"""

from __future__ import annotations

import gc
import hashlib
import os
import tempfile
import traceback
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import Any

from symphony.model.question import Answer, Decision
from symphony.model.spend import BudgetScope, Raise
from symphony.scheduler.claims import Blocked
from symphony.scheduler.events import ControlAction

from .daemon import Lifetime
from .ledgers import Disk
from .quiet_logs import captured_logs
from .scenario import (
    BOARDS,
    EVENTFUL,
    Scenario,
    Weather,
    changed,
    for_real_attempts,
    on_one_host,
    scenario_of,
)
from .timeline import Timeline
from .world import InvariantBroken, World

PEACE_LIMIT_S = 24 * 3600.0
_SPIN_LIMIT = 20_000
_KEPT_LINES = 60
_FIRST_RAISE = Raise(tokens=20_000, micro_usd=500_000, wall_ms=3_600_000, attempts=3)


class SeedFailed(AssertionError):
    """A seed has broken an invariant."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a seed has been through.

    Attributes:
        writes: Of the ledger, until peace came.
        digest: Of the whole trace: equal for equal code.
    """

    seed: int
    simulated_s: float
    steps: int
    starts: int
    lifetimes: int
    writes: int
    counts: Counter[str]
    digest: str


def simulate(
    seed: int,
    *,
    trace: Callable[[str], None] | None = None,
    hours: float | None = None,
    without: tuple[str, ...] = (),
    sweeps: bool = True,
    dies_after: int | None = None,
    real_attempts: bool = False,
    moves: float = 0.0,
) -> Report:
    """Run a seed.

    Args:
        seed: Decides everything.
        trace: Takes each line of the story.
        hours: Instead of the seed's own.
        without: Names of ``Weather`` that are turned off, to find what a failure needs.
        sweeps: False for a daemon that leaves the orphans of its forerunner alone.
        dies_after: Instead of the seed's weather, the eventful one, and a crash after so many
            writes of the ledger; 0 for none.
        real_attempts: The runner's own attempts work, on scripted app-servers.
        moves: How often an hour the workflow file names the second board.

    Raises:
        SeedFailed: An invariant is broken; the text names seed, moment and command.
    """
    scenario = scenario_of(seed)
    if hours is not None:
        scenario.hours = hours
    if dies_after is not None:
        scenario.weather = Weather(**EVENTFUL)
    if real_attempts:
        for_real_attempts(scenario)
    scenario.weather.moves = moves
    for name in without:
        setattr(scenario.weather, name, 0.0)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="sim-", dir=memory) as folder, captured_logs() as logs:
        story = Simulation(scenario, trace, Path(folder), logs)
        story.world.sweeps = sweeps
        story.dies_after(dies_after)
        gc.disable()  # Cycles are few; looking for them costs a tenth of the time.
        try:
            return story.run()
        except Exception as error:
            raise SeedFailed(story.obituary(error)) from error
        finally:
            story.close()
            gc.enable()


class Simulation:
    """One seed's story."""

    def __init__(
        self,
        scenario: Scenario,
        trace: Callable[[str], None] | None,
        folder: Path,
        logs: list[str],
    ) -> None:
        self._scenario = scenario
        self._trace = trace
        self._logs = logs
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._digest = hashlib.sha256()
        self._timeline = Timeline()
        self.world = World(scenario, self._timeline, scenario.weather, self._note, self._die_within)
        self.world.traces = trace is not None
        rng = self._rng = Random(f"fate {scenario.seed}")
        self._disk = Disk(lambda: self.world.disk_fails, self._disk_delay, self.world.memory.wrote)
        self._folder = folder
        self._path = folder / "ledger.sqlite3" if scenario.uses_sqlite else None
        self._sections = scenario.sections
        self._file: dict[str, Any] | None = scenario.sections
        self._life: Lifetime | None = None
        self._lives = 0
        self._answers = 0
        self._crash_in: int | None = None
        self._more = _FIRST_RAISE
        self._dies_after: int | None = None
        self._disk_rng = Random(f"disk {scenario.seed}")
        self._start_s = self._timeline.mono
        del rng

    def dies_after(self, writes: int | None) -> None:
        """Plan the crash between two writes that this story is about."""
        self._dies_after = writes
        self._disk.dies_in = writes or None

    # The story

    def run(self) -> Report:
        self._note(f"scenario {self._scenario}")
        for cause in fields(self._scenario.weather):
            plan = _FATES.get(cause.name)
            if plan is not None:
                self._again(cause.name, plan)
        self._boot()
        self._until(self._start_s + self._scenario.hours * 3600)
        self._writes_in_trouble = self._disk.writes
        self._make_peace()
        self._until(self._timeline.mono + PEACE_LIMIT_S, self._is_over)
        self._check_over()
        self._restart_for_cleanup()
        return Report(
            seed=self._scenario.seed,
            simulated_s=self._timeline.mono - self._start_s,
            steps=self.world.steps,
            starts=self.world.starts,
            lifetimes=self._lives,
            writes=self._writes_in_trouble,
            counts=self.world.counts,
            digest=self._digest.hexdigest()[:16],
        )

    def _until(self, end: float, is_over: Callable[[], bool] | None = None) -> None:
        """Let time pass; stops early where ``is_over`` says so."""
        timeline, spins = self._timeline, 0
        while True:
            life = self._life
            if life is not None and life.loop.is_ready:
                self._run_ready(life)
                spins += 1
                if spins > _SPIN_LIMIT:
                    raise InvariantBroken("the daemon spins: time does not pass")
                continue
            self._look_after(life)
            if is_over is not None and is_over():
                return
            plan = timeline.next_plan()
            due = life.loop.next_due() if life is not None and self._life is life else None
            if self._life is not life:
                continue
            times = [time for time in (plan, due) if time is not None]
            if not times or min(times) > end:
                timeline.mono = max(timeline.mono, end)
                return
            moment = min(times)
            if moment > timeline.mono:
                timeline.mono = moment
                spins = 0
            if due is not None and due <= timeline.mono and life is not None:
                life.loop.wake_due()
            if plan is not None and plan <= timeline.mono:
                timeline.take_plan()()

    def _run_ready(self, life: Lifetime) -> None:
        loop = life.loop
        while loop.is_ready:
            loop.run_one()
            if self._crash_in is not None:
                self._crash_in -= 1
                if self._crash_in <= 0:
                    break
            if self._disk.has_died:
                break
            if life.fault is not None:
                break
        if life.fault is not None:
            raise life.fault
        if self._logs:
            raise InvariantBroken(self._logs[0])
        if self._disk.has_died or (self._crash_in is not None and self._crash_in <= 0):
            self._crash()

    def _look_after(self, life: Lifetime | None) -> None:
        """See whether the daemon has ended."""
        if life is None or not life.main.done():
            return
        if life.loop.faults:
            raise InvariantBroken(f"the loop met {life.loop.faults[0]}")
        error = None if life.main.cancelled() else life.main.exception()
        if error is not None:
            raise error
        self._note("daemon has stopped")
        life.end()
        self._life = None
        self._timeline.after(self._rng.choice([0.5, 5.0, 200.0]), self._boot)

    def _boot(self) -> None:
        if self._life is not None:
            return
        if self._file is None:
            self._file = self._sections
        self._sections = self._file
        self._lives += 1
        self._note(f"boot {self._lives}")
        self._life = Lifetime(
            self.world,
            number=self._lives,
            sections=self._sections,
            disk=self._disk,
            path=self._path,
            folder=self._folder,
        )

    def _crash(self) -> None:
        self._crash_in = self._disk.dies_in = None
        self._disk.has_died = False
        life = self._life
        if life is None:
            return
        self._note("CRASH")
        self._life = None
        life.crash()
        # What dies with it must not look like news of the next life.
        self._logs.clear()
        self._timeline.after(self._rng.choice([0.1, 2.0, 30.0, 900.0]), self._boot)

    # Peace

    def _make_peace(self) -> None:
        """No faults from here on, nobody interferes, and what is blocked is taken up by people."""
        self._note("PEACE")
        weather, world = self._scenario.weather, self.world
        for cause in fields(weather):
            setattr(weather, cause.name, 0.0)
        self._crash_in = self._disk.dies_in = None
        world.is_quiet = True
        world.disk_fails = world.model_is_down = False
        world.dead_hosts.clear()
        for host in sorted(world.short):
            world.short.discard(host)
            self._tell_resources(host)
        for tracker in world.trackers.values():
            tracker.is_down = False
        world.board.go_quiet()
        self._file = self._sections
        tracker = {**self._sections["tracker"], "provider": {"board": "one"}}
        agent = {**self._sections["agent"], "active_hours": ()}
        # A limit that is smaller than what any turn takes would never let one end.
        given = self._sections.get("budget", {})
        budget = {scope: limits for scope, limits in given.items() if scope not in ("turn", "run")}
        self._set_file({**self._sections, "tracker": tracker, "agent": agent, "budget": budget})
        self._tend()

    def _tend(self) -> None:
        """People look now and then: they raise what is spent and move other blocked issues.

        So the end shows that everything which a budget holds back can be let go on. They raise by
        more each time: a run may have spent many times what it was given before it was stopped.
        """
        more = self._more
        self._more = more + more
        life = self._life
        if life is not None and life.is_up:
            for scope in (None, *life.state.holds):
                life.order(ControlAction.RESUME, scope)
            for claim in life.blocked():
                if claim.crossed is not None:
                    self._grant(life, claim, more)
                    continue
                row = claim.issue.id
                self.world.board.change(row, state="Review")
                self.world.note(f"person takes {row} back")
                self._timeline.after(1500.0, lambda row=row: self._reopen(row))
            for scope in ("day", "total"):
                life.order(ControlAction.RAISE, scope, more)
            for issue in self.world.board.issues.values():
                # A fresh candidate is not blocked: its gate is shut.
                if issue.state in ("Todo", "In Progress") and issue.id not in life.state.claims:
                    life.order(ControlAction.RAISE, issue.identifier, more)
        self._timeline.after(3000.0, self._tend)

    def _grant(self, life: Lifetime, claim: Blocked, more: Raise) -> None:
        assert claim.crossed is not None
        is_new = claim.crossed.scope in (BudgetScope.TURN, BudgetScope.RUN)
        if is_new and life.state.books.issue_crossed(claim.issue.id) is None:
            life.order(ControlAction.RETRY, claim.issue.identifier)
        else:
            life.order(ControlAction.RAISE, claim.issue.identifier, more)

    def _reopen(self, issue_id: Any) -> None:
        issue = self.world.board.issues[issue_id]
        if issue.state == "Review":
            self.world.board.change(issue_id, state="Todo")

    def _is_over(self) -> bool:
        life = self._life
        if life is None or not life.is_up or life.executor is None:
            return False
        if any(
            issue.state in ("Todo", "In Progress") for issue in self.world.board.issues.values()
        ):
            return False
        return not len(life.state.claims) and not life.executor.attempts

    def _check_over(self) -> None:
        life, world = self._life, self.world
        if not self._is_over():
            states = {one.identifier: one.state for one in world.board.issues.values()}
            claims = list(life.state.claims) if life is not None else None
            raise InvariantBroken(f"no end after {PEACE_LIMIT_S} s of peace: {states}, {claims}")
        if world.alive():
            raise InvariantBroken(f"processes are left: {world.alive()}")

    def _restart_for_cleanup(self) -> None:
        """A stop, a start, and no finished issue has a workspace."""
        life = self._life
        assert life is not None
        life.request_stop()
        before = self._lives
        self._until(self._timeline.mono + 3600.0, lambda: self._lives > before and self._is_over())
        self._until(self._timeline.mono + 60.0)
        left = [
            issue.identifier
            for issue in self.world.board.issues.values()
            if issue.state in ("Done", "Cancelled") and issue.identifier in self.world.workspaces
        ]
        if left:
            raise InvariantBroken(f"workspaces of finished issues are left: {left}")
        assert self._life is not None
        self._life.request_stop()
        self._until(self._timeline.mono + 60.0, lambda: self._life is None)
        if self._life is not None:
            raise InvariantBroken("the shutdown does not end")

    # Fates

    def _again(self, name: str, act: Callable[[Simulation], None]) -> None:
        """Let something happen at a rate per hour, from chance of its own."""
        rng = Random(f"{name} {self._scenario.seed}")

        def happen() -> None:
            if getattr(self._scenario.weather, name) > 0:
                act(self)
                plan()

        def plan() -> None:
            rate = getattr(self._scenario.weather, name)
            if rate > 0:
                self._timeline.after(rng.expovariate(rate / 3600), happen)

        plan()

    def plan_crash(self) -> None:
        """Crash in the middle of whatever happens next: at some callback, or after some write."""
        if self._life is None or self._crash_in is not None or self._disk.dies_in is not None:
            return
        if self._rng.random() < 0.4:
            self._disk.dies_in = self._rng.choice([1, 2, 3, self._rng.randint(1, 12)])
        else:
            self._crash_in = self._rng.choice(
                [1, self._rng.randint(1, 12), self._rng.randint(1, 60)]
            )

    def _die_within(self, limit_s: float) -> None:
        """Crash while a run is being wound up."""

        def die() -> None:
            if self._life is life and self._crash_in is None:
                self._crash_in = 1

        life = self._life
        self._timeline.after(self._rng.uniform(0.0, limit_s), die)

    def shut_down(self) -> None:
        life = self._life
        if life is None or not life.is_up:
            return
        self._note("shutdown")
        life.request_stop()
        if self._rng.random() < 0.3:
            self._timeline.after(self._rng.uniform(0, 3), lambda: self._force(life))

    def _force(self, life: Lifetime) -> None:
        if self._life is life:
            self._note("forced")
            life.request_stop()

    def outage(self) -> None:
        for tracker in self.world.trackers.values():
            tracker.is_down = True
        self._note("outage")
        self._timeline.after(self._rng.choice([10.0, 300.0, 2000.0]), self._recover_tracker)

    def _recover_tracker(self) -> None:
        for tracker in self.world.trackers.values():
            tracker.is_down = False

    def shortage(self) -> None:
        host = self._rng.choice(self._sections["worker"]["ssh_hosts"] or ["local"])
        self._note(f"host {host} runs out of memory")
        self.world.short.add(host)
        self._tell_resources(host)

        def recover() -> None:
            self.world.short.discard(host)
            self._tell_resources(host)

        self._timeline.after(self._rng.choice([20.0, 600.0, 3000.0]), recover)

    def _tell_resources(self, host: str) -> None:
        if self._life is not None and self._life.is_up:
            self._life.tell_resources(host)

    def model_outage(self) -> None:
        self._note("the model is down")
        self.world.model_is_down = True

        def recover() -> None:
            self.world.model_is_down = False

        self._timeline.after(self._rng.choice([60.0, 900.0, 4000.0]), recover)

    def lose_host(self) -> None:
        hosts = self._sections["worker"]["ssh_hosts"]
        if hosts:
            host = self._rng.choice(hosts)
            self._note(f"host {host} is lost")
            self.world.lose_host(host)
            self._timeline.after(
                self._rng.choice([20.0, 900.0]), lambda: self.world.dead_hosts.discard(host)
            )

    def fail_disk(self) -> None:
        self._note("disk fails")
        self.world.disk_fails = self.world.memory.disk_has_failed = True

        def mend() -> None:
            self.world.disk_fails = False

        self._timeline.after(self._rng.choice([1.0, 30.0, 400.0]), mend)

    def jump_clock(self) -> None:
        jump = self._rng.choice([-86_400.0, -600.0, -2.0, 2.0, 600.0, 86_400.0])
        self._note(f"wall clock jumps by {jump}")
        self._timeline.wall_shift += jump

    def reload(self) -> None:
        if self._file is not None and self._rng.random() < 0.3:
            self._set_file(None)
            self._timeline.after(self._rng.choice([3.0, 100.0, 900.0]), self._repair)
        elif self._file is not None:
            file = changed(self._sections, self._rng)
            if self._scenario.real_attempts:
                file = on_one_host(file, self._rng)
            self._set_file(file)

    def move(self) -> None:
        """The workflow file names the second board for good, while runs of the first are live."""
        if self._file is not None:
            tracker = {**self._file["tracker"], "provider": {"board": BOARDS[1]}}
            self._set_file({**self._file, "tracker": tracker})

    def _repair(self) -> None:
        if self._file is None:
            self._set_file(self._sections)

    def _set_file(self, file: dict[str, Any] | None) -> None:
        self._note(f"file: {file}")
        self._file = file
        if file is not None:
            self._sections = file
        life = self._life
        if life is not None:
            life.file = file
            # The watch misses some edits; the look before the next poll finds them.
            if self.world.is_quiet or self._rng.random() < 0.7:
                life.look_at_file()

    def storm(self) -> None:
        life = self._life
        if life is not None and life.is_up:
            self._note("refresh storm")
            for _ in range(self._rng.randint(2, 40)):
                self._timeline.after(self._rng.uniform(0, 5), life.refresh)

    def order(self) -> None:
        life = self._life
        if life is None:
            return
        action = self._rng.choice([one for one in ControlAction if one is not ControlAction.ANSWER])
        names = [issue.identifier for issue in self.world.board.issues.values()]
        identifier = self._rng.choice([None, *names])
        amounts = None
        if action is ControlAction.RAISE:
            identifier = self._rng.choice(["day", "total", *names])
            amounts = Raise(tokens=self._rng.choice([0, 500, 5_000]))
        self._note(f"operator: {action} {identifier}")
        life.order(action, identifier, amounts)
        if action is ControlAction.RAISE:
            return
        # Whoever holds work back lets it go again.
        resume = ControlAction.RESUME
        self._timeline.after(
            self._rng.choice([60.0, 900.0]), lambda: self._order(resume, identifier)
        )

    def _order(self, action: ControlAction, identifier: str | None) -> None:
        if self._life is not None:
            self._life.order(action, identifier)

    def answer(self) -> None:
        """Somebody answers a question, mostly well; now and then the daemon dies of it."""
        life = self._life
        if life is None or not life.is_up:
            return
        blocked = [claim for claim in life.state.claims if isinstance(claim, Blocked)]
        if not blocked:
            return
        claim, rng = self._rng.choice(blocked), self._rng
        self._answers += 1
        said = Answer(
            text=f"answer {self._answers}",
            options=rng.choice([(), (), ("Red",), ("2",), ("Green",)]),
            decision=rng.choice([None, Decision.APPROVE, Decision.DECLINE])
            if (claim.question is not None and claim.question.kind.wants_decision)
            or rng.random() < 0.1
            else None,
        )
        self._note(f"operator answers {claim.issue.identifier}: {said}")
        life.order(ControlAction.ANSWER, claim.issue.identifier, answer=said)
        self._die_soon()

    def stop_in_haste(self) -> None:
        """A stop that is taken back before the run has ended, or just before a crash."""
        life = self._life
        if life is None or not life.is_up or not life.state.claims.running():
            return
        identifier = self._rng.choice(life.state.claims.running()).issue.identifier
        self._note(f"operator stops {identifier} in haste")
        life.order(ControlAction.STOP, identifier)
        after_s = self._rng.choice([0.0, 0.05, 1.0, 30.0])
        action = self._rng.choice([ControlAction.RESUME, ControlAction.RETRY])
        if self._rng.random() < 0.5:
            self._timeline.after(after_s, lambda: self._order(action, identifier))
        else:
            self._timeline.after(900.0, lambda: self._order(action, identifier))
        self._die_soon()

    def _die_soon(self) -> None:
        """Crash in the middle of what has just been ordered, where crashes are in the weather."""
        if self._scenario.weather.crashes > 0 and self._rng.random() < 0.4:
            self.plan_crash()

    def meddle(self) -> None:
        self._note(f"person: {self.world.board.meddle()}")

    # The record

    def _disk_delay(self) -> float:
        rng = self._disk_rng
        slow = rng.random() < self._scenario.weather.disk_slow
        # Beyond a second the publisher shows what is not durable yet, on purpose.
        longest_s = 0.7 if self._scenario.publishes else 3.0
        return rng.choice([0.3, longest_s]) if slow else rng.uniform(0.0003, 0.01)

    def _note(self, line: str) -> None:
        text = f"{self._timeline.mono:12.4f} {line}"
        self._digest.update(text.encode())
        self._lines.append(text)
        if self._trace is not None:
            self._trace(text)

    def obituary(self, error: Exception) -> str:
        """Say what happened, and how to see it again."""
        seed = str(self._scenario.seed)
        if self._scenario.real_attempts:
            seed += " --real"
        if self._dies_after is not None:
            seed += f" --dies-after {self._dies_after} --hours {self._scenario.hours}"
        where = "".join(traceback.format_exception(error)[-4:])
        return (
            f"seed {seed} fails at {self._timeline.mono - self._start_s:.3f} s: "
            f"{type(error).__name__}: {error}\n"
            f"replay: .venv/bin/python -m tests.simulation --seed {seed} --trace\n"
            f"{where}\nlast lines:\n" + "\n".join(self._lines)
        )

    def close(self) -> None:
        if self._life is not None:
            self._life.is_dead = True
            self._life.loop.abandon()


_FATES: dict[str, Callable[[Simulation], None]] = {
    "crashes": Simulation.plan_crash,
    "shutdowns": Simulation.shut_down,
    "outages": Simulation.outage,
    "host_losses": Simulation.lose_host,
    "disk_failures": Simulation.fail_disk,
    "clock_jumps": Simulation.jump_clock,
    "reloads": Simulation.reload,
    "moves": Simulation.move,
    "storms": Simulation.storm,
    "people": Simulation.meddle,
    "orders": Simulation.order,
    "model_outages": Simulation.model_outage,
    "shortages": Simulation.shortage,
    "answers": Simulation.answer,
    "hasty_stops": Simulation.stop_in_haste,
}

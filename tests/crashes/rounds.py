"""One round: a board is worked off while the daemon and its parts are killed at random moments.

Moments and victims are drawn from the seed; what they meet is not, for the daemon, Codex and the
kernel go at their own pace. So a seed that has failed is played several times to see it again.

``site`` is what is worked on, ``watch`` sees the processes, ``verdict`` reads what came of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from symphony.demo.model_server import ModelServer

from .site import Site, make_site, script
from .verdict import agents_of_ledger, faults_at_the_end, is_all_done, workspaces_left
from .watch import Marked, Watch, marked_processes, still_lives

DONE_LIMIT_S = 90.0
AGENT_LIMIT_S = 20.0
LONGEST_WAIT_S = 1.2
PATIENT = 0.75
"""How many of the blows wait until there is an agent."""

EXIT_LIMIT_S = 30.0
LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Size:
    """How much happens in a round.

    Attributes:
        issues: On the board; three are worked on at a time.
        kills: How many blows.
    """

    issues: int
    kills: int


SIZES = {"small": Size(issues=3, kills=3), "large": Size(issues=8, kills=10)}

VICTIMS = {"daemon": 4, "supervisor": 2, "codex": 3, "daemon and supervisor": 2, "all": 1}
"""Who is killed, and how often in comparison. ``all`` is what the kernel does when memory runs
out in the whole group: daemon, supervisor and one agent at once."""


@dataclass(slots=True)
class Report:
    """What a round that held has seen.

    Attributes:
        lifetimes: Of daemons.
        looks: How often the processes were looked at.
        agents: App-servers that were started; more than there are issues where some were cut off.
    """

    seed: int
    seconds: float = 0.0
    lifetimes: int = 0
    looks: int = 0
    agents: int = 0
    kills: Counter[str] = field(default_factory=Counter)


class RoundFailed(AssertionError):
    """Something was lost or doubled or left; the message says how to play the round again."""

    def __init__(self, seed: int, size: str, faults: list[str], log: str) -> None:
        listed = "\n".join(f"  {fault}" for fault in faults)
        super().__init__(
            f"round {seed} ({size}) failed:\n{listed}\n"
            f"again: .venv/bin/python -m tests.crashes --seed {seed} --size {size} --times 5\n"
            f"the end of the daemons' log:\n{log}"
        )


async def run_round(seed: int, size: str, *, codex: Path, keep: bool = False) -> Report:
    """Play one round.

    Args:
        seed: Moments and victims follow from it.
        size: A name of ``SIZES``.
        codex: The native binary.
        keep: Whether the directory stays.

    Raises:
        RoundFailed: What must hold did not.
    """
    root = await asyncio.to_thread(_make_root)
    instance = f"crash-{uuid.uuid4().hex[:12]}"
    names = tuple(f"CR-{number}" for number in range(1, SIZES[size].issues + 1))
    try:
        async with ModelServer(script(names)) as model:
            site = make_site(
                root,
                instance=instance,
                issues=len(names),
                codex=codex,
                base_url=await model.start(),
            )
            return await _Round(site, seed, size).play()
    finally:
        if keep:
            print(f"everything is in {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)


def _make_root() -> Path:
    base = Path(os.environ["SYMPHONY_TEST_CACHE"])
    base.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="crash-", dir=base))


class _Round:
    def __init__(self, site: Site, seed: int, size: str) -> None:
        self._site = site
        self._size = size
        self._rng = random.Random(seed)
        self._daemon: asyncio.subprocess.Process | None = None
        self._report = Report(seed)
        self._began = time.monotonic()

    async def play(self) -> Report:
        """Start, kill and restart, let the rest be done in peace, judge."""
        site, watch = self._site, Watch(self._site.instance)
        faults: list[str] = []
        async with _looking(watch), self._cleared_away():
            await self._start()
            for _ in range(SIZES[self._size].kills):
                await self._moment()
                await self._strike()
            if not await self._until(lambda: is_all_done(site), DONE_LIMIT_S):
                faults.append(f"not all issues were finished within {DONE_LIMIT_S:.0f} s")
            faults += await self._stop()
            if workspaces_left(site):
                # Its removal was cut off; the next start is promised to make up for it.
                await self._start()
                await self._until(lambda: not workspaces_left(site), EXIT_LIMIT_S)
                faults += await self._stop()
        faults += faults_at_the_end(site, watch.together)
        self._report.agents = len(agents_of_ledger(site))
        self._report.looks = watch.looks
        self._report.seconds = time.monotonic() - self._began
        if faults:
            told = site.log.read_text("utf-8", "replace").splitlines()[-60:]
            raise RoundFailed(self._report.seed, self._size, faults, "\n".join(told))
        return self._report

    async def _moment(self) -> None:
        """Wait for the next blow, mostly until there are agents at work to be hit, and then some.

        Without the first part a busy machine would see daemons killed that have done nothing yet.
        """
        is_patient, wait_s = self._rng.random() < PATIENT, self._rng.uniform(0.0, LONGEST_WAIT_S)
        if is_patient:
            await self._until(
                lambda: bool(self._agents()) or is_all_done(self._site), AGENT_LIMIT_S
            )
        await self._until(lambda: False, wait_s)

    def _agents(self) -> list[Marked]:
        """Return the living processes that the ledger has as agents, by their number."""
        known = agents_of_ledger(self._site)
        seen = marked_processes(self._site.instance)
        return sorted((p for p in seen if p.is_main and p.pid in known), key=lambda p: p.pid)

    async def _strike(self) -> None:
        """Kill somebody; where the daemon falls, start another one after a moment or at once."""
        victim = self._rng.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        choice, pause_s = self._rng.random(), self._rng.choice((0.0, 0.0, self._rng.uniform(0, 1)))
        self._report.kills[victim] += 1
        struck: list[Marked] = []
        if victim in ("codex", "all"):
            agents = await asyncio.to_thread(self._agents)
            struck += agents[int(choice * len(agents)) :][:1]
        if victim in ("supervisor", "daemon and supervisor", "all"):
            seen = await asyncio.to_thread(marked_processes, self._site.instance)
            struck += [process for process in seen if process.run_id is None]
        for process in struck:
            if still_lives(process):
                os.kill(process.pid, signal.SIGKILL)
        if victim in ("daemon", "daemon and supervisor", "all"):
            assert self._daemon is not None
            self._daemon.kill()
            await self._daemon.wait()
            await self._until(lambda: False, pause_s)
            await self._start()

    async def _start(self) -> None:
        with self._site.log.open("ab") as log:
            self._daemon = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "symphony", str(self._site.workflow)),
                *("--instance", self._site.instance),
                env=dict(self._site.environ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._report.lifetimes += 1

    async def _stop(self) -> list[str]:
        """Ask the daemon to end; return what was wrong with that."""
        daemon = self._daemon
        assert daemon is not None
        if daemon.returncode is not None:
            return [f"the daemon had ended by itself with status {daemon.returncode}"]
        daemon.terminate()
        try:
            async with asyncio.timeout(EXIT_LIMIT_S):
                status = await daemon.wait()
        except TimeoutError:
            return [f"the daemon did not end within {EXIT_LIMIT_S:.0f} s of SIGTERM"]
        left = await asyncio.to_thread(marked_processes, self._site.instance)
        faults = [f"the daemon ended with status {status}"] if status else []
        return faults + [f"process {process.pid} is left of {process.run_id}" for process in left]

    async def _until(self, look: Callable[[], bool], limit_s: float) -> bool:
        """Look until it is so; False when the time was up, or the daemon had ended by itself."""
        end = time.monotonic() + limit_s
        while not await asyncio.to_thread(look):
            rest = end - time.monotonic()
            if rest <= 0:
                return False
            await asyncio.sleep(min(rest, LOOK_S))
        return True

    @asynccontextmanager
    async def _cleared_away(self) -> AsyncIterator[None]:
        """Leave no process of a round that failed."""
        try:
            yield
        finally:
            if self._daemon is not None and self._daemon.returncode is None:
                self._daemon.kill()
                await self._daemon.wait()
            for process in marked_processes(self._site.instance):
                if still_lives(process):
                    os.kill(process.pid, signal.SIGKILL)


@asynccontextmanager
async def _looking(watch: Watch) -> AsyncIterator[None]:
    task = asyncio.create_task(watch.run(), name="watch")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])

"""``symphony demo``: the whole way on a sample board, then a look at what really happened.

Everything lies in one directory of its own: the sample repository, the board, the state, the
private Codex homes. The daemon is the one that users run, with a WORKFLOW.md as they would write
it. The verdict is read from the repository's log and the board's files, never from the daemon.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codex_app_server.binary import CodexBinary, resolve_binary
from codex_app_server.errors import BinaryNotFound
from codex_app_server.home import provider_config, write_config

from symphony.config.loading import workflow_id
from symphony.config.state_dir import locate
from symphony.demo.model_server import ModelServer
from symphony.demo.project import DemoError
from symphony.demo.repository import DemoSample, IssueReport, add_sixth_issue, make_sample, verify
from symphony.demo.story import MODEL, PROVIDER, demo_script
from symphony.ledger import Ledger
from symphony.service import Daemon, DaemonOptions
from symphony.service.options import read_clock

SCRIPTED_LIMIT_S = 120.0
LIVE_LIMIT_S = 3600.0
_LOOK_INTERVAL_S = 0.1
_LOG_LINES = 30


@dataclass(frozen=True, slots=True)
class _Effort:
    """What an issue cost, from the ledger."""

    runs: int
    turns: int
    tokens: int
    seconds: float


def run_demo(*, keep: bool, live: bool, codex: Path | None, port: int) -> int:
    """Run the demo; return 0 only if every issue reached its expected state.

    Raises:
        SymphonyError: It can't start.
    """
    binary = _find_codex(codex)
    root = _make_root()
    try:
        return asyncio.run(_Demo(root, live=live, codex=binary, port=port).run())
    finally:
        if keep:
            print(f"\nEverything is in {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)


def _find_codex(path: Path | None) -> CodexBinary:
    try:
        return resolve_binary(path)
    except BinaryNotFound as error:
        raise DemoError("codex_not_found", str(error)) from error


def _make_root() -> Path:
    """Make the demo's directory in the cache: Codex's sandbox does not work below /tmp."""
    cache = os.environ.get("XDG_CACHE_HOME")
    base = (Path(cache) if cache else Path.home() / ".cache") / "symphony"
    try:
        base.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="demo-", dir=base))
    except OSError as error:
        raise DemoError(
            "demo_setup_failed",
            f"the demo's directory can't be made in {base}: {error.strerror}; set XDG_CACHE_HOME "
            "to a directory that can be written",
        ) from error


class _Demo:
    def __init__(self, root: Path, *, live: bool, codex: CodexBinary, port: int) -> None:
        self._root = root
        self._live = live
        self._codex = codex
        self._port = port
        self._started = time.monotonic()

    async def run(self) -> int:
        """Run it; return the exit status."""
        sample = await asyncio.to_thread(
            make_sample,
            self._root,
            codex_command=f"{shlex.quote(str(self._codex.path))} app-server",
            live=self._live,
        )
        server = None if self._live else ModelServer(demo_script())
        try:
            environ = self._environ(None if server is None else await server.start())
            daemon = Daemon(
                DaemonOptions(
                    workflow_path=sample.workflow_path,
                    port=self._port,
                    environ=environ,
                    quiet=True,
                    on_ready=self._greet,
                )
            )
            done = await self._drive(daemon, sample)
        finally:
            if server is not None:
                await server.aclose()
        return await self._report(sample, environ, done=done)

    def _environ(self, base_url: str | None) -> dict[str, str]:
        environ = {**os.environ}
        environ["XDG_STATE_HOME"] = str(self._root / "state")
        environ["XDG_CACHE_HOME"] = str(self._root / "cache")
        environ["PATH"] = f"{self._codex.path.parent}{os.pathsep}{environ.get('PATH', '')}"
        if base_url is not None:
            # A login profile can be slow or print to stdout, and the demo needs none.
            home, login = self._root / "home", self._root / "login"
            home.mkdir()
            login.mkdir(mode=0o700)
            write_config(login, provider_config(base_url, model=MODEL, provider=PROVIDER))
            environ["HOME"], environ["CODEX_HOME"] = str(home), str(login)
        return environ

    def _greet(self, url: str | None) -> None:
        if not sys.stdout.isatty():
            print(f"Dashboard: {url}", flush=True)

    async def _drive(self, daemon: Daemon, sample: DemoSample) -> bool:
        """Run the daemon until the board is done; return whether it was in time.

        Raises:
            KeyboardInterrupt: The daemon took a signal to stop before that.
        """
        limit_s = LIVE_LIMIT_S if self._live else SCRIPTED_LIMIT_S
        running = asyncio.create_task(daemon.run(), name="daemon")
        watching = asyncio.create_task(self._watch(sample), name="board")
        try:
            await asyncio.wait(
                (running, watching), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED
            )
            done, stopped = watching.done(), running.done()
        finally:
            watching.cancel()
            daemon.request_stop()
            await asyncio.wait((running, watching))
        # Not by a TaskGroup: the one message of a failed start would be lost in its group.
        running.result()
        if done:
            watching.result()
        elif stopped:
            raise KeyboardInterrupt
        return done

    async def _watch(self, sample: DemoSample) -> None:
        """Look at the board as a person would; add the sixth issue while others are worked on."""
        added = False
        while True:
            reports = await asyncio.to_thread(verify, sample)
            if not added and any(report.ok for report in reports):
                await asyncio.to_thread(add_sixth_issue, sample)
                added = True
            elif added and all(report.ok for report in reports):
                return
            await asyncio.sleep(_LOOK_INTERVAL_S)

    async def _report(self, sample: DemoSample, environ: dict[str, str], *, done: bool) -> int:
        reports = await asyncio.to_thread(verify, sample)
        efforts = await self._efforts(sample, environ, reports)
        print(f"\n{'issue':<9}{'state':<14}{'runs':>5}{'turns':>6}{'tokens':>9}{'time':>8}  commit")
        for report in reports:
            effort = efforts.get(report.identifier, _Effort(0, 0, 0, 0.0))
            verdict = (report.commit or "-")[:10] if report.ok else report.problem
            print(
                f"{report.identifier:<9}{report.state or '-':<14}{effort.runs:>5}{effort.turns:>6}"
                f"{effort.tokens:>9,}{effort.seconds:>7.1f}s  {verdict}"
            )
        failed = [report.identifier for report in reports if not report.ok]
        elapsed = time.monotonic() - self._started
        if failed or not done:
            self._show_log_end(sample, environ)
            print(f"\nNot done after {elapsed:.1f} s: {', '.join(failed) or 'stopped early'}")
            return 1
        print(
            f"\nAll {len(reports)} issues reached their expected state in {elapsed:.1f} s, each "
            "with a commit on a branch of its own."
        )
        return 0

    def _show_log_end(self, sample: DemoSample, environ: dict[str, str]) -> None:
        log = locate(sample.workflow_path, env=environ).logs_root / "log" / "symphony.log"
        if log.exists():
            lines = log.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:]
            print("\nThe end of the daemon's log:", *lines, sep="\n", file=sys.stderr)

    async def _efforts(
        self, sample: DemoSample, environ: dict[str, str], reports: Sequence[IssueReport]
    ) -> dict[str, _Effort]:
        state_dir = locate(sample.workflow_path, env=environ)
        if not state_dir.ledger.exists():
            return {}
        ledger = await Ledger.open(
            state_dir.ledger, workflow_id=workflow_id(sample.workflow_path), clock=read_clock
        )
        try:
            efforts = {}
            for report in reports:
                runs = await ledger.runs(report.identifier)
                efforts[report.identifier] = _Effort(
                    runs=len(runs),
                    turns=sum(run.turns for run in runs),
                    tokens=sum(run.usage.total_tokens for run in runs),
                    seconds=sum(run.seconds for run in runs),
                )
            return efforts
        finally:
            await ledger.aclose()

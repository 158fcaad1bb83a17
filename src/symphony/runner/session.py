"""One session: Codex started in a workspace, a thread on it, and what it may ask us.

The process is started by the host in the workspace and nowhere else (SPEC 9.5). Tools and tracker
are those of the session's start (SPEC 10.5). What Codex asks is answered at once or ends the run
as blocked; it never waits for somebody who is not there.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import codex_app_server as codex

from symphony.config.policies import effective_turn_sandbox_policy
from symphony.config.settings import Settings
from symphony.hosts.base import ExitStatus, Host, HostProcess, ProcessSpec
from symphony.hosts.launch import codex_argv, codex_environment, launch_error
from symphony.model.issue import Issue
from symphony.model.run import Outcome, RunSpec
from symphony.runner.backfill import free_backfill
from symphony.runner.ending import INTERRUPT_S, EndableTurn
from symphony.runner.models import Choice, Models, named
from symphony.runner.narrator import Narrator
from symphony.runner.outcomes import exited, outcome_of
from symphony.runner.requests import RequestPolicy
from symphony.runner.tool_changes import change_of
from symphony.trackers.base import ToolContext, ToolSpec, Tracker

_log = logging.getLogger(__name__)

CLIENT = codex.ClientInfo(name="symphony-orchestrator", version="0.1.0", title="Symphony")

TOOL_LIMIT_S = 300.0
"""A tool call of the agent is answered with a failure after this time."""

PATIENT_START_S = 60.0
"""Where ``codex.read_timeout_ms`` is not set: the limit for initialize and for starting a thread.

SPEC's default of 5 s is for plain requests; a thread's start takes a login shell's time and took
12 s on a busy machine.
"""

MAX_LINE_BYTES = 32 * 1024 * 1024
"""A longer line of one app-server is dropped and reported; the connection goes on."""


_ALIASES_FAILED = "proceeding, even though we could not"
"""So begins what all versions say then; the rest of the sentence differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """What every session of a daemon shares beside the settings.

    Attributes:
        environ: The daemon's own environment.
        codex_home: The private CODEX_HOME.
        temp_root: Where each run's own temp directory is made.
        codex_first: A directory with a native ``codex`` that goes before PATH, or None.
        codex_last: A directory with a native ``codex`` for when PATH has none, or None.
        instance: The daemon's marker, by which a later start finds leftovers.
        home_gate: Lets one app-server set a fresh CODEX_HOME up before others use it.
        redact: Takes registered secrets out of what agents ask of people.
        buffer_budget: What all sessions may hold of unfinished lines, or None for no limit.
    """

    environ: Mapping[str, str]
    codex_home: Path
    temp_root: Path
    codex_first: Path | None
    codex_last: Path | None
    instance: str
    home_gate: HomeGate
    redact: Callable[[str], str] = str
    buffer_budget: codex.BufferBudget | None = None


class HomeGate:
    """Lets the first app-server set the CODEX_HOME up alone.

    Several that start at once in a fresh home race for its databases, and the losers exit. Once one
    has answered the handshake, the gate stands open. Before that, what one that was killed has left
    half done is freed.
    """

    def __init__(self) -> None:
        self._first = asyncio.Lock()
        self._open = False

    @asynccontextmanager
    async def passage(self, codex_home: Path) -> AsyncIterator[None]:
        """Hold this while an app-server starts, until it has answered the handshake."""
        if not self._open:
            async with self._first:
                if not self._open:
                    if await asyncio.to_thread(free_backfill, codex_home):
                        _log.warning("Codex was killed while it filled its index; it begins again")
                    yield
                    self._open = True
                    return
        # Those that have waited for the first go on together, not one behind the other.
        yield


class Session:
    """A live app-server with one thread.

    Attributes:
        thread: None until the thread has been opened.
        resumed: Whether the thread is one of an earlier run.
        knows_issue: Whether it also holds what that run told it about the issue.
        acted: Whether the agent has called a tool of the tracker in the present turn.
        changed: Whether one of these calls may have changed something.
        compactions: How often the thread's history was summarised in this run.
    """

    def __init__(
        self,
        *,
        process: HostProcess,
        requests: RequestPolicy,
        spec: RunSpec,
        workspace: str,
        settings: Settings,
        temp_dir: Path,
        environ: Mapping[str, str],
        buffer_budget: codex.BufferBudget | None = None,
    ) -> None:
        self._buffer_budget = buffer_budget
        self.process = process
        self.requests = requests
        self.connection: codex.Connection | None = None
        self.thread: codex.Thread | None = None
        self.acted = False
        self.changed = False
        self.compactions = 0
        self._models: Models | None = None
        self._turn: codex.Turn | None = None
        self.resumed = False
        self.knows_issue = False
        self._spec = spec
        self._workspace = workspace
        self._settings = settings
        self._temp_dir = temp_dir
        self._environ = environ
        self.sandbox_policy, added = effective_turn_sandbox_policy(
            settings, workspace, [str(temp_dir)]
        )
        if added:
            _log.info(
                "Writable roots were added to codex.turn_sandbox_policy",
                extra={"issue_identifier": spec.issue.identifier, "added": list(added)},
            )

    @property
    def lacks_aliases(self) -> bool:
        """Whether this app-server can't find its own helpers, so that sandboxed commands fail.

        Codex keeps links to itself in its home, and those of servers that have ended are cleared by
        those that start; one that starts at the same moment may lose its own. It says so on stderr
        before it answers anything, and goes on without.
        """
        return _ALIASES_FAILED in self.process.stderr_tail()

    @property
    def blocked(self) -> Outcome | None:
        """Why a person is needed, where Codex asked for one; else None."""
        return self.requests.blocked

    def exit_outcome(self, error: codex.ConnectionClosed) -> Outcome:
        """Return the outcome of an app-server that went away, or was ended for its size."""
        if isinstance(error, codex.BufferLimitExceeded):
            return outcome_of(error)
        stderr = self.process.stderr_tail()
        fault = launch_error(
            ExitStatus(code=error.returncode),
            command=self._settings.codex.command,
            environ=self._environ,
            stderr=stderr,
        )
        return outcome_of(fault) if fault is not None else exited(error, stderr)

    async def connect(self, narrator: Narrator) -> None:
        """Do the handshake.

        Raises:
            CodexError: The app-server refused, was silent or went away.
        """
        settings = self._settings.codex
        request_s = settings.read_timeout_s
        start_s = request_s if "read_timeout_ms" in settings.model_fields_set else PATIENT_START_S
        self.connection = await codex.Connection.open(
            self.process.transport,
            CLIENT,
            request_timeout_s=start_s,
            thread_start_timeout_s=start_s,
            max_line_bytes=MAX_LINE_BYTES,
            buffer_budget=self._buffer_budget,
            handlers=self.requests.handlers(),
            on_events=narrator.batch,
        )

    async def open(
        self, *, tracker: Tracker, narrator: Narrator, issue: Callable[[], Issue]
    ) -> codex.Thread:
        """Open the thread: the earlier one where there is one, else a new one.

        Raises:
            CodexError: The app-server refused, was silent or went away.
        """
        if self.connection is None:
            raise RuntimeError("the session is not connected")
        tools = [self._tool(spec, tracker, narrator, issue) for spec in tracker.agent_tools()]
        self.thread = await self._open_thread(self.connection, tools)
        return self.thread

    async def _open_thread(
        self, connection: codex.Connection, tools: Sequence[codex.Tool]
    ) -> codex.Thread:
        settings = self._settings.codex
        thread = await self._resume_thread(connection, tools)
        if thread is None:
            thread = await connection.start_thread(
                cwd=self._workspace,
                approval_policy=settings.approval_policy or None,
                sandbox=settings.thread_sandbox or None,
                model=named(self._settings, self._spec.issue).model,
                tools=tools,
            )
        for warning in thread.warnings:
            _log.warning("Codex setting translated", extra={"problem": warning})
        return thread

    async def _resume_thread(
        self, connection: codex.Connection, tools: Sequence[codex.Tool]
    ) -> codex.Thread | None:
        """Open the issue's last thread, a copy of it where another process holds it, or nothing.

        A server that does not tell a version of Codex is not asked: it may not know how.
        """
        thread_id, settings = self._spec.thread_id, self._settings.codex
        if thread_id is None or not settings.resume_threads or connection.server.version is None:
            return None
        try:
            try:
                thread = await connection.resume_thread(
                    thread_id,
                    cwd=self._workspace,
                    approval_policy=settings.approval_policy or None,
                    sandbox=settings.thread_sandbox or None,
                    tools=tools,
                )
            except codex.ActiveWriter:
                thread = await connection.fork_thread(thread_id, tools=tools, cwd=self._workspace)
        except (codex.RequestError, codex.UnexpectedReply) as error:
            _log.warning(
                "Thread could not be resumed; beginning a new one",
                extra={"issue_identifier": self._spec.issue.identifier, "error": str(error)},
            )
            return None
        self.resumed = True
        self.knows_issue = _has_a_prompt(thread)
        return thread

    async def name_thread(self, title: str) -> None:
        """Give the thread its title, best effort: it only helps people to find it.

        A title in ``turn/start`` is ignored by Codex. A server that does not tell a version of
        Codex is not asked: it may know four requests and no more.
        """
        if self.connection is None or self.thread is None:
            return
        if self.connection.server.version is None:
            return
        try:
            await self.thread.set_name(title)
        except codex.CodexError as error:
            _log.debug("Thread could not be named", extra={"error": str(error)})

    def _tool(
        self, spec: ToolSpec, tracker: Tracker, narrator: Narrator, issue: Callable[[], Issue]
    ) -> codex.Tool:
        """Offer one tool of the tracker; it runs here, with the tracker of this session's start."""

        async def call(arguments: Any, _: codex.ToolCallContext) -> codex.ToolOutput:
            narrator.call_began(TOOL_LIMIT_S)
            # Before the call: a watched board may be read again before the call has returned.
            self.acted = True
            change = change_of(arguments)
            if change is not None:
                self.changed = True
                # Also before it: a call that is cut off may have changed something all the same.
                narrator.happened("tool_call", {"tool": spec.name, "action": change})
            try:
                context = ToolContext(issue=issue(), run_id=self._spec.run_id)
                result = await tracker.call_tool(spec.name, arguments, context)
            finally:
                narrator.call_ended()
            event = "tool_call_completed" if result.success else "tool_call_failed"
            narrator.happened(event, {"tool": spec.name})
            return codex.ToolOutput.text(result.text, success=result.success)

        return codex.Tool(
            name=spec.name,
            description=spec.description,
            input_schema=spec.input_schema,
            handler=call,
            timeout_s=TOOL_LIMIT_S,
        )

    async def choose_model(self, settings: Settings, issue: Issue) -> Choice:
        """Return what the next turn asks for, by the settings in force now."""
        if self._models is None:
            if self.connection is None:
                raise RuntimeError("the session is not connected")
            self._models = Models(self.connection)
        return await self._models.choose(settings, issue)

    def turn(self, prompt: str, choice: Choice, *, idle_s: float) -> codex.Turn:
        """Return the next turn of the thread, not yet started."""
        if self.thread is None:
            raise RuntimeError("the session has no thread yet")
        self.acted = self.changed = False
        self._turn = self.thread.run(
            prompt,
            cwd=self._workspace,
            approval_policy=self._settings.codex.approval_policy or None,
            sandbox_policy=self.sandbox_policy,
            model=choice.model,
            effort=choice.effort,
            timeouts=codex.TurnTimeouts(idle_s=idle_s, interrupt_s=INTERRUPT_S),
            # The narrator sees every event of the connection; the turn itself needs only its end.
            overflow="drop_deltas",
            keep_items=False,
        )
        return self._turn

    def endable(self, turn: codex.Turn) -> EndableTurn:
        """Return a turn of this session as its watches end it."""
        if self.connection is None:
            raise RuntimeError("the session is not connected")
        return EndableTurn(turn, self.connection, name=self._spec.run_id)

    @property
    def turn_runs(self) -> bool:
        """Whether the last turn was begun and has not ended, although it may be interrupted."""
        turn = self._turn
        return turn is not None and turn.id is not None and not turn.done

    async def compact(self, timeout_s: float) -> bool:
        """Have the thread's history summarised; False where this Codex can't, or it fails.

        A server that does not tell a version of Codex is not asked: it may not know how.
        """
        if self.connection is None or self.thread is None:
            return False
        if self.connection.server.version is None:
            return False
        self.compactions += 1
        try:
            await self.thread.compact(timeout_s=timeout_s)
        except codex.ConnectionClosed:
            raise
        except codex.CodexError as error:
            _log.warning(
                "Thread could not be compacted",
                extra={"issue_identifier": self._spec.issue.identifier, "error": str(error)},
            )
            return False
        return True

    async def close(self, grace_s: float) -> None:
        """End the connection and the process with all of its descendants."""
        try:
            if self.connection is not None:
                await self.connection.aclose()
        finally:
            try:
                await self.process.stop(grace_s)
            finally:
                await asyncio.to_thread(shutil.rmtree, self._temp_dir, ignore_errors=True)


def _has_a_prompt(thread: codex.Thread) -> bool:
    """Say whether a resumed thread holds the prompt that it was begun with.

    An agent that was killed right after it took the prompt may not have written it down. Codex
    then opens the thread all the same, with an empty preview.
    """
    info = thread.info.get("thread")
    return not (isinstance(info, dict) and info.get("preview") == "")


async def launch_session(
    *,
    spec: RunSpec,
    workspace: str,
    settings: Settings,
    tracker: Tracker,
    host: Host,
    options: SessionOptions,
    narrator: Narrator,
) -> Session:
    """Start the app-server in the workspace; ``Session.open`` does the rest.

    Raises:
        HostError: It could not be started.
    """
    temp_dir = options.temp_root / spec.run_id
    await asyncio.to_thread(temp_dir.mkdir, mode=0o700, parents=True, exist_ok=True)
    secrets = (*tracker.secret_environment_names, *settings.secret_environment_names)
    try:
        process = await host.start(
            ProcessSpec(
                run_id=spec.run_id,
                argv=codex_argv(
                    settings.codex.command,
                    secret_names=secrets,
                    first_dir=options.codex_first,
                    fallback_dir=options.codex_last,
                ),
                cwd=workspace,
                env=codex_environment(
                    options.environ,
                    secret_names=secrets,
                    codex_home=options.codex_home,
                    temp_dir=temp_dir,
                ),
            )
        )
    except BaseException:
        # No session will do it: it has no process.
        shutil.rmtree(temp_dir, ignore_errors=True)
        raise
    return Session(
        process=process,
        requests=RequestPolicy(
            settings.codex.approval_policy, narrator, reply=spec.reply, redact=options.redact
        ),
        spec=spec,
        workspace=workspace,
        settings=settings,
        temp_dir=temp_dir,
        environ=options.environ,
        buffer_budget=options.buffer_budget,
    )

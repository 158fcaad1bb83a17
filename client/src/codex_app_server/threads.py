"""A thread of a connection: what all its turns share.

Invariant: at most one turn of ours runs in a thread. The server would merge a second
``turn/start`` into the running turn without a word, so it is refused here (`TurnInProgress`).

Made by `Connection.start_thread`, `resume_thread` and `fork_thread`; makes `Turn`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from codex_app_server import members, values
from codex_app_server.checks import (
    WORDS,
    Checks,
    check_arguments,
    check_values,
    is_mapping,
    is_seconds,
    is_text,
    optional,
    or_none,
)
from codex_app_server.errors import (
    CodexError,
    InvalidArgument,
    RequestTimeout,
    TurnFailed,
    TurnInProgress,
    TurnInterrupted,
)
from codex_app_server.events import Event
from codex_app_server.protocol.turn import Failure, TokenUsage
from codex_app_server.sink import DEFAULT_LIMIT, Overflow
from codex_app_server.thread_options import TurnStartMembers
from codex_app_server.tools import Tool
from codex_app_server.turns import Turn, TurnTimeouts

if TYPE_CHECKING:
    from codex_app_server.connection import Connection
    from codex_app_server.thread_options import ApprovalPolicy, SandboxPolicy

__all__ = ["Thread"]

Input = str | Sequence[Mapping[str, Any]]
RUN_CHECKS: Checks = {
    "cwd": ("a path as text, or None", or_none(is_text)),
    "model": ("a name or None", or_none(is_text)),
    "effort": ("a word such as low, medium or high, or None", or_none(is_text)),
    "output_schema": ("a mapping or None", or_none(is_mapping)),
}
KEPT_WARNINGS = 64
ANY_TURN = ""
COMPACT_S = 600.0
COMPACTION = "(compaction)"


class Thread:
    """A conversation with the agent.

    Attributes:
        id: Of the thread.
        connection: That it lives on.
        info: The reply that opened it, as plain data (``model``, ``cwd``, ``thread``, ...).
        warnings: What was translated in values that the caller gave, one sentence each.
        last_turn: The last turn that was started here, or None.
        usage_total: Last known token total; None for a resumed thread before its first report.
    """

    def __init__(
        self,
        connection: Connection,
        thread_id: str,
        *,
        tools: Sequence[Tool] = (),
        usage_total: TokenUsage | None = None,
    ) -> None:
        self.id = thread_id
        self.connection = connection
        self.info: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.usage_total = usage_total
        self._tools = {(tool.namespace, tool.name): tool for tool in tools}
        self._turn: Turn | None = None
        self._lingering: str | None = None
        self.last_turn: Turn | None = None

    @property
    def turn(self) -> Turn | None:
        """The turn that runs or is being started, or None."""
        return self._turn

    @property
    def is_busy(self) -> bool:
        """Whether a turn runs, is being started, or was given up without a reported end."""
        return self._turn is not None or self._lingering is not None

    def run(
        self,
        input: Input,
        *,
        cwd: str | None = None,
        approval_policy: ApprovalPolicy = None,
        sandbox_policy: SandboxPolicy = None,
        model: str | None = None,
        effort: str | None = None,
        output_schema: Mapping[str, Any] | None = None,
        timeouts: TurnTimeouts | None = None,
        start_timeout_s: float | None = None,
        overflow: Overflow = "coalesce",
        queue_limit: int = DEFAULT_LIMIT,
        keep_items: bool = True,
        **extra: Unpack[TurnStartMembers],
    ) -> Turn:
        """Make a turn; nothing is sent until it is awaited, iterated or started.

        Args:
            input: The prompt, or input items as the protocol has them.
            cwd: Overrides the directory, for this and later turns.
            approval_policy: Overrides; older values are translated, see `warnings`.
            sandbox_policy: Overrides; a mapping with ``type``.
            model: Overrides.
            effort: Reasoning effort.
            output_schema: JSON Schema of the final message.
            timeouts: Limits; by default an hour of silence.
            start_timeout_s: Deadline of ``turn/start``; the connection's by default.
            overflow: What happens to deltas over ``queue_limit`` that nobody reads.
            queue_limit: Events that may wait for the iterator.
            keep_items: Keep completed items for the result.
            extra: Further members of ``turn/start``: see `TurnStartMembers`.

        Raises:
            InvalidArgument: No input, an item that lacks something, a value or a member that no
                server knows, or an argument of the wrong type.
        """
        check_arguments(locals(), RUN_CHECKS)
        version = self.connection.server.version
        params = {
            "threadId": self.id,
            "input": members.input_items(input, version),
            "cwd": cwd,
            "approvalPolicy": approval_policy,
            "sandboxPolicy": sandbox_policy,
            "model": model,
            "effort": effort,
            "outputSchema": output_schema,
            **members.further_members("turn/start", extra, TurnStartMembers, version),
        }
        return Turn(
            self,
            self._translated("turn/start", params),
            timeouts=TurnTimeouts() if timeouts is None else timeouts,
            start_timeout_s=start_timeout_s,
            overflow=overflow,
            limit=queue_limit,
            keep_items=keep_items,
        )

    def _translated(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        warnings: list[str] = []
        sent = values.translate(method, params, self.connection.server, warnings)
        self.note(warnings)
        return sent

    def review(
        self,
        target: Mapping[str, Any] | str = "uncommittedChanges",
        *,
        timeouts: TurnTimeouts | None = None,
        start_timeout_s: float | None = None,
    ) -> Turn:
        """Make a turn that reviews code; nothing is sent until it is awaited or iterated.

        Args:
            target: ``uncommittedChanges``, or a mapping with ``type`` (``baseBranch`` with
                ``branch``, ``commit`` with ``sha``, ``custom`` with ``instructions``).
            timeouts: Limits; by default an hour of silence.
            start_timeout_s: Deadline of ``review/start``; the connection's by default.

        Raises:
            InvalidArgument: A target of an unknown type or that lacks something, or a time limit of
                the wrong type.
        """
        wanted = members.review_target(target, self.connection.server.version)
        return Turn(
            self,
            {"threadId": self.id, "target": wanted, "delivery": "inline"},
            timeouts=TurnTimeouts() if timeouts is None else timeouts,
            start_timeout_s=start_timeout_s,
            overflow="coalesce",
            method="review/start",
        )

    async def attach_turn(
        self,
        *,
        timeouts: TurnTimeouts | None = None,
        overflow: Overflow = "coalesce",
        queue_limit: int = DEFAULT_LIMIT,
        keep_items: bool = True,
    ) -> Turn | None:
        """Return the turn that runs in this thread, also one that was started elsewhere.

        A server that is reached over a WebSocket goes on with a turn when its client is gone.
        Connect again, resume the thread, and this gives that turn back: iterate it, await it,
        steer or interrupt it. It knows what happens from now on: earlier items are not in its
        result (`Connection.threads` lists them), and its usage begins with the last model
        response before the first report.

        Args:
            timeouts: Limits from now on; by default an hour of silence.
            overflow: As for `run`.
            queue_limit: As for `run`.
            keep_items: As for `run`.

        Returns:
            The turn; None where none runs (any more).

        Raises:
            TurnInProgress: The thread is being compacted.
            InvalidArgument: An argument of the wrong type.
            CodexError: As for `Connection.call_raw`.
        """
        if self._turn is not None:
            return await self._turn.start()
        turn = Turn(
            self,
            {},
            timeouts=TurnTimeouts() if timeouts is None else timeouts,
            start_timeout_s=None,
            overflow=overflow,
            limit=queue_limit,
            keep_items=keep_items,
            find=self._running_turn,
        )
        lingering, last = self._lingering, self.last_turn
        try:
            return await turn.start()
        except _NothingRuns:
            self.last_turn = last
            return None
        except CodexError:
            # What kept the thread busy goes on.
            self._lingering, self.last_turn = lingering, last
            raise

    async def _running_turn(self) -> str:
        """Return the id of the turn that the server runs in this thread."""
        params = {"threadId": self.id, "limit": 1, "sortDirection": "desc"}
        params["itemsView"] = "notLoaded"
        reply = await self.connection.call("thread/turns/list", params, idempotent=True)
        turns = reply.get("data") if isinstance(reply, dict) else None
        for turn in turns if isinstance(turns, list) else ():
            if isinstance(turn, dict) and turn.get("status") == "inProgress":
                return str(turn["id"])
        raise _NothingRuns("no turn runs")

    async def compact(self, *, timeout_s: float = COMPACT_S) -> None:
        """Have the model summarise the thread, and wait until that is done.

        Raises:
            TurnInProgress: The thread runs a turn; nothing was sent.
            TurnFailed: The summary failed.
            TurnInterrupted: It was interrupted.
            RequestTimeout: It took too long; it goes on.
            CodexError: As for `Connection.call_raw`.
        """
        if not is_seconds(timeout_s):
            raise InvalidArgument(f"timeout_s={timeout_s!r}: give seconds above 0")
        if self.is_busy:
            turn_id = self._turn.id if self._turn is not None else self._lingering
            raise TurnInProgress(thread_id=self.id, turn_id=turn_id)
        listening = self.connection.subscribe(thread_id=self.id, methods=["turn/completed"])
        self._lingering = COMPACTION  # a turn started now would be merged into it
        try:
            async with asyncio.timeout(timeout_s), listening as events:
                await self.connection.threads.start_compaction(self.id)
                ended = await events.next()
        except TimeoutError:
            raise RequestTimeout("thread/compact/start", timeout_s) from None
        finally:
            self._lingering = None
        turn = ended.data.get("turn") or {}
        if turn.get("status") == "interrupted":
            raise TurnInterrupted(thread_id=self.id, turn_id=ended.turn_id)
        if turn.get("status") != "completed":
            failure = Failure.decode(turn.get("error"))
            raise TurnFailed(
                failure.message,
                thread_id=self.id,
                turn_id=ended.turn_id,
                code=failure.code,
                http_status=failure.http_status,
                details=failure.details,
            )

    async def archive(self) -> None:
        """Move the thread out of the lists; `Connection.threads.unarchive` brings it back.

        Raises:
            RequestError: The server refused.
        """
        await self.connection.threads.archive(self.id)

    async def unsubscribe(self) -> None:
        """Get no events of items and turns any more; `Connection.resume_thread` starts them again.

        Raises:
            TurnInProgress: The thread runs a turn, whose end would never be seen.
            RequestError: The server refused.
        """
        if self._turn is not None:
            raise TurnInProgress(thread_id=self.id, turn_id=self._turn.id)
        await self.connection.threads.unsubscribe(self.id)

    async def set_name(self, name: str) -> None:
        """Name the thread, as lists of threads show it.

        Raises:
            InvalidArgument: No text, or an empty one.
            RequestError: The server refused.
        """
        if not is_text(name):
            raise InvalidArgument(f"name={name!r}: give a text")
        await self.connection.call("thread/name/set", {"threadId": self.id, "name": name})

    def find_tool(self, name: str, namespace: str | None = None) -> Tool | None:
        """Return the tool of that name in that namespace, or None."""
        check_values(name=(name, WORDS), namespace=(namespace, optional(WORDS)))
        return self._tools.get((namespace, name))

    def take_tools(self, other: Thread) -> None:
        """Adopt the tools of another object for the same thread."""
        self._tools.update(other._tools)

    def claim(self, turn: Turn) -> None:
        """Reserve the thread for a turn.

        Raises:
            TurnInProgress: Another turn has it.
        """
        if self._turn is not None and self._turn is not turn:
            raise TurnInProgress(thread_id=self.id, turn_id=self._turn.id)
        if self._lingering is not None and (not turn.is_attached or self._lingering == COMPACTION):
            raise TurnInProgress(thread_id=self.id, turn_id=self._lingering or None)
        self._lingering = None
        self._turn = self.last_turn = turn

    def linger(self, turn_id: str | None) -> None:
        """Keep the thread busy until a turn that is not ours ends; None: whichever runs."""
        self._lingering = turn_id or ANY_TURN

    def release(self, turn: Turn, total: TokenUsage | None, *, ended: bool) -> None:
        """Free the thread after a turn; ``total`` is the last token total that it saw.

        A turn that was given up before the server reported its end (``ended`` false) keeps the
        thread busy until that report comes.
        """
        if self._turn is turn:
            self._turn = None
            self._lingering = None if ended else turn.id
        if total is not None:
            self.usage_total = total

    def deliver(self, events: list[Event]) -> None:
        """Take events that belong to no running turn (late ones, thread-wide ones)."""
        for event in events:
            if event.method == "turn/completed" and self._lingering in (event.turn_id, ANY_TURN):
                self._lingering = None
            elif event.method == "thread/tokenUsage/updated":
                usage = event.data.get("tokenUsage")
                if isinstance(usage, dict):
                    self.usage_total = TokenUsage.decode(usage.get("total"))

    def note(self, warnings: list[str]) -> None:
        """Keep what was translated in values that the caller gave."""
        self.warnings += [warning for warning in warnings if warning not in self.warnings]
        del self.warnings[:-KEPT_WARNINGS]


class _NothingRuns(CodexError):
    """No turn runs in a thread."""

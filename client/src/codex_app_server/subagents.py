"""Sub-agents: the threads that an agent starts, where a thread comes from, waiting for a child.

Invariant: this only looks. Whether to delegate, to how many, in what role, belongs to the prompt.
A sub-agent's thread is announced by items of its parent (``subAgentActivity``), not by
``thread/started`` (seen on 0.169.0 with ``features.multi_agent_v2``).

`codex_app_server.api` makes `SubAgents`; `Turn.children` are the children of one turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from codex_app_server.checks import LIMIT, TEXT, check_values
from codex_app_server.errors import ExperimentalRequired, RequestError
from codex_app_server.protocol import types as t

if TYPE_CHECKING:
    from codex_app_server.connection import Connection

__all__ = ["SubAgentEnd", "SubAgents", "ThreadOrigin", "parse_origin"]

OriginKind = Literal[
    "cli",
    "vscode",
    "exec",
    "appServer",
    "custom",
    "subAgentReview",
    "subAgentCompact",
    "subAgentMemoryConsolidation",
    "subAgentThreadSpawn",
    "subAgentOther",
    "unknown",
]
_SUB_AGENT: dict[str, OriginKind] = {
    "review": "subAgentReview",
    "compact": "subAgentCompact",
    "memory_consolidation": "subAgentMemoryConsolidation",
}
_PLAIN: dict[str, OriginKind] = {
    "cli": "cli",
    "vscode": "vscode",
    "exec": "exec",
    "appServer": "appServer",
    "mcp": "appServer",
}
CHILD_KINDS = ("subAgent", "subAgentThreadSpawn", "subAgentReview", "subAgentOther")
LOOK_S = 1.0
_ENDED = frozenset({"completed", "interrupted", "failed"})


class ThreadOrigin(Struct, frozen=True, kw_only=True):
    """Where a thread comes from, parsed out of its ``source``.

    Attributes:
        kind: Of the source; ``unknown`` for one that this library does not know.
        parent_id: Thread that spawned it, or None.
        depth: Generations below the first thread, or None.
        agent_path: Such as ``/root/helper``, or None.
        nickname: Of the agent, or None.
        role: Of the agent, or None.
        detail: The text of a custom or other source, or None.
    """

    kind: OriginKind
    parent_id: str | None = None
    depth: int | None = None
    agent_path: str | None = None
    nickname: str | None = None
    role: str | None = None
    detail: str | None = None

    @property
    def is_sub_agent(self) -> bool:
        """Whether an agent started it."""
        return self.kind.startswith("subAgent")


class SubAgentEnd(Struct, frozen=True, kw_only=True):
    """How the last turn of a sub-agent ended.

    Attributes:
        thread_id: Of the sub-agent.
        status: ``completed``, ``interrupted``, ``failed``, or ``none`` where it ran no turn.
        final_message: Its last message, or None.
    """

    thread_id: str
    status: str
    final_message: str | None


def parse_origin(source: object) -> ThreadOrigin:
    """Read a thread's ``source``: a name, ``{"custom": ...}`` or ``{"subAgent": ...}``."""
    if isinstance(source, str):
        return ThreadOrigin(kind=_PLAIN.get(source, "unknown"))
    if not isinstance(source, Mapping):
        return ThreadOrigin(kind="unknown")
    if "custom" in source:
        return ThreadOrigin(kind="custom", detail=_text(source["custom"]))
    inner = source.get("subAgent", source.get("sub_agent"))
    if isinstance(inner, str):
        return ThreadOrigin(kind=_SUB_AGENT.get(inner, "subAgentOther"), detail=inner)
    if not isinstance(inner, Mapping):
        return ThreadOrigin(kind="unknown")
    spawn = inner.get("thread_spawn", inner.get("threadSpawn"))
    if isinstance(spawn, Mapping):
        depth = spawn.get("depth")
        return ThreadOrigin(
            kind="subAgentThreadSpawn",
            parent_id=_text(spawn.get("parent_thread_id")),
            depth=depth if isinstance(depth, int) else None,
            agent_path=_text(spawn.get("agent_path")),
            nickname=_text(spawn.get("agent_nickname")),
            role=_text(spawn.get("agent_role")),
        )
    return ThreadOrigin(kind="subAgentOther", detail=_text(inner.get("other")))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


class SubAgents:
    """The sub-agents of one thread. Made by `Connection.subagents`.

    Attributes:
        parent_id: The thread.
    """

    def __init__(self, connection: Connection, parent_id: str) -> None:
        self.parent_id = parent_id
        self._connection = connection

    async def list(self, *, timeout_s: float | None = None) -> list[t.Thread]:
        """Return the threads that this one spawned, whether they still run or not.

        Asks the server for them by parent where the connection is experimental and the server
        knows how, and else looks through all threads of sub-agents.

        Raises:
            CodexError: As for `Connection.call_raw`.
        """
        threads = self._connection.threads
        if self._connection.server.experimental:
            try:
                asked = threads.iterate(parent_thread_id=self.parent_id, timeout_s=timeout_s)
                found = [one async for one in asked]
            except ExperimentalRequired:
                found = []
            # A server that ignores the member would return them all.
            mine = [one for one in found if self._is_mine(one)]
            if mine:
                return mine
        every = threads.iterate(source_kinds=list(CHILD_KINDS), timeout_s=timeout_s)
        return [one async for one in every if self._is_mine(one)]

    def _is_mine(self, thread: t.Thread) -> bool:
        return self.parent_id in (
            thread.parent_thread_id,
            parse_origin(thread.source).parent_id,
        )

    async def read(self, child_id: str, *, timeout_s: float | None = None) -> t.Thread:
        """Return what the server knows of a child, without its turns.

        Raises:
            CodexError: As for `Connection.call_raw`.
        """
        check_values(child_id=(child_id, TEXT), timeout_s=(timeout_s, LIMIT))
        answer = await self._connection.threads.read(child_id, timeout_s=timeout_s)
        return answer.thread or t.Thread(id=child_id)

    async def wait(self, child_id: str, *, timeout_s: float | None = None) -> SubAgentEnd:
        """Wait until a child runs no turn, and return how its last one ended.

        Args:
            child_id: From `list`, `Turn.children` or a ``subAgentActivity`` item.
            timeout_s: Limit; None waits for ever.

        Raises:
            TimeoutError: It still runs.
            CodexError: As for `Connection.call_raw`.
        """
        check_values(child_id=(child_id, TEXT), timeout_s=(timeout_s, LIMIT))
        methods = ["turn/completed", "thread/status/changed", "thread/closed"]
        async with asyncio.timeout(timeout_s):
            with_events = self._connection.subscribe(
                thread_id=child_id, methods=methods, limit=64, drop="drop_oldest"
            )
            async with with_events as events:
                while (end := await self._end(child_id)) is None:
                    try:
                        # Events may go to another connection only, so look now and then.
                        await events.next(LOOK_S)
                    except TimeoutError:
                        continue
                return end

    async def _end(self, child_id: str) -> SubAgentEnd | None:
        thread = await self.read(child_id)
        if isinstance(thread.status, t.ActiveThreadStatus):
            return None
        try:
            page = await self._connection.threads.list_turns(
                child_id, limit=1, sort_direction="desc"
            )
            turns = page.data or []
        except RequestError:
            answer = await self._connection.threads.read(child_id, include_turns=True)
            turns = (answer.thread.turns or [])[-1:] if answer.thread else []
        if not turns:
            return SubAgentEnd(thread_id=child_id, status="none", final_message=None)
        last = turns[0]
        if last.status not in _ENDED:
            return None
        return SubAgentEnd(
            thread_id=child_id, status=str(last.status), final_message=_last_message(last.items)
        )


def _last_message(items: Any) -> str | None:
    texts = [item.text for item in items if isinstance(item, t.AgentMessageThreadItem)]
    return texts[-1] if texts else None

"""Opening threads: start, resume, fork; a part of `codex_app_server.connection.Connection`.

Invariants: few are opened at once, for each runs a login shell; a thread that is being resumed is
known before the reply, since requests that wait are offered again at once; a thread that is open
already keeps its object. Values of older versions are translated before they are sent.

The routing table is `codex_app_server.routing`'s; the results are `codex_app_server.threads`'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack, cast

from codex_app_server import values
from codex_app_server.checks import (
    Checks,
    check_options,
    is_bool,
    is_mapping,
    is_seconds,
    is_text,
    or_none,
)
from codex_app_server.errors import ActiveWriter, RequestTimeout, UnexpectedReply
from codex_app_server.members import further_members
from codex_app_server.protocol.turn import TokenUsage
from codex_app_server.routing import Router
from codex_app_server.thread_options import (
    ApprovalPolicy,
    ThreadForkMembers,
    ThreadResumeMembers,
    ThreadStartMembers,
)
from codex_app_server.threads import Thread
from codex_app_server.tools import TOOLS, Tool, tool_specs

if TYPE_CHECKING:
    from codex_app_server.connection import Connection

__all__ = ["ThreadOpening"]

THREAD_STARTS = 4
SLOW_SHELL = (
    "each opening of a thread runs the user's login shell, so a slow profile delays it; mend the "
    "profile, or raise timeout_s here, thread_start_timeout_s of the connection or start_timeout_s "
    "of the session"
)
OPENING_CHECKS: Checks = {
    "thread_id": ("a thread's id", is_text),
    "cwd": ("a path as text, or None", or_none(is_text)),
    "model": ("a name or None", or_none(is_text)),
    "tools": TOOLS,
    "config": ("a mapping with dotted keys, or None", or_none(is_mapping)),
    "ephemeral": ("True, False or None", or_none(is_bool)),
    "developer_instructions": (
        "a text or None",
        or_none(lambda value: isinstance(value, str)),
    ),
    "exclude_turns": ("True or False", is_bool),
    "fork_when_held": ("True or False", is_bool),
    "timeout_s": ("seconds above 0, or None", or_none(is_seconds)),
}


class ThreadOpening:
    """The methods of a connection that return threads; a base of `Connection`."""

    _router: Router
    _thread_start_timeout_s: float

    def _init_opening(self, timeout_s: float) -> None:
        self._thread_start_timeout_s = timeout_s
        self._thread_starts = asyncio.Semaphore(THREAD_STARTS)

    @property
    def _owner(self) -> Connection:
        return cast("Connection", self)

    async def start_thread(
        self,
        *,
        cwd: str | None = None,
        approval_policy: ApprovalPolicy = None,
        sandbox: str | None = None,
        model: str | None = None,
        tools: Sequence[Tool] = (),
        config: Mapping[str, Any] | None = None,
        ephemeral: bool | None = None,
        developer_instructions: str | None = None,
        timeout_s: float | None = None,
        **extra: Unpack[ThreadStartMembers],
    ) -> Thread:
        """Start a thread.

        Args:
            cwd: Absolute directory of the agent.
            approval_policy: ``never``, ``on-request``, ``untrusted`` or ``{"granular": {...}}``;
                older values are translated, see `Thread.warnings`.
            sandbox: ``read-only``, ``workspace-write`` or ``danger-full-access``.
            model: The server's by default.
            tools: What the agent may call on our side; kept with the thread.
            config: Overrides of config.toml, with dotted keys.
            ephemeral: Leave no record on disk.
            developer_instructions: Added to the agent's instructions.
            timeout_s: The connection's ``thread_start_timeout_s`` by default.
            extra: Further members of ``thread/start``: see `ThreadStartMembers`.

        Raises:
            InvalidArgument: An argument of the wrong type, or an unknown one; nothing was sent.
            CodexError: As for `call_raw`; `UnexpectedReply` without a thread id.
        """
        _check(
            cwd=cwd,
            model=model,
            tools=tools,
            config=config,
            ephemeral=ephemeral,
            developer_instructions=developer_instructions,
            timeout_s=timeout_s,
        )
        params = {
            "cwd": cwd,
            "approvalPolicy": approval_policy,
            "sandbox": sandbox,
            "model": model,
            "dynamicTools": tool_specs(tools) or None,
            "config": config,
            "ephemeral": ephemeral,
            "developerInstructions": developer_instructions,
            **self._further("thread/start", extra, ThreadStartMembers),
        }
        opened = await self._open_thread("thread/start", params, tools, timeout_s)
        opened.usage_total = TokenUsage()
        return opened

    async def resume_thread(
        self,
        thread_id: str,
        *,
        cwd: str | None = None,
        approval_policy: ApprovalPolicy = None,
        sandbox: str | None = None,
        model: str | None = None,
        tools: Sequence[Tool] = (),
        config: Mapping[str, Any] | None = None,
        developer_instructions: str | None = None,
        exclude_turns: bool = True,
        fork_when_held: bool = False,
        timeout_s: float | None = None,
        **extra: Unpack[ThreadResumeMembers],
    ) -> Thread:
        """Open a thread that exists; its tools persist, give their handlers again.

        A thread that this server has loaded already keeps its directory whatever ``cwd`` says.
        Where the server outlived an earlier connection a turn may still run: `Thread.attach_turn`.

        With ``fork_when_held``, a copy with an id of its own is opened where another process
        writes the thread. The other arguments are those of `start_thread`.

        Raises:
            ActiveWriter: Another process has it open; fork it, or end that process.
            CodexError: As for `start_thread`.
        """
        _check(
            thread_id=thread_id,
            cwd=cwd,
            model=model,
            tools=tools,
            config=config,
            developer_instructions=developer_instructions,
            exclude_turns=exclude_turns,
            fork_when_held=fork_when_held,
            timeout_s=timeout_s,
        )
        params = {
            "threadId": thread_id,
            "cwd": cwd,
            "approvalPolicy": approval_policy,
            "sandbox": sandbox,
            "model": model,
            "config": config,
            "developerInstructions": developer_instructions,
            "excludeTurns": exclude_turns or None,
            **self._further("thread/resume", extra, ThreadResumeMembers),
        }
        try:
            return await self._resume_known(thread_id, params, tools, timeout_s)
        except ActiveWriter:
            if not fork_when_held:
                raise
        return await self._open_thread("thread/fork", params, tools, timeout_s)

    async def _resume_known(
        self,
        thread_id: str,
        params: Mapping[str, Any],
        tools: Sequence[Tool],
        timeout_s: float | None,
    ) -> Thread:
        # Known before the reply: requests that wait are offered again at once.
        known = self._router.threads.get(thread_id)
        if known is None:
            self._router.threads[thread_id] = Thread(self._owner, thread_id, tools=tools)
        try:
            return await self._open_thread("thread/resume", params, tools, timeout_s)
        except BaseException:
            if known is None:
                self._router.threads.pop(thread_id, None)
            raise

    async def fork_thread(
        self,
        thread_id: str,
        *,
        cwd: str | None = None,
        approval_policy: ApprovalPolicy = None,
        sandbox: str | None = None,
        model: str | None = None,
        tools: Sequence[Tool] = (),
        config: Mapping[str, Any] | None = None,
        ephemeral: bool | None = None,
        developer_instructions: str | None = None,
        exclude_turns: bool = True,
        timeout_s: float | None = None,
        **extra: Unpack[ThreadForkMembers],
    ) -> Thread:
        """Open a copy of a thread; works while another process writes the original.

        The arguments are those of `start_thread`; what is left out is as the original has it.
        ``extra`` may have what `ThreadForkMembers` has.

        Raises:
            CodexError: As for `start_thread`.
        """
        _check(
            thread_id=thread_id,
            cwd=cwd,
            model=model,
            tools=tools,
            config=config,
            ephemeral=ephemeral,
            developer_instructions=developer_instructions,
            exclude_turns=exclude_turns,
            timeout_s=timeout_s,
        )
        params = {
            "threadId": thread_id,
            "cwd": cwd,
            "approvalPolicy": approval_policy,
            "sandbox": sandbox,
            "model": model,
            "config": config,
            "ephemeral": ephemeral,
            "developerInstructions": developer_instructions,
            "excludeTurns": exclude_turns or None,
            **self._further("thread/fork", extra, ThreadForkMembers),
        }
        return await self._open_thread("thread/fork", params, tools, timeout_s)

    def _further(self, method: str, extra: Mapping[str, Any], known: type) -> dict[str, Any]:
        return further_members(method, extra, known, self._owner.server.version)

    async def _open_thread(
        self,
        method: str,
        params: Mapping[str, Any],
        tools: Sequence[Tool],
        timeout_s: float | None,
    ) -> Thread:
        timeout_s = self._thread_start_timeout_s if timeout_s is None else timeout_s
        warnings: list[str] = []
        present = values.translate(method, params, self._owner.server, warnings)
        try:
            async with asyncio.timeout(timeout_s):
                await self._thread_starts.acquire()
        except TimeoutError:
            raise RequestTimeout(method, timeout_s, SLOW_SHELL) from None
        try:
            reply = await self._owner.call(method, present, timeout_s=timeout_s)
        except RequestTimeout as error:
            raise RequestTimeout(method, error.timeout_s, SLOW_SHELL) from None
        finally:
            self._thread_starts.release()
        thread = reply.get("thread") if isinstance(reply, dict) else None
        thread_id = thread.get("id") if isinstance(thread, dict) else None
        if not isinstance(thread_id, str) or not thread_id:
            raise UnexpectedReply(method, "no thread.id")
        opened = self._router.adopt(Thread(self._owner, thread_id, tools=tools), reply)
        opened.note(warnings)
        return opened


def _check(**options: Any) -> None:
    check_options(options, OPENING_CHECKS)

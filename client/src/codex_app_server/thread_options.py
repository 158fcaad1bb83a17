"""The options of threads and turns as type checkers and editors see them.

Invariant: the members below are those of the pinned schema, in ``snake_case``, apart from those
that the methods take under names of their own; a test compares them. What they mean is in the
methods' docstrings; `codex_app_server.members` checks the values.

Used by `codex_app_server.opening`, `threads`, `launch` and `supervisor`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from codex_app_server.sink import Overflow
from codex_app_server.tools import Tool
from codex_app_server.turns import TurnTimeouts

__all__ = [
    "ThreadForkMembers",
    "ThreadForkOptions",
    "ThreadResumeMembers",
    "ThreadResumeOptions",
    "ThreadStartMembers",
    "ThreadStartOptions",
    "TurnAttachOptions",
    "TurnRunOptions",
    "TurnStartMembers",
]

Object = Mapping[str, Any]
ApprovalPolicy = str | Object | None
SandboxPolicy = str | Object | None


class _SharedMembers(TypedDict, total=False):
    """What starts, resumes and forks have in common.

    Attributes:
        approvals_reviewer: Who is asked: ``user``, ``auto_review`` or ``guardian_subagent``.
        base_instructions: Instead of the agent's own.
        model_provider: A provider of the configuration.
        permissions: A named permission profile (experimental).
        runtime_workspace_roots: More roots of the workspace (experimental).
        service_tier: Of the model.
    """

    approvals_reviewer: str | None
    base_instructions: str | None
    model_provider: str | None
    permissions: str | None
    runtime_workspace_roots: Sequence[str] | None
    service_tier: str | None


class ThreadStartMembers(_SharedMembers, total=False):
    """Further members of ``thread/start``.

    Attributes:
        allow_provider_model_fallback: Take another model where the provider lacks this one.
        daybreak_enabled: As the schema has it.
        environments: Where commands run (experimental).
        experimental_raw_events: Send raw response items (experimental).
        history_mode: ``legacy`` or ``paginated`` (experimental).
        mock_experimental_field: The server's own test.
        multi_agent_mode: ``explicitRequestOnly``, ``proactive`` or ``{"custom": ...}``.
        personality: ``none``, ``friendly`` or ``pragmatic``.
        project_id: Of a project (experimental).
        selected_capability_roots: As the schema has it (experimental).
        service_name: Of the program that starts it.
        session_start_source: ``startup`` or ``clear``.
        thread_source: Where the thread comes from.
    """

    allow_provider_model_fallback: bool
    daybreak_enabled: bool | None
    environments: Sequence[Object] | None
    experimental_raw_events: bool
    history_mode: str | None
    mock_experimental_field: str | None
    multi_agent_mode: str | Object | None
    personality: str | None
    project_id: str | None
    selected_capability_roots: Sequence[Object] | None
    service_name: str | None
    session_start_source: str | None
    thread_source: str | None


class ThreadResumeMembers(_SharedMembers, total=False):
    """Further members of ``thread/resume``.

    Attributes:
        history: Response items instead of the recorded ones (experimental).
        initial_turns_page: Turns to be sent at once (experimental).
        path: Of the recording (experimental).
        personality: ``none``, ``friendly`` or ``pragmatic``.
    """

    history: Sequence[Object] | None
    initial_turns_page: Object | None
    path: str | None
    personality: str | None


class ThreadForkMembers(_SharedMembers, total=False):
    """Further members of ``thread/fork``.

    Attributes:
        attach_to_source: As the schema has it.
        before_turn_id: Leave this turn and all later ones out (experimental).
        defer_goal_continuation: Do not go on with the goal by itself.
        experimental_disable_prediction_mcp: As the schema has it.
        experimental_prediction_mode: As the schema has it.
        last_turn_id: Leave all later turns out.
        path: Of the recording (experimental).
        thread_source: Where the thread comes from.
    """

    attach_to_source: bool
    before_turn_id: str | None
    defer_goal_continuation: bool
    experimental_disable_prediction_mcp: bool
    experimental_prediction_mode: bool
    last_turn_id: str | None
    path: str | None
    thread_source: str | None


class TurnStartMembers(TypedDict, total=False):
    """Further members of ``turn/start``.

    Attributes:
        additional_context: Texts for the model beside the prompt (experimental).
        approvals_reviewer: Who is asked: ``user``, ``auto_review`` or ``guardian_subagent``.
        client_user_message_id: Comes back with the prompt's item.
        collaboration_mode: A preset (experimental).
        cyber_access_program: As the schema has it.
        disabled_plugin_ids: Plugins that the turn does without.
        environments: Where commands run (experimental).
        multi_agent_mode: ``explicitRequestOnly``, ``proactive`` or ``{"custom": ...}``.
        parent_turn_id: As the schema has it.
        permissions: A named permission profile (experimental).
        personality: ``none``, ``friendly`` or ``pragmatic``.
        responsesapi_client_metadata: Sent along to the model's provider (experimental).
        responsesapi_client_metadata_patch: Changes of that.
        root_turn_id: As the schema has it.
        runtime_workspace_roots: More roots of the workspace (experimental).
        service_tier: Of the model, from now on.
        service_tier_for_turn: Of the model, for this turn.
        summary: Of the reasoning: ``auto``, ``concise``, ``detailed`` or ``none``.
        tool_output: As the schema has it.
        turn_trigger: As the schema has it.
    """

    additional_context: Object | None
    approvals_reviewer: str | None
    client_user_message_id: str | None
    collaboration_mode: Object | None
    cyber_access_program: str | None
    disabled_plugin_ids: Sequence[str] | None
    environments: Sequence[Object] | None
    multi_agent_mode: str | Object | None
    parent_turn_id: str | None
    permissions: str | None
    personality: str | None
    responsesapi_client_metadata: Mapping[str, str] | None
    responsesapi_client_metadata_patch: Mapping[str, str] | None
    root_turn_id: str | None
    runtime_workspace_roots: Sequence[str] | None
    service_tier: str | None
    service_tier_for_turn: str | None
    summary: str | None
    tool_output: Object | None
    turn_trigger: str | None


class _Opening(TypedDict, total=False):
    approval_policy: ApprovalPolicy
    sandbox: str | None
    model: str | None
    tools: Sequence[Tool]
    config: Object | None
    developer_instructions: str | None
    timeout_s: float | None


class ThreadStartOptions(_Opening, ThreadStartMembers, total=False):
    """Options of `Codex.start_thread` beside the directory; see `Connection.start_thread`."""

    ephemeral: bool | None


class ThreadResumeOptions(_Opening, ThreadResumeMembers, total=False):
    """Options of `Codex.resume_thread` beside the directory; see `Connection.resume_thread`."""

    exclude_turns: bool
    fork_when_held: bool


class ThreadForkOptions(_Opening, ThreadForkMembers, total=False):
    """Options of `Codex.fork_thread` beside the directory; see `Connection.fork_thread`."""

    ephemeral: bool | None
    exclude_turns: bool


class TurnAttachOptions(TypedDict, total=False):
    """Options of `SupervisedThread.attach_turn`; see `Thread.attach_turn`."""

    timeouts: TurnTimeouts | None
    overflow: Overflow
    queue_limit: int
    keep_items: bool


class TurnRunOptions(TurnAttachOptions, TurnStartMembers, total=False):
    """Options of `SupervisedThread.run` and `turn`; see `Thread.run`."""

    cwd: str | None
    approval_policy: ApprovalPolicy
    sandbox_policy: SandboxPolicy
    model: str | None
    effort: str | None
    output_schema: Object | None
    start_timeout_s: float | None

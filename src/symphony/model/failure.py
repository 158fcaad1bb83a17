"""Classes of failures: which failed runs speak of a fault that all issues share.

The breaker counts by these classes. A class is drawn from Codex's code and from our category alone,
never from a text. What is the issue's own affair (a full context window, a question, a limit of its
budget) and what we did not foresee has no class and counts for nothing.
"""

from __future__ import annotations

from enum import StrEnum

from .run import Outcome, OutcomeKind


class FailureClass(StrEnum):
    """What has failed, by what would have to be mended."""

    UNAUTHORIZED = "unauthorized"
    MODEL = "model"
    REQUEST = "request"
    AGENT = "agent"
    SANDBOX = "sandbox"
    HOOK = "hook"
    WORKSPACE = "workspace"
    HOST = "host"
    PROMPT = "prompt"
    INTERNAL = "internal"
    UNCLEAR = "unclear"

    @property
    def sentence(self) -> str:
        """What failures of this class have in common."""
        return _SENTENCES[self]


_SENTENCES = {
    FailureClass.UNAUTHORIZED: "the model's provider refuses the login",
    FailureClass.MODEL: "the model's provider fails or can't be reached",
    FailureClass.REQUEST: "the model's provider refuses the request (the model's name?)",
    FailureClass.AGENT: "the agent's process does not start, answer or stay",
    FailureClass.SANDBOX: "the agent's sandbox fails",
    FailureClass.HOOK: "a hook fails or takes too long",
    FailureClass.WORKSPACE: "workspaces can't be prepared",
    FailureClass.HOST: "hosts are lost",
    FailureClass.PROMPT: "the prompt can't be rendered",
    FailureClass.INTERNAL: "Symphony itself has a fault",
    FailureClass.UNCLEAR: "turns fail, stall or time out without a telling cause",
}

_BY_CODE = {
    "unauthorized": FailureClass.UNAUTHORIZED,
    "httpconnectionfailed": FailureClass.MODEL,
    "responsestreamconnectionfailed": FailureClass.MODEL,
    "responsestreamdisconnected": FailureClass.MODEL,
    "responsetoomanyfailedattempts": FailureClass.MODEL,
    "serveroverloaded": FailureClass.MODEL,
    "internalservererror": FailureClass.MODEL,
    "badrequest": FailureClass.REQUEST,
    "modelnotfound": FailureClass.REQUEST,
    "sandboxerror": FailureClass.SANDBOX,
    "other": FailureClass.UNCLEAR,
}

_BY_CATEGORY = {
    "codex_not_found": FailureClass.AGENT,
    "host_start_failed": FailureClass.AGENT,
    "port_exit": FailureClass.AGENT,
    "response_timeout": FailureClass.AGENT,
    "response_error": FailureClass.AGENT,
    "codex_error": FailureClass.AGENT,
    "workspace_hook_failed": FailureClass.HOOK,
    "workspace_hook_timeout": FailureClass.HOOK,
    "invalid_workspace_cwd": FailureClass.WORKSPACE,
    "host_lost": FailureClass.HOST,
    "template_parse_error": FailureClass.PROMPT,
    "template_render_error": FailureClass.PROMPT,
    "internal_error": FailureClass.INTERNAL,
    "turn_failed": FailureClass.UNCLEAR,
    "turn_timeout": FailureClass.UNCLEAR,
    "stalled": FailureClass.UNCLEAR,
}

_FAILED = frozenset(
    {OutcomeKind.FAILED, OutcomeKind.TIMED_OUT, OutcomeKind.STALLED, OutcomeKind.HOST_LOST}
)


def failure_class(outcome: Outcome) -> FailureClass | None:
    """Return the class of a failed run, or None where it says nothing of other issues."""
    if outcome.kind not in _FAILED:
        return None
    if outcome.code is not None:
        # Codex writes serverOverloaded, older versions server_overloaded.
        return _BY_CODE.get(outcome.code.replace("_", "").lower())
    category = outcome.category or ""
    found = _BY_CATEGORY.get(category)
    if found is None and category.startswith("workspace_"):
        return FailureClass.WORKSPACE
    return found

"""What Codex may ask during a run, and how it is answered without a person.

``codex.approval_policy: never`` means that everything asked is granted for the session, as in the
reference. A ``granular`` policy that allows nothing, the default, means that what is asked all the
same is refused and the turn goes on: Codex asks about ``rm -f``, for example, whatever the policy.
Any other policy lets Codex ask, and since nobody is there to answer, a request for approval ends
the turn and leaves the issue blocked with the question as its reason, as questions and MCP forms
do under every policy. Nothing waits for ever, nothing is granted by accident.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import codex_app_server as codex
from codex_app_server import RequestKind, ServerRequestInfo, ServerRequestRecord
from codex_app_server.approvals import Policy

from symphony.model.question import Decision, Question, Reply
from symphony.model.run import Outcome, OutcomeKind
from symphony.runner.ending import EndableTurn
from symphony.runner.narrator import Narrator
from symphony.runner.questions import Redact, question_of

_MCP_QUESTION = "mcp_tool_call_approval_"
_PREFERRED_LABELS = ("Approve this Session", "Approve Once")
_APPROVING = ("approve", "allow")


class RequestPolicy:
    """Answers the requests of one session.

    Args:
        approval_policy: As given to Codex; only the string ``never`` grants.
        narrator: Told what was asked and answered.
        reply: An operator's answer to what an earlier run asked: exactly that is approved once, or
            refused without a further question.
        redact: Takes registered secrets out of what is asked.
    """

    def __init__(
        self,
        approval_policy: Any,
        narrator: Narrator,
        *,
        reply: Reply | None = None,
        redact: Redact = str,
    ) -> None:
        self._grants = approval_policy == "never"
        self._refuses = refuses_all(approval_policy)
        self._narrator = narrator
        self._decided = reply if reply is not None and reply.decision is not None else None
        self._redact = redact
        self._asked = asyncio.Event()
        self.blocked: Outcome | None = None

    def handlers(self) -> codex.ServerRequestHandlers:
        """Return the policies for the connection."""
        approve: Policy = self._need_approval
        if self._grants:
            approve = "accept_for_session"
        elif self._refuses:
            approve = "decline"
        return codex.ServerRequestHandlers(
            command=approve,
            file_change=approve,
            permissions=self._need_approval if approve is self._need_approval else "decline",
            mcp_tool=approve,
            user_input=self._answer_questions,
            elicitation=self._need_input,
            on_answered=self._answered,
        )

    async def interrupt_when_blocked(self, turn: EndableTurn) -> None:
        """Wait until a person is needed, then interrupt the turn."""
        await self._asked.wait()
        await turn.interrupt()

    async def _need_approval(self, request: ServerRequestInfo) -> str:
        question = self._question(request)
        decision = self._decision_on(question)
        if decision is not None:
            return decision
        what = {
            RequestKind.COMMAND: "run a command",
            RequestKind.LEGACY_COMMAND: "run a command",
            RequestKind.FILE_CHANGE: "change files",
            RequestKind.LEGACY_FILE_CHANGE: "change files",
            RequestKind.PERMISSIONS: "get further permissions",
            RequestKind.MCP_TOOL: "call an MCP tool",
        }.get(request.kind, "act")
        self._block(
            OutcomeKind.APPROVAL_REQUIRED,
            "approval_required",
            f"codex turn requires approval to {what}{_detail(request.params)}",
            question,
        )
        return "decline" if request.kind is RequestKind.PERMISSIONS else "cancel"

    async def _need_input(self, request: ServerRequestInfo) -> str:
        asked = request.params.get("message")
        self._block(
            OutcomeKind.INPUT_REQUIRED,
            "turn_input_required",
            "codex MCP elicitation requires operator input" + (f": {asked}" if asked else ""),
            self._question(request),
        )
        return "cancel"

    async def _answer_questions(self, request: ServerRequestInfo) -> Mapping[str, Any] | None:
        questions = request.params.get("questions")
        answers = approvals_of(questions) if self._grants else None
        if answers is not None:
            return answers
        self._block(
            OutcomeKind.INPUT_REQUIRED,
            "turn_input_required",
            f"codex turn requires operator input{_question_text(questions)}",
            self._question(request),
        )
        return None

    def _question(self, request: ServerRequestInfo) -> Question:
        return question_of(request, self._narrator.item(request.item_id), self._redact)

    def _decision_on(self, question: Question) -> str | None:
        """Return what an operator has said to exactly this: an approval counts once."""
        decided = self._decided
        if decided is None or decided.question is None or not question.subject:
            return None
        if decided.question.subject != question.subject:
            return None
        if decided.decision is Decision.DECLINE:
            return "decline"
        self._decided = None
        self._narrator.happened("approval_granted", {"by": decided.by, "what": question.detail})
        return "accept"

    def _block(self, kind: OutcomeKind, category: str, message: str, question: Question) -> None:
        if self.blocked is None:
            self.blocked = Outcome(
                kind=kind,
                category=category,
                message=self._redact(message)[:600],
                retryable=False,
                question=question,
            )
        self._asked.set()

    def _answered(self, record: ServerRequestRecord) -> None:
        request = record.request
        if request.kind is RequestKind.TOOL_CALL:
            return
        granted = self._grants and record.outcome is codex.RequestOutcome.ANSWERED
        event = (
            "approval_auto_approved" if granted and self.blocked is None else "approval_answered"
        )
        self._narrator.happened(
            event,
            {
                "method": request.method,
                "decision": dict(record.answer) if record.answer is not None else None,
                "outcome": record.outcome.value,
            },
        )


def refuses_all(approval_policy: Any) -> bool:
    """Tell whether a policy is ``granular`` with no flag set: nothing may be asked."""
    flags = approval_policy.get("granular") if isinstance(approval_policy, Mapping) else None
    return isinstance(flags, Mapping) and not any(flags.values())


def approvals_of(questions: Any) -> dict[str, str] | None:
    """Return the approving answer to each question, or None where one is no MCP approval.

    An approval prompt is a question whose id begins with ``mcp_tool_call_approval_`` and that has
    options; the session-wide option is preferred, then the single one, then the first label that
    begins with "approve" or "allow".
    """
    if not isinstance(questions, list) or not questions:
        return None
    answers: dict[str, str] = {}
    for question in questions:
        label = _approving_label(question)
        if label is None:
            return None
        answers[question["id"]] = label
    return answers


def _approving_label(question: Any) -> str | None:
    if not isinstance(question, Mapping):
        return None
    name, options = question.get("id"), question.get("options")
    if not isinstance(name, str) or not name.startswith(_MCP_QUESTION):
        return None
    if not isinstance(options, list):
        return None
    labels = [
        option["label"]
        for option in options
        if isinstance(option, Mapping) and isinstance(option.get("label"), str)
    ]
    for preferred in _PREFERRED_LABELS:
        if preferred in labels:
            return preferred
    return next((label for label in labels if label.lower().startswith(_APPROVING)), None)


def _detail(params: Mapping[str, Any]) -> str:
    for key in ("command", "message", "reason"):
        value = params.get(key)
        if isinstance(value, list):
            value = " ".join(str(part) for part in value)
        if isinstance(value, str) and value:
            return f": {value}"
    return ""


def _question_text(questions: Any) -> str:
    if isinstance(questions, list):
        for question in questions:
            if isinstance(question, Mapping) and isinstance(question.get("question"), str):
                return f": {question['question']}"
    return ""

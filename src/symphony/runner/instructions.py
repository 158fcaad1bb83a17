"""What the agent is told in each turn of one run: which text, rendered with what.

The first turn gets the workflow's prompt; a thread that knows the issue from an earlier run gets
only why it goes on; later turns get the continuation text. A run that has to begin anew although
an earlier one failed is told why, whatever its template says. Every method may be slow (the
template engine is imported at its first use) and belongs in a thread. ``prompt`` renders,
``attempt`` asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from symphony.config.loading import Workflow
from symphony.config.settings import Settings
from symphony.model.issue import Issue
from symphony.model.run import RetryKind, RunSpec

if TYPE_CHECKING:
    from symphony.runner.prompt import PromptTemplate


class Instructions:
    """The texts of one run.

    Attributes:
        workspace: Its path, once there is one.
    """

    def __init__(self, spec: RunSpec) -> None:
        self.workspace: str | None = None
        self._spec = spec

    def first(self, workflow: Workflow, issue: Issue) -> str:
        """Return the prompt of a run's first turn in a new thread.

        Raises:
            PromptError: It can't be parsed or rendered.
        """
        from symphony.runner.prompt import PromptTemplate, anew_note

        spec = self._spec
        template = PromptTemplate.compile(workflow.prompt_template, workflow.prompt_line)
        text = self._render(template, workflow.settings, issue, turn=1)
        failed = spec.retry_kind in (RetryKind.FAILURE, RetryKind.RECOVERY)
        if failed and workflow.settings.codex.resume_threads and not template.tells_previous_error:
            text += anew_note(spec.retry_kind, spec.previous_error)
        return text

    def resumed(self) -> str:
        """Return the prompt of a run's first turn in a thread that knows the issue."""
        from symphony.runner.prompt import resumption_prompt

        return resumption_prompt(self._spec.retry_kind, self._spec.previous_error)

    def later(self, settings: Settings, issue: Issue, number: int) -> str:
        """Return the prompt of turn ``number``, from 2.

        Raises:
            PromptError: The operator's own text can't be parsed or rendered.
        """
        from symphony.runner.prompt import PromptTemplate, continuation_prompt

        text = settings.agent.continuation_prompt
        if text is None:
            return continuation_prompt(number, settings.agent.max_turns)
        return self._render(PromptTemplate.compile(text), settings, issue, turn=number)

    def after_compaction(self) -> str:
        """Return the prompt of the turn after a thread's history was summarised."""
        from symphony.runner.prompt import COMPACTION_PROMPT

        return COMPACTION_PROMPT

    def _render(
        self, template: PromptTemplate, settings: Settings, issue: Issue, *, turn: int
    ) -> str:
        spec = self._spec
        return template.render(
            issue,
            spec.attempt,
            retry_kind=spec.retry_kind,
            turn=turn,
            max_turns=settings.agent.max_turns,
            previous_error=spec.previous_error,
            workspace=self.workspace,
        )

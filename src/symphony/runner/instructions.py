"""What the agent is told in each turn of one run: which text, rendered with what.

The first turn gets the prompt of the issue's profile, else the workflow's; a thread that knows the
issue from an earlier run gets only why it goes on; later turns get the continuation text, or the
whole prompt where the issue has moved to a profile with another one. A run that has to begin anew
although an earlier one failed is told why, whatever its template says; so is one whose agent had
asked something, with the answer. Every method may be slow (the template engine is imported at its
first use) and belongs in a thread. ``prompt`` renders,
``attempt`` asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from symphony.config.loading import Workflow
from symphony.config.profiles import Prompt
from symphony.config.settings import Settings
from symphony.errors import PromptError
from symphony.model.issue import Issue
from symphony.model.run import RetryKind, RunSpec
from symphony.runner.replies import answer_note, answer_text, question_text

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
        # The profile whose prompt the thread was told last; None: the workflow's own.
        self._told: str | None = None

    def first(self, workflow: Workflow, issue: Issue) -> str:
        """Return the prompt of a run's first turn in a new thread.

        Raises:
            PromptError: It can't be parsed or rendered.
        """
        from symphony.runner.prompt import anew_note

        spec, settings = self._spec, workflow.settings
        text, template = self._whole(workflow, issue, turn=1)
        failed = spec.retry_kind in (RetryKind.FAILURE, RetryKind.RECOVERY)
        failed = failed or (spec.retry_kind is RetryKind.UNBLOCKED and spec.reply is None)
        if failed and settings.codex.resume_threads and not template.tells_previous_error:
            text += anew_note(spec.retry_kind, spec.previous_error)
        if spec.reply is not None and not template.tells_answer:
            text += "\n" + answer_note(spec.reply)
        return text

    def resumed(self, workflow: Workflow, issue: Issue) -> str:
        """Return the prompt of a run's first turn in a thread that knows the issue.

        Where profiles have prompts of their own, the one that holds now is told again: nobody
        knows which one the thread was told last.

        Raises:
            PromptError: It can't be parsed or rendered.
        """
        from symphony.runner.prompt import resumption_prompt

        reply = self._spec.reply
        text = resumption_prompt(
            self._spec.retry_kind, self._spec.previous_error, is_answered=reply is not None
        )
        if reply is not None:
            text += answer_note(reply)
        self._told = _teller(workflow.settings, issue)
        if all(profile.prompt is None for profile in workflow.settings.agent.profiles):
            return text
        return f"{text}\n{_HOLDS_NOW}\n\n{self._whole(workflow, issue, turn=1)[0]}"

    def later(self, workflow: Workflow, issue: Issue, number: int) -> str:
        """Return the prompt of turn ``number``, from 2.

        Raises:
            PromptError: The operator's own text can't be parsed or rendered.
        """
        from symphony.runner.prompt import continuation_prompt

        profile = workflow.settings.agent.profile_of(issue)
        if self._told != _teller(workflow.settings, issue):
            whole, _ = self._whole(workflow, issue, turn=number)
            return f"{_MOVED.format(state=issue.state)}\n\n{whole}"
        text = None if profile is None else profile.continuation_prompt
        general = workflow.settings.agent.continuation_prompt
        if text is None and general is not None:
            text = Prompt(text=general, source="agent.continuation_prompt")
        if text is None:
            return continuation_prompt(number, workflow.settings.agent.turns_for(profile))
        return self._render(text, workflow.settings, issue, turn=number)[0]

    def after_compaction(self) -> str:
        """Return the prompt of the turn after a thread's history was summarised."""
        from symphony.runner.prompt import COMPACTION_PROMPT

        return COMPACTION_PROMPT

    def _whole(self, workflow: Workflow, issue: Issue, *, turn: int) -> tuple[str, PromptTemplate]:
        self._told = _teller(workflow.settings, issue)
        return self._render(_prompt_of(workflow, issue), workflow.settings, issue, turn=turn)

    def _render(
        self, prompt: Prompt, settings: Settings, issue: Issue, *, turn: int
    ) -> tuple[str, PromptTemplate]:
        from symphony.runner.prompt import PromptTemplate

        spec = self._spec
        profile = settings.agent.profile_of(issue)
        try:
            template = PromptTemplate.compile(prompt.text, prompt.line)
            text = template.render(
                issue,
                spec.attempt,
                retry_kind=spec.retry_kind,
                turn=turn,
                max_turns=settings.agent.turns_for(profile),
                previous_error=spec.previous_error,
                workspace=self.workspace,
                profile=None if profile is None else profile.name,
                question=None if spec.reply is None else question_text(spec.reply),
                answer=None if spec.reply is None else answer_text(spec.reply),
            )
        except PromptError as error:
            if not prompt.source:
                raise
            raise PromptError(error.category, f"{prompt.source}: {error.message}") from error
        return text, template


def _teller(settings: Settings, issue: Issue) -> str | None:
    """Return the name of the issue's profile where it has a prompt of its own, else None."""
    profile = settings.agent.profile_of(issue)
    return None if profile is None or profile.prompt is None else profile.name


def _prompt_of(workflow: Workflow, issue: Issue) -> Prompt:
    """Return the prompt that holds for an issue: its profile's, else the workflow's body."""
    profile = workflow.settings.agent.profile_of(issue)
    if profile is not None and profile.prompt is not None:
        return profile.prompt
    return Prompt(text=workflow.prompt_template, source="", line=workflow.prompt_line)


_HOLDS_NOW = (
    "The instructions that hold now follow. Where they differ from those above in this thread, "
    "they count."
)
_MOVED = (
    "The issue is in state {state!r} now, for which other instructions hold. They follow; where "
    "they differ from those above in this thread, they count. Go on from what the workspace holds."
)

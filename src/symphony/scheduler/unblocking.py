"""The ways out of a block, carried out: an answer, a change in the tracker, a time, an order.

All of them lead to one thing: the claim becomes a retry that is due, with its thread, and with the
answer where there is one, so the tracker is asked and every gate is passed before it runs. Which
block is ended by what stands in ``blocks``. Callers: ``controls`` (orders), ``reconcile`` (reads),
``step`` (time).

What an agent did to its own issue before it was blocked must not count as a change. So the issue is
read once more after the run has ended, and only what differs from that read counts.
"""

from __future__ import annotations

from dataclasses import replace

from symphony.model.clock import Instant
from symphony.model.issue import Issue
from symphony.model.question import Answer, Ask, Question, Reply
from symphony.model.run import RetryKind

from .blocks import STOPPED, BlockKind, Way, kind_of, remedy, ways_out
from .claims import Blocked, RetryQueued
from .commands import Command, Level, SaveClaim
from .eligibility import Rules
from .events import Seen
from .notes import note
from .state import SchedulerState


def ways_of(claim: Blocked, rules: Rules) -> tuple[Way, ...]:
    """Return what ends this block."""
    return ways_out(claim.category, unblock_on=rules.unblock_on, until_wall=claim.until_wall)


def remedy_of(claim: Blocked, rules: Rules) -> str:
    """Say how to get this issue going again."""
    return remedy(
        claim.issue.identifier,
        ways_of(claim, rules),
        question=claim.question,
        until_wall=claim.until_wall,
    )


def retry_after_s(category: str, rules: Rules) -> float | None:
    """Return after how long a block of this category ends by itself, or None for never."""
    return rules.blocked_retry_s.get(kind_of(category).value)


def watches(category: str, rules: Rules) -> bool:
    """Say whether a change in the tracker ends a block of this category."""
    ways = ways_out(category, unblock_on=rules.unblock_on, until_wall=None)
    return Way.STATE in ways or Way.LABELS in ways


def run_again(
    state: SchedulerState, claim: RetryQueued | Blocked, now: Instant, reply: Reply | None = None
) -> SaveClaim:
    """Let an issue run at once. Its failures are forgiven: somebody has looked at it."""
    kind = claim.retry_kind or RetryKind.RECOVERY
    if isinstance(claim, Blocked) and (claim.category != STOPPED or is_answered(claim)):
        kind = RetryKind.UNBLOCKED
    queued = RetryQueued(
        issue=claim.issue,
        attempt=claim.attempt,
        retry_kind=kind,
        failures=0,
        due_mono=now.mono,
        due_wall=now.wall,
        error=claim.error,
        thread_id=claim.thread_id,
        host=claim.host,
        workspace_path=claim.workspace_path,
        scope=claim.scope,
        reply=reply or claim.reply,
    )
    state.claims.put(queued)
    return queued.saved()


def blocked_seen(
    state: SchedulerState, claim: Blocked, issue: Issue, issued_mono: float, now: Instant
) -> list[Command]:
    """Take over a read of a blocked issue that is still wanted; a person's change ends the block.

    Args:
        state: The claim is in it.
        claim: As it was before this read.
        issue: As the read shows it.
        issued_mono: When the read was issued: one from before the run's end tells nothing.
        now: When it is answered.
    """
    other_scope = claim.scope != state.scope
    claim = replace(claim, issue=issue, scope=state.scope, missing_since=None)
    watched = [way for way in (Way.STATE, Way.LABELS) if way in ways_of(claim, state.rules)]
    if issued_mono < claim.read_mono or not watched:
        state.claims.put(claim)
        return []
    seen = Seen.of(issue)
    claim = replace(claim, read_mono=issued_mono)
    if claim.seen is None or other_scope:
        claim = replace(claim, seen=seen)
        state.claims.put(claim)
        return [claim.saved()]
    changed = [way for way in watched if _differs(way, claim.seen, seen)]
    if not changed:
        state.claims.put(claim)
        return []
    return [
        run_again(state, claim, now),
        note(
            Level.INFO,
            "unblocked by a change in the tracker",
            issue,
            changed=" and ".join(way.value for way in changed),
            category=claim.category,
        ),
    ]


def blocks_ended(state: SchedulerState, now: Instant) -> list[Command]:
    """Let issues run again whose block was to last until now."""
    commands: list[Command] = []
    for claim in state.claims.pop_ending(now.mono):
        commands.append(run_again(state, claim, now))
        commands.append(note(Level.INFO, "unblocked by time", claim.issue, category=claim.category))
    return commands


def takes_answer(claim: Blocked, rules: Rules) -> bool:
    """Say whether an answer has a question here: also that of an issue which was stopped since."""
    asked_before = claim.category == STOPPED and claim.question is not None
    return asked_before or Way.ANSWER in ways_of(claim, rules)


def is_answered(claim: Blocked) -> bool:
    """Say whether an answer waits with a stopped issue for its being resumed."""
    return claim.category == STOPPED and claim.question is not None and claim.reply is not None


def answer(
    state: SchedulerState, claim: Blocked, said: Answer, by: str, now: Instant
) -> list[Command]:
    """Put an operator's answer to the claim and let the issue run; a stopped one waits with it.

    Who answers may not know of the stop, and a stop holds until somebody lifts it.
    """
    reply = reply_to(claim, said, by=by, wall=now.wall)
    if isinstance(reply, str):
        return [note(Level.WARNING, "answer not taken", claim.issue, reason=reply)]
    if claim.category == STOPPED:
        answered = replace(claim, reply=reply)
        state.claims.put(answered)
        return [
            answered.saved(),
            note(Level.INFO, "answer kept until the stopped issue is resumed", claim.issue),
        ]
    return [run_again(state, claim, now, reply)]


def unanswerable(state: SchedulerState, identifier: str, said: Answer) -> str | None:
    """Say why this answer can't be given to this issue, or None where it can."""
    claim = next((one for one in state.claims if one.issue.identifier == identifier), None)
    if not isinstance(claim, Blocked):
        return f"{identifier} is not blocked: nothing waits for an answer"
    if not takes_answer(claim, state.rules):
        return f"{identifier} asked nothing ({claim.category}); {remedy_of(claim, state.rules)}"
    reply = reply_to(claim, said, by="", wall=0.0)
    return f"{identifier}: {reply}" if isinstance(reply, str) else None


def reply_to(claim: Blocked, said: Answer, *, by: str, wall: float) -> Reply | str:
    """Hold an answer against the question: the reply, or what is wrong with it."""
    question = claim.question
    is_approval = kind_of(claim.category) is BlockKind.APPROVAL
    if claim.category == STOPPED and question is not None:
        is_approval = question.kind.wants_decision
    if said.decision is None and not said.text.strip() and not said.options:
        return "the answer is empty: give a text, --option, --approve or --decline"
    if is_approval and said.decision is None:
        return "it asks for an approval: answer with --approve or --decline (a text may go along)"
    if not is_approval and said.decision is not None:
        return "it asks a question, not for an approval: answer with a text or --option"
    wants_secret = question is not None and question.wants_secret
    if wants_secret and said.text.strip() and not said.holds_no_secret:
        return (
            "it asks for a secret, and an answer is kept in the ledger and becomes part of a "
            "prompt: put the secret where the agent finds it (its environment, a file outside of "
            "the repository) and say where, with --no-secret"
        )
    choices = _chosen(question, said.options)
    if isinstance(choices, str):
        return choices
    return Reply(
        question=question,
        text=said.text.strip(),
        choices=choices,
        decision=said.decision,
        by=by,
        at_wall=wall,
    )


def _chosen(question: Question | None, given: tuple[str, ...]) -> tuple[tuple[str, str], ...] | str:
    asks = () if question is None else question.asks
    choices: dict[str, str] = {}
    for option in given:
        found = [
            (ask.id, one.label)
            for ask in asks
            for number, one in enumerate(ask.options, start=1)
            if option in _names(ask, number, one.label, is_only=len(asks) == 1)
        ]
        if not found:
            known = () if question is None else question.choices
            listed = ", ".join(map(repr, known)) or "none, so answer with a text"
            return f"there is no option {option!r}; there are {listed}"
        if choices.setdefault(*found[0]) != found[0][1]:
            return f"{option!r} is a second choice for the same question; choose one"
    return tuple(choices.items())


def _names(ask: Ask, number: int, label: str, *, is_only: bool) -> tuple[str, ...]:
    """Return how an option may be called: by label or number, after the question's id."""
    named = (f"{ask.id}={label}", f"{ask.id}={number}")
    return (*named, label, str(number)) if is_only else named


def _differs(way: Way, before: Seen, after: Seen) -> bool:
    if way is Way.STATE:
        return before.state != after.state
    return before.labels != after.labels

"""An operator's answer as text for the agent.

The request that was asked is over when the answer comes: its process ended with the turn. So the
answer goes into the first prompt of the next run, with what was asked, since a thread that could
not be resumed knows nothing of it. Pure; ``instructions`` puts it into the prompt.
"""

from __future__ import annotations

from symphony.model.question import Decision, Reply

_DECIDED = {Decision.APPROVE: "approved", Decision.DECLINE: "declined"}


def question_text(reply: Reply) -> str | None:
    """Return what was asked, for the variable ``question``; None where nobody knows any more."""
    question = reply.question
    if question is None:
        return None
    lines = [question.text]
    if question.detail and question.kind.wants_decision:
        lines.append(question.detail)
    return "\n".join(lines)


def answer_text(reply: Reply) -> str:
    """Return the answer, for the variable ``answer``: decision, choices and text, a line each."""
    lines = [] if reply.decision is None else [_DECIDED[reply.decision]]
    asks = () if reply.question is None else reply.question.asks
    named = {ask.id: ask.text for ask in asks} if len(asks) > 1 else {}
    for ask_id, label in reply.choices:
        lines.append(f"{named[ask_id]} {label}" if ask_id in named else label)
    if reply.text:
        lines.append(reply.text)
    return "\n".join(lines)


def answer_note(reply: Reply) -> str:
    """Return what is added to a prompt that does not tell the answer itself."""
    asked = question_text(reply)
    parts = ["", "A person has answered what you had asked in the run before this one."]
    if asked is not None:
        parts += ["", "Asked:", _quoted(asked)]
    parts += ["", "Answer:", _quoted(answer_text(reply)), ""]
    match reply.decision:
        case Decision.APPROVE:
            parts.append(
                "Do it in exactly the same way: what was asked is approved once, nothing else is."
            )
        case Decision.DECLINE:
            parts.append("Don't try it again: find another way, or end the turn and say why not.")
        case _:
            parts.append("Go on with this answer; don't ask the same again.")
    return "\n".join(parts) + "\n"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines())

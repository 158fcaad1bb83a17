"""Orders of operators: ``POST /api/v1/control``, on the control socket only.

Role: reads and checks an order, judges who gives it, hands it to the backend, and says that it is
taken once it is in the ledger.
Invariant: nothing but a process of the daemon's user that does not descend from a run is obeyed.
Neighbours: ``peers`` says who asks; the scheduler carries orders out.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from symphony.model.failure import FailureClass
from symphony.model.question import Answer, Decision
from symphony.model.spend import NO_RAISE, Raise

from .backend import Backend, Refusal, Taken
from .envelope import error_response, json_response
from .peers import Peer, is_our_user, peer_in

Amount = Annotated[int, msgspec.Meta(ge=0, le=10**15)]


class Amounts(msgspec.Struct, forbid_unknown_fields=True):
    """How much an order to raise adds to the limits; money in millionths of a dollar."""

    tokens: Amount = 0
    micro_usd: Amount = 0
    wall_ms: Amount = 0
    attempts: Amount = 0


MAX_OVERRIDE_S = 31 * 86_400.0
"""Longest override of the active hours; who wants more edits the setting."""


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """The body: an action, of one issue or of all work.

    ``failure_class`` is for the breaker's, ``amounts`` are for a raise, ``for_seconds`` is for an
    override of the active hours, which 0 ends; ``text``, ``options``, ``decision`` and
    ``holds_no_secret`` are an answer's.
    """

    action: Literal[
        "pause",
        "resume",
        "drain",
        "stop",
        "retry",
        "reset_breaker",
        "raise",
        "override_hours",
        "unpark",
        "answer",
    ]
    issue: str | None = None
    reason: str = ""
    failure_class: FailureClass | None = None
    amounts: Amounts | None = None
    for_seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_OVERRIDE_S)] = 0.0
    text: str = ""
    options: list[str] = []
    decision: Decision | None = None
    holds_no_secret: bool = False


ANSWER_LIMIT = 16_000
"""Characters of an answer: it becomes part of a prompt."""

ISSUE_LIMIT = 512
"""Characters of an identifier, which need not be on the board yet: it is kept and shown."""

_decode = msgspec.json.Decoder(Order).decode


async def obey(request: Request, backend: Backend) -> Response:
    """Answer an order: 202 where it was taken."""
    refusal = refuse(peer_in(request.scope), backend)
    if refusal is not None:
        return error_response(403, "control_refused", refusal)
    try:
        order = _decode(await request.body())
    except msgspec.MsgspecError as error:
        return error_response(400, "invalid_request", f"The order can't be read: {error}")
    fault = _fault_of(order)
    if fault is not None:
        return error_response(400, "invalid_request", fault)
    if order.action == "answer":
        said = Answer(
            text=order.text,
            options=tuple(order.options),
            decision=order.decision,
            holds_no_secret=order.holds_no_secret,
        )
        problem = backend.answer(order.issue or "", said, order.reason)
        if problem is not None:
            return error_response(409, "answer_refused", problem)
        return await _accepted(order, Taken(order.issue), backend)
    taken = await backend.control(
        order.action,
        order.issue,
        order.reason,
        failure_class=order.failure_class,
        amounts=NO_RAISE if order.amounts is None else _raise_of(order.amounts),
        for_s=order.for_seconds,
    )
    if isinstance(taken, Refusal):
        return error_response(taken.status, taken.code, taken.message)
    return await _accepted(order, taken, backend)


async def _accepted(order: Order, taken: Taken, backend: Backend) -> Response:
    durable = await backend.settled()
    body = {
        "accepted": True,
        "action": order.action,
        "issue": taken.identifier,
        "durable": durable,
    }
    if order.action in ("stop", "retry") and (effect := backend.effect(taken)) is not None:
        body |= {"claimed": effect.claimed, "waits_for": effect.waits_for}
    return json_response(body, status=202)


def _fault_of(order: Order) -> str | None:
    """Say what is wrong with an order that can be read, or None."""
    if order.issue is not None and not order.issue.strip():
        return "issue: the identifier is blank"
    if order.issue is not None and not order.issue.isprintable():
        return "issue: the identifier holds characters that can't be shown"
    if order.issue is not None and len(order.issue) > ISSUE_LIMIT:
        return f"issue: an identifier has at most {ISSUE_LIMIT} characters, got {len(order.issue)}"
    if order.action == "unpark" and order.issue is not None:
        return "unpark is for all work; to try one issue, retry it"
    if order.action == "drain" and order.issue is not None:
        return "drain is for all work; stop or pause one"
    if order.action in ("reset_breaker", "override_hours") and order.issue is not None:
        return f"{order.action} is for all work; leave out issue"
    if order.action != "override_hours" and order.for_seconds:
        return f"for_seconds: belongs to override_hours, not to {order.action}"
    if order.action != "reset_breaker" and order.failure_class is not None:
        return f"failure_class: belongs to reset_breaker, not to {order.action}"
    if order.action == "raise" and (order.issue is None or order.amounts is None):
        return "raise needs issue (an identifier, 'day' or 'total') and amounts"
    if order.action != "raise" and order.amounts is not None:
        return f"amounts: belong to raise, not to {order.action}"
    return _answer_fault_of(order)


def _answer_fault_of(order: Order) -> str | None:
    if order.action != "answer":
        if order.text or order.options or order.decision is not None or order.holds_no_secret:
            return (
                "text, options, decision and holds_no_secret belong to answer, not to "
                f"{order.action}"
            )
        return None
    if order.issue is None:
        return "issue: an answer needs the issue that asked"
    if len(order.text) > ANSWER_LIMIT:
        return f"text: an answer has at most {ANSWER_LIMIT} characters, got {len(order.text)}"
    return None


def _raise_of(amounts: Amounts) -> Raise:
    return Raise(
        tokens=amounts.tokens,
        micro_usd=amounts.micro_usd,
        wall_ms=amounts.wall_ms,
        attempts=amounts.attempts,
    )


def refuse(peer: Peer | None, backend: Backend) -> str | None:
    """Say why this peer may not give orders, or None where it may."""
    if peer is None:
        return "Orders are taken on the control socket only: use the symphony command."
    if not is_our_user(peer):
        return "Orders are taken from the daemon's own user only."
    if backend.is_agent(peer.pid):
        return "This process belongs to a run: agents may not give orders."
    return None

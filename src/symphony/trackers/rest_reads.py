"""What the reads of the REST trackers share: many at a time, named errors, names compared."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, TypeVar

import structlog

from symphony.errors import TrackerError
from symphony.model.issue import normalize_state

from .http import HttpClient

T = TypeVar("T")
log = structlog.get_logger(__name__)

_MENDABLE: Final = frozenset({401, 403, 404, 410})
_MENDABLE_CODES: Final = frozenset(
    {"github_unknown_project", "linear_unknown_project", "missing_linear_viewer_identity"}
)

SHOWN_NAMES: Final = 20

A_TURN: Final = 200
"""Records that are normalised at a stretch: some ten milliseconds."""


async def gathered(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run the calls, as many at a time as the HTTP layer lets, and return their results in order.

    Raises:
        TrackerError: The first that failed; the others are cancelled.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call, name="tracker-read") for call in calls]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def in_turns(records: Iterable[T]) -> AsyncIterator[T]:
    """The records one by one; after each ``A_TURN`` of them, others may work.

    A board of thousands would keep the loop busy for half a second, and the agents waiting.
    """
    for number, record in enumerate(records, 1):
        yield record
        if number % A_TURN == 0:
            await asyncio.sleep(0)


def named(error: TrackerError, provider: str) -> TrackerError:
    """Give an error of the HTTP layer the adapter's name, as the reference calls it."""
    names = {
        "tracker_request": f"{provider}_api_request",
        "tracker_response": f"{provider}_unknown_payload",
    }
    error.code = error.code or names.get(error.category, f"{provider}_api_status")
    return error


def limited(http: HttpClient, provider: str, wait_s: float, status: int) -> TrackerError:
    """Send nothing for so long; the error of the refusal by rate limit that asks for it."""
    http.hold(wait_s, f"its rate limit is used up (HTTP {status})")
    return TrackerError(
        "tracker_rate_limited",
        f"{provider}'s rate limit is used up; wait {wait_s:.0f} s",
        retry_after_s=wait_s,
        status=status,
        code=f"{provider.lower()}_api_status",
    )


async def checked_at_start(*checks: Callable[[], Coroutine[Any, Any, list[str]]]) -> list[str]:
    """The faults that all checks find; a provider that can't be asked is no fault, only a warning.

    A token that is refused and a scope that is not there are faults too: waiting mends neither.
    The first check reads what each poll does; where that is let in, a further one that is not may
    lack a permission that work does not need. After a refused token or no answer nothing more is
    asked.
    """
    found: list[str] = []
    for number, check in enumerate(checks):
        try:
            found += await check()
        except TrackerError as error:
            refused = error.category == "tracker_status" and error.status in (
                _MENDABLE if number == 0 else {401}
            )
            refused = refused or error.code in _MENDABLE_CODES
            if refused:
                found.append(error.message)
            else:
                log.warning("Settings could not be checked with the tracker", reason=error.message)
            if not refused or error.status == 401:
                break
    return list(dict.fromkeys(found))


def missing_names(key: str, where: str, asked: Sequence[str], known: Sequence[str]) -> list[str]:
    """A sentence for each asked name that is not known, with the nearest one that is."""
    names = {normalize_state(name): name for name in known}
    sentences = []
    for name in asked:
        if normalize_state(name) not in names:
            near = difflib.get_close_matches(normalize_state(name), list(names), n=1)
            shown = ", ".join(f"`{other}`" for other in list(known)[:SHOWN_NAMES])
            hint = f"; did you mean `{names[near[0]]}`?" if near else f"; it has {shown or 'none'}"
            sentences.append(f"{key}: {where} has no `{name}`{hint}")
    return sentences


def mistyped_names(key: str, where: str, asked: Sequence[str], known: Sequence[str]) -> list[str]:
    """A sentence for each asked name that is very like a known one that is not asked for."""
    names = {normalize_state(name): name for name in known}
    keys = {normalize_state(name) for name in asked}
    sentences = []
    for name in asked:
        written = normalize_state(name)
        near = [other for other in names if other not in keys and _is_slip(written, other)]
        if written not in names and near:
            sentences.append(f"{key}: {where} has no `{name}`; did you mean `{names[near[0]]}`?")
    return sentences


def _is_slip(written: str, meant: str) -> bool:
    """A letter more, less or other in a longer name, or the same letters in another order."""
    alike = difflib.SequenceMatcher(None, written, meant).ratio()
    return alike >= 0.84 or sorted(written) == sorted(meant)


def state_faults(
    where: str, known: Sequence[str], *, active: Sequence[str], terminal: Sequence[str]
) -> list[str]:
    """What of the configured states can't be meant, with the nearest name.

    Typos, and active states of which the tracker has none: nothing would ever start. Others that it
    lacks do no harm beside those that it has, for a workflow may serve several teams: they are
    warned of, terminal ones not even that.
    """
    key = "tracker.active_states"
    missing = missing_names(key, where, active, known)
    typos = mistyped_names(key, where, active, known)
    if len(missing) == len(active):
        faults = missing
    else:
        faults = typos
        named = "; ".join(one for one in missing if one not in typos)
        if named:
            log.warning("The tracker lacks an active state; nothing of it will start", what=named)
    return [*faults, *mistyped_names("tracker.terminal_states", where, terminal, known)]

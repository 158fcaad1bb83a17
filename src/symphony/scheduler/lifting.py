"""What opens a gate that is shut: one sentence a gate, for ``explain``.

``eligibility`` says why a gate is shut, ``blocks`` what ends a block, this module what to do about
the rest. Every gate has its sentence.
"""

from __future__ import annotations

from symphony.model.issue import Issue

from .claims import Blocked, Cleaning, Dispatching, Rechecking, RetryQueued, Running
from .eligibility import GateName
from .state import SchedulerState


def lift(name: GateName, issue: Issue, state: SchedulerState) -> str:
    """Return how a shut gate of this issue is opened."""
    match name:
        case GateName.UNCLAIMED:
            return _of_claim(issue, state)
        case GateName.NOT_TERMINAL | GateName.ACTIVE:
            states = ", ".join(state.rules.active_names) or "none are set"
            return f"move it to one of tracker.active_states ({states})"
        case GateName.NOT_HELD:
            return f"symphony resume{'' if None in state.holds else ' ' + issue.identifier}"
        case GateName.BREAKER:
            return f"symphony retry {issue.identifier} tries it alone, symphony breaker reset all"
        case GateName.WITHIN_BUDGET:
            scope = issue.identifier if state.books.all_shut is None else "day (or total)"
            return f"symphony budget raise {scope} with what is to be added"
        case _:
            return _LIFTS[name]


_LIFTS = {
    GateName.COMPLETE: "fill them in in the tracker",
    GateName.DISPATCHABLE: (
        "finish what blocks it, or change its assignee or its place on the board as the tracker's "
        "profile says"
    ),
    GateName.LABELS: "add them in the tracker, or change tracker.required_labels",
    GateName.CONFIG: "mend the workflow file (symphony check shows every fault); it is read again",
    GateName.ACCEPTING: "start the daemon again",
    GateName.NOT_PARKED: "symphony resume --park, or wait",
    GateName.HOURS: "symphony hours override, or wait",
    GateName.PLACES: "put the files back, or restart the daemon",
    GateName.RESOURCES: "free some on the host, or lower the setting that is named",
    GateName.GLOBAL_SLOT: "wait for a run to end, or raise agent.max_concurrent_agents",
    GateName.STATE_SLOT: "wait for a run to end, or raise agent.max_concurrent_agents_by_state",
    GateName.HOST_SLOT: "wait for a run to end, or raise worker.max_concurrent_agents_per_host",
}


def _of_claim(issue: Issue, state: SchedulerState) -> str:
    claim, name = state.claims.get(issue.id), issue.identifier
    match claim:
        case Running(stopping=None):
            return f"nothing to do: it runs; symphony stop {name} ends it"
        case RetryQueued(hold=None):
            return f"symphony retry {name} runs it now"
        case RetryQueued():
            return "the gate that it waits for is among those below"
        case Blocked():
            return "as it says"
        case Dispatching() | Rechecking() | Running() | Cleaning() | None:
            return "wait a moment"

"""Which configured states are faults at start, and which are only ones that the tracker lacks."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from symphony.trackers.rest_reads import state_faults

KNOWN = ("Todo", "In Progress", "Canceled", "Done")
TERMINAL = ("Closed", "Cancelled", "Canceled", "Duplicate", "Done")


@pytest.mark.parametrize(
    ("active", "faults"),
    [
        (("Todo", "In Progress"), []),
        ((" todo ", "IN PROGRESS"), []),
        (("Todo", "Merging", "Rework"), []),
        (("Todo", "In Progres"), ["`In Progres`; did you mean `In Progress`?"]),
        (("Tood", "In Progress"), ["`Tood`; did you mean `Todo`?"]),
        (("To Do", "In Progress"), ["`To Do`; did you mean `Todo`?"]),
        (
            ("Spec", "Review"),
            [
                "`Spec`; it has `Todo`, `In Progress`, `Canceled`, `Done`",
                "`Review`; it has `Todo`, `In Progress`, `Canceled`, `Done`",
            ],
        ),
        ((), []),
    ],
)
def test_typos_are_faults_and_so_are_states_of_which_none_is_there(
    active: tuple[str, ...], faults: list[str]
) -> None:
    found = state_faults("the team", KNOWN, active=active, terminal=TERMINAL)
    assert len(found) == len(faults)
    for fault, words in zip(found, faults, strict=True):
        assert fault.startswith("tracker.active_states: the team has no ")
        assert words in fault


def test_a_state_that_is_only_not_there_is_warned_of() -> None:
    with capture_logs() as logs:
        assert state_faults("the team", KNOWN, active=("Todo", "Rework"), terminal=()) == []
    (entry,) = logs
    assert entry["log_level"] == "warning"
    assert "`Rework`" in entry["what"]


@pytest.mark.parametrize(
    ("terminal", "faults"),
    [(TERMINAL, 0), (("Doen",), 1), (("Cancelled",), 1), (("Shipped",), 0)],
)
def test_of_terminal_states_only_typos_are_faults(terminal: tuple[str, ...], faults: int) -> None:
    found = state_faults("the team", KNOWN, active=("Todo",), terminal=terminal)
    assert len(found) == faults
    assert all(fault.startswith("tracker.terminal_states: ") for fault in found)

"""``symphony tracker test``: ask the tracker what would be dispatched, and change nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from symphony.cli.usage import log_to_stderr
from symphony.config.loading import Workflow, load_workflow
from symphony.errors import TrackerError
from symphony.model.issue import Issue
from symphony.trackers import registry
from symphony.trackers.base import ChecksAtStart, Triable, Trial

app = cyclopts.App(name="tracker", help="Try the tracker that a workflow names.")


@app.command(name="test")
def try_tracker(
    workflow: Annotated[Path, Parameter(help="The workflow file.")] = Path("WORKFLOW.md"),
    /,
    *,
    every: Annotated[
        bool, Parameter(name="--all", negative=(), help="Read all pages, not only the first.")
    ] = False,
) -> int:
    """Read a page of issues in the active states, say which would start and why the others not.

    Only reads are made. Exit status 0 where the tracker answered and has no fault.

    Raises:
        SymphonyError: The workflow is invalid, or the tracker can't be read.
    """
    log_to_stderr()
    path = workflow.expanduser().absolute()
    loaded = load_workflow(
        path,
        environ=os.environ,
        profiles=registry.PROFILES,
        validate_tracker=lambda settings: registry.validate(
            settings.tracker, os.environ, path.parent
        ),
    )
    faults, issues, cut = asyncio.run(_read(loaded, every=every))
    for fault in faults:
        print(f"fault: {printable(fault)}")
    for line in describe(loaded, issues):
        print(line)
    if cut:
        print("There are more: this is the first page, --all reads the others too.")
    return 1 if faults else 0


def describe(loaded: Workflow, issues: Sequence[Issue]) -> list[str]:
    """Return a line for each issue in dispatch order, with the first condition that it fails."""
    from symphony.scheduler.eligibility import dispatch_key
    from symphony.scheduler.publish import explain
    from symphony.scheduler.state import new_state

    state = new_state(loaded.settings, workflow_id=loaded.workflow_id, seed=0)
    tracker = loaded.settings.tracker
    lines = [f"{tracker.kind}: {len(issues)} issues in {', '.join(tracker.active_states)}"]
    for issue in sorted(issues, key=lambda issue: dispatch_key(issue, fresh=True)):
        shut = next((gate for gate in explain(state, issue) if not gate.passed), None)
        verdict = "starts" if shut is None else f"waits: {shut.detail}"
        profile = loaded.settings.agent.profile_of(issue)
        if profile is not None:
            verdict += f", profile {profile.name}"
        line = f"  {issue.identifier:<14} {issue.state:<16} {verdict}  ({issue.title[:60]})"
        lines.append(printable(line))
    return lines


def printable(text: str) -> str:
    """A text of a tracker without what would move the cursor or colour the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


async def _read(loaded: Workflow, *, every: bool) -> tuple[Sequence[str], Sequence[Issue], bool]:
    """Faults, issues, and whether there are more of these."""
    settings = loaded.settings.tracker
    tracker = registry.build(settings, os.environ, loaded.path.parent)
    trial = tracker.trial if isinstance(tracker, Triable) else Trial()
    issues: Sequence[Issue] = ()
    try:
        faults = await tracker.faults_at_start() if isinstance(tracker, ChecksAtStart) else ()
        # Only now: names are compared with all that the tracker has.
        trial.first_page, trial.cut = not every, False
        try:
            issues = await tracker.fetch_issues_by_states(settings.active_states)
        except TrackerError:
            if not faults:
                raise
        return faults, issues, trial.cut
    finally:
        await tracker.aclose()

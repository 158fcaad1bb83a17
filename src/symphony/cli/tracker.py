"""``symphony tracker test``: ask the tracker what would be dispatched, and change nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from symphony.config.loading import Workflow, load_workflow
from symphony.model.issue import Issue
from symphony.trackers import registry
from symphony.trackers.base import ChecksAtStart

app = cyclopts.App(name="tracker", help="Try the tracker that a workflow names.")


@app.command(name="test")
def try_tracker(
    workflow: Annotated[Path, Parameter(help="The workflow file.")] = Path("WORKFLOW.md"), /
) -> int:
    """Read the issues in the active states and say which would start and why the others not.

    Only reads are made. Exit status 0 where the tracker answered.

    Raises:
        SymphonyError: The workflow is invalid, or the tracker can't be read.
    """
    path = workflow.expanduser().absolute()
    loaded = load_workflow(
        path,
        environ=os.environ,
        profiles=registry.PROFILES,
        validate_tracker=lambda settings: registry.validate(
            settings.tracker, os.environ, path.parent
        ),
    )
    faults, issues = asyncio.run(_read(loaded))
    for fault in faults:
        print(f"fault: {fault}")
    for line in describe(loaded, issues):
        print(line)
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
        lines.append(f"  {issue.identifier:<14} {issue.state:<16} {verdict}  ({issue.title[:60]})")
    return lines


async def _read(loaded: Workflow) -> tuple[Sequence[str], Sequence[Issue]]:
    settings = loaded.settings.tracker
    tracker = registry.build(settings, os.environ, loaded.path.parent)
    try:
        faults = await tracker.faults_at_start() if isinstance(tracker, ChecksAtStart) else ()
        return faults, await tracker.fetch_issues_by_states(settings.active_states)
    finally:
        await tracker.aclose()

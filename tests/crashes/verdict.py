"""What became of a round, read from git's log, the board's files, the ledger and the directories.

The daemon is not asked about itself, but for the ledger, whose rows must agree with the rest.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from symphony.demo.project import branch_of, branches_beyond_main
from symphony.errors import TrackerError

from .site import REPORT, Site


def is_all_done(site: Site) -> bool:
    """Say whether every issue is done and the daemon holds nothing any more."""
    return (
        all(_state(site, name) == "Done" for name in site.identifiers)
        and not _rows(site, "SELECT 1 FROM claims")
        and not workspaces_left(site)
    )


def workspaces_left(site: Site) -> list[str]:
    """Return the issues that have a workspace."""
    if not site.workspaces.is_dir():
        return []
    return sorted(p.name for p in site.workspaces.iterdir() if p.name in site.identifiers)


def agents_of_ledger(site: Site) -> set[int]:
    """Return the process ids of all agents that the ledger knows."""
    return {row[0] for row in _rows(site, "SELECT pid FROM processes")}


def faults_at_the_end(site: Site, together: Iterable[frozenset[str]]) -> list[str]:
    """Return everything that was lost, doubled or left, a sentence each."""
    return [
        *_faults_of_issues(site),
        *_faults_of_runs(site, together),
        *_faults_of_places(site),
    ]


def _faults_of_issues(site: Site) -> list[str]:
    faults = []
    for name in site.identifiers:
        state = _state(site, name)
        if state != "Done":
            faults.append(f"{name} is in {state}, not Done")
        comments = [one.text for one in site.board.comments(name)]
        if comments.count(REPORT) != 1 or len(comments) != 1:
            faults.append(f"{name} has {len(comments)} comments, not one: {comments}")
        # Kept aside: the hook that publishes, or the look at the workspace, was killed.
        commits = {
            commit
            for path in (site.repo, *_kept_aside(site, name))
            for commit in branches_beyond_main(path).get(branch_of(name), ())
        }
        subjects = [commit.subject for commit in commits]
        if subjects != [f"{name}: Write its file"]:
            faults.append(f"{name} has the commits {subjects}, not one")
    return faults


def _faults_of_runs(site: Site, together: Iterable[frozenset[str]]) -> list[str]:
    query = "SELECT run_id, identifier, started_wall, ended_wall FROM runs ORDER BY started_wall"
    rows = _rows(site, query)
    faults = [
        f"run {run} of {name} has no end in the ledger" for run, name, _, end in rows if not end
    ]
    ends: dict[str, tuple[str, float]] = {}
    for run, name, start, end in rows:
        before = ends.get(name)
        if before is not None and start < before[1]:
            faults.append(f"{name}: run {run} began before {before[0]} had ended")
        ends[name] = (run, end or start)
    issue_of = {run: name for run, name, _, _ in rows}
    for runs in together:
        counts = Counter(issue_of.get(run, run) for run in runs)
        for name, count in counts.items():
            if count > 1:
                faults.append(f"{name} had {count} live runs at once: {sorted(runs)}")
    faults += [
        f"the ledger still holds {name} ({kind})"
        for name, kind in _rows(site, "SELECT identifier, kind FROM claims")
    ]
    return faults


def _faults_of_places(site: Site) -> list[str]:
    faults = [f"the workspace of {name} is left" for name in workspaces_left(site)]
    temp = site.state_dir.cache / "tmp"
    if temp.is_dir():
        faults += [f"the temp directory {path.name} is left" for path in temp.iterdir()]
    return faults


def _kept_aside(site: Site, name: str) -> list[Path]:
    return sorted((site.workspaces / ".symphony" / "kept").glob(f"{name}-*"))


def _state(site: Site, name: str) -> str | None:
    try:
        return site.board.get(name).state
    except TrackerError:
        return None


def _rows(site: Site, query: str) -> list[Any]:
    path = site.state_dir.ledger
    if not path.exists():
        return []
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as connection:
            return connection.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []  # it is being made

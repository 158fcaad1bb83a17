"""What a running daemon does when its workflow, its board or its agents change under it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from datetime import datetime, timedelta

from .conftest import Place

HANGING = [[{"hang": True}]]
MOVING = [[{"tool": "local_board", "arguments": {"action": "move", "state": "Done"}}]]


def config_problem(place: Place) -> str | None:
    return ((place.state() or {}).get("problems") or {}).get("config")


async def test_a_broken_edit_keeps_the_last_good_workflow_and_is_shown(place: Place) -> None:
    place.script(turns=HANGING)
    await place.start()
    good = place.workflow.read_text()

    place.write("---\ntracker: {kind: local, active_states: 7}\n---\nx\n")
    broken = await place.until(lambda: config_problem(place))
    place.board.add("Waits while the workflow is broken")
    waiting = await place.until(lambda: (place.state() or {}).get("waiting"))
    place.write(good + "More.\n")
    running = await place.until(lambda: place.rows("running"))

    assert "tracker.active_states" in broken
    assert waiting[0]["issue_identifier"] == "AB-1"
    assert "AB-1" in running
    assert config_problem(place) is None
    assert "keeping last known good configuration" in place.log()
    assert await place.stop() == 0


async def test_a_deleted_workflow_changes_nothing_but_is_shown(place: Place) -> None:
    place.script(turns=HANGING)
    place.board.add("Goes on")
    await place.start()
    await place.until(lambda: place.rows("running"))

    place.workflow.unlink()

    assert "WORKFLOW.md" in await place.until(lambda: config_problem(place))
    assert place.rows("running")


async def test_a_malformed_board_file_at_run_time_hides_no_other_issue(place: Place) -> None:
    place.script(turns=HANGING)
    await place.start()

    (place.root / "board" / "AB-7.md").write_text("---\nstate: Todo\n---\nno title\n")
    place.board.add("Is well")

    running = await place.until(lambda: place.rows("running"))
    assert len(running) == 1
    assert "AB-7.md" in await place.until(lambda: place.log() if "AB-7" in place.log() else "")


async def test_a_person_who_closes_an_issue_stops_its_agent_and_cleans_up(place: Place) -> None:
    place.script(turns=HANGING, linger=True)
    issue = place.board.add("Is closed by hand")
    await place.start()
    await place.until(lambda: place.rows("running").get(issue.identifier, {}).get("turn_count"))
    workspace = place.root / "workspaces" / issue.identifier
    assert workspace.is_dir()

    place.board.move(issue.identifier, "Done")

    await place.until(lambda: not place.processes() or not place.rows("running"))
    await place.until(lambda: not workspace.exists())
    assert place.rows("retrying") == {}


async def test_an_issue_that_leaves_the_active_states_keeps_its_workspace(place: Place) -> None:
    place.script(turns=HANGING)
    issue = place.board.add("Is put back")
    await place.start()
    await place.until(lambda: place.rows("running"))

    place.board.move(issue.identifier, "Backlog")

    await place.until(lambda: not place.rows("running"))
    assert (place.root / "workspaces" / issue.identifier).is_dir()


async def test_failures_back_off_and_are_shown_with_their_reason(place: Place) -> None:
    place.script(turns=[[{"status": "failed", "error": {"message": "out of paint"}}]])
    issue = place.board.add("Fails")
    await place.start()

    row = (await place.until(lambda: place.rows("retrying")))[issue.identifier]

    assert row["attempt"] == 1
    assert "out of paint" in row["error"]
    assert len(place.starts()) == 1


async def test_a_stalled_agent_is_ended_and_retried_later(place: Place) -> None:
    place.configure(codex={"stall_timeout_ms": 400})
    place.script(turns=HANGING, linger=True)
    issue = place.board.add("Falls silent")
    await place.start()

    row = (await place.until(lambda: place.rows("retrying")))[issue.identifier]

    assert "stalled for" in row["error"]
    assert len(place.starts()) == 1
    await place.until(lambda: place.rows("running") == {})


async def test_a_question_blocks_the_issue_and_a_restart_remembers(place: Place) -> None:
    question = {"ask": "mcpServer/elicitation/request", "params": {"message": "Which colour?"}}
    place.script(turns=[[question, {"hang": True}]])
    issue = place.board.add("Needs a person")
    await place.start()
    row = (await place.until(lambda: place.rows("blocked")))[issue.identifier]
    assert "Which colour?" in row["error"]
    place.daemons[-1].send_signal(signal.SIGKILL)
    await place.daemons[-1].wait()

    await place.start()

    again = await place.until(lambda: place.rows("blocked"))
    assert "Which colour?" in again[issue.identifier]["error"]
    assert len(place.starts()) == 1


async def test_a_retry_keeps_its_attempt_and_delay_over_a_restart(place: Place) -> None:
    place.script(turns=[[{"status": "failed", "error": {"message": "no"}}]])
    issue = place.board.add("Fails")
    await place.start()
    before = (await place.until(lambda: place.rows("retrying")))[issue.identifier]
    assert await place.stop() == 0

    await place.start()

    after = (await place.until(lambda: place.rows("retrying")))[issue.identifier]
    assert (after["attempt"], after["error"]) == (before["attempt"], before["error"])
    # Shown in whole seconds, so its fraction may fall on either side of one.
    due, was_due = (datetime.fromisoformat(row["due_at"]) for row in (after, before))
    assert abs(due - was_due) <= timedelta(seconds=1)
    assert len(place.starts()) == 1


async def test_a_stop_signal_ends_agents_that_ignore_everything(place: Place) -> None:
    place.script(turns=HANGING, linger=True)
    place.board.add("Is stubborn")
    await place.start()
    await place.until(lambda: (place.rows("running").get("AB-1") or {}).get("turn_count"))

    assert await place.stop() == 0
    assert place.processes() == []


async def test_a_stop_signal_ends_several_deaf_agents_at_once(place: Place) -> None:
    place.script(turns=HANGING, deaf=True)
    for title in ("One", "Two", "Three"):
        place.board.add(title)
    await place.start()
    await place.until(
        lambda: sum(bool(row["turn_count"]) for row in place.rows("running").values()) == 3
    )

    assert await place.stop() == 0

    # A second one was asked before the first was given up: they are waited for together.
    told = [
        entry["event"]
        for entry in place.record()
        if entry["event"] == "eof" or entry.get("message", {}).get("method") == "turn/interrupt"
    ]
    assert told[:2] == ["received"] * 2
    assert sorted(told) == ["eof"] * 3 + ["received"] * 3
    assert place.log().count("Agent did not end its turn") == 3
    assert place.processes() == []


async def test_a_refresh_is_accepted_and_an_agent_moves_its_issue(place: Place) -> None:
    place.configure(polling={"interval_ms": 60_000})
    place.script(turns=MOVING)
    issue = place.board.add("Is moved by its agent")
    await place.start()

    await place.until(lambda: place.board.get(issue.identifier).state == "Done")
    await place.until(lambda: not (place.root / "workspaces" / issue.identifier).exists())

    assert place.state()["counts"]["running"] == 0


async def test_orders_hold_work_back_over_a_restart_until_they_are_lifted(place: Place) -> None:
    place.script(turns=HANGING)
    await place.start()
    assert "paused" in place.command("pause", "--reason", "upgrade")
    issue = place.board.add("Waits for its operator")
    row = (await place.until(lambda: (place.state() or {}).get("waiting")))[0]
    assert row["gate"] == "not_held"
    assert "upgrade" in row["detail"]
    assert await place.stop() == 0

    await place.start()

    await place.until(lambda: (place.state() or {}).get("waiting"))
    explained = place.command("explain", issue.identifier, status=1)
    assert "SHUT  not_held" in explained
    assert place.starts() == []
    place.command("resume")
    await place.until(lambda: place.rows("running"))
    assert place.state()["holds"] == []


async def test_a_stopped_issue_waits_and_is_resumed(place: Place) -> None:
    place.script(turns=HANGING)
    issue = place.board.add("Is stopped")
    await place.start()
    await place.until(lambda: place.rows("running"))

    place.command("stop", issue.identifier, "--reason", "wrong branch")
    row = (await place.until(lambda: place.rows("blocked")))[issue.identifier]
    assert row["category"] == "stopped_by_operator"
    place.command("resume", issue.identifier)

    await place.until(lambda: len(place.starts()) == 2)
    assert issue.identifier in await place.until(lambda: place.rows("running"))


async def test_an_order_about_an_unknown_issue_is_refused(place: Place) -> None:
    await place.start()
    assert "AB-99" in place.command("stop", "AB-99", status=1)


async def test_an_agent_can_not_give_orders(place: Place) -> None:
    place.configure(
        hooks={
            "before_run": f"{sys.executable} -m symphony stop -w {place.workflow} "
            f"--instance {place.instance} > {place.root}/said.txt 2>&1; true"
        }
    )
    place.script(turns=HANGING)
    place.board.add("Has a cheeky agent")
    await place.start()
    await place.until(lambda: place.rows("running"))
    said_file = place.root / "said.txt"
    said = await place.until(lambda: said_file.exists() and said_file.read_text())
    assert "agents may not give orders" in said
    assert place.state()["holds"] == []


async def test_the_ledger_can_be_checked_exported_and_pruned(place: Place) -> None:
    place.script(turns=MOVING)
    issue = place.board.add("Leaves a trace")
    await place.start()
    await place.until(lambda: place.board.get(issue.identifier).state == "Done")
    await place.until(lambda: (place.state() or {}).get("counts", {}).get("running") == 0)
    await place.until(lambda: place.rows("retrying") == {})
    assert "well, version" in place.command("db", "check")
    rows = [json.loads(line) for line in place.command("db", "export").splitlines()]
    assert "session_started" in {row["event"] for row in rows if row["table"] == "events"}
    assert {row["identifier"] for row in rows if row["table"] == "runs"} == {issue.identifier}

    assert "1 runs forgotten" in place.command("db", "prune", "--older-than-days", "0")

    left = [json.loads(line) for line in place.command("db", "export").splitlines()]
    assert [row["table"] for row in left] == ["totals"]
    assert await place.stop() == 0


async def test_a_damaged_ledger_is_told_by_check_and_set_aside_by_the_next_start(
    place: Place,
) -> None:
    await place.start()
    assert await place.stop() == 0
    (ledger,) = (place.root / "state").rglob("ledger.sqlite3")
    ledger.write_bytes(b"no database at all" * 100)
    for words in (("check",), ("export",), ("prune", "--older-than-days", "0")):
        assert "not a database" in place.command("db", *words, status=1)
    assert [path.name for path in ledger.parent.glob("ledger.sqlite3*")] == ["ledger.sqlite3"]

    await place.start()

    assert list(ledger.parent.glob("ledger.sqlite3.damaged-*"))
    assert "the ledger was damaged" in place.log()


async def test_a_daemon_under_nohup_outlives_the_hangup_of_its_terminal(place: Place) -> None:
    place.script(turns=HANGING)
    issue = place.board.add("Is worked on after the logout")
    inherited = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        daemon = await place.start()
    finally:
        signal.signal(signal.SIGHUP, inherited)

    daemon.send_signal(signal.SIGHUP)

    await place.until(lambda: place.rows("running").get(issue.identifier, {}).get("turn_count"))
    assert "Stopping" not in place.log()
    assert await place.stop() == 0


async def test_a_hangup_stops_a_daemon_in_stages(place: Place) -> None:
    # Whoever runs the tests may have been told to ignore hang-ups, and a daemon would inherit it.
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        daemon = await place.start()
    finally:
        signal.signal(signal.SIGHUP, former)
    daemon.send_signal(signal.SIGHUP)
    assert await daemon.wait() == 0
    assert "Stopped" in place.log()


async def test_a_second_daemon_on_the_same_issues_and_workspaces_is_refused(place: Place) -> None:
    place.configure()
    first = await place.start()
    again = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "symphony", str(place.workflow), "--instance", f"{place.instance}-too"),
        env=place.environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await asyncio.wait_for(again.communicate(), 30)

    assert again.returncode != 0
    assert f"pid {first.pid}" in told.decode()
    assert str(place.root / "workspaces") in told.decode()
    assert place.state() is not None

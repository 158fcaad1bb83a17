"""``symphony status`` shows what others wrote without letting it steer the terminal."""

from __future__ import annotations

from symphony.cli.status import describe

STATE = {
    "counts": {"running": 0, "retrying": 1, "blocked": 0},
    "codex_totals": {"total_tokens": 0, "seconds_running": 0.0},
    "running": [],
    "blocked": [],
    "retrying": [
        {
            "issue_id": "1",
            "issue_identifier": "AB-1",
            "attempt": 1,
            "due_at": "2026-01-01T00:00:00Z",
            "category": "workspace_hook_failed",
            "error": "exit status 4: \x1b[2J\x00gone\nand more",
        }
    ],
}


def test_what_a_hook_printed_can_not_steer_the_terminal() -> None:
    text = "\n".join(describe(STATE))
    assert "workspace_hook_failed: exit status 4: \ufffd[2J\ufffdgone\nand more" in text

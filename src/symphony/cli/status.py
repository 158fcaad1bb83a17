"""``symphony status``: ask a running daemon over its control socket."""

from __future__ import annotations

import http.client
import json
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from symphony.cli.usage import printable
from symphony.errors import ControlError

_LIMIT_S = 20.0
"""Longer than a look-up in the tracker and a wait for the disk together."""


def show_status(workflow: Path, *, as_json: bool, instance: str | None) -> int:
    """Print what the daemon of this workflow is doing.

    Raises:
        ControlError: No daemon of this workflow runs, or it does not answer.
    """
    payload = fetch(workflow, "/api/v1/state", instance=instance)
    if as_json:
        json.dump(payload, sys.stdout, indent=2)
        print()
        return 0
    for line in describe(payload):
        print(line)
    return 0


def fetch(
    workflow: Path,
    path: str,
    *,
    instance: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Any:
    """GET a path of the daemon's API, found by the workflow's path (and environment, for XDG).

    Raises:
        ControlError: ``daemon_not_running`` or ``control_request_failed``.
    """
    answer = _ask(workflow, "GET", path, None, instance=instance, environ=environ)
    return answer[1]


def request(
    workflow: Path,
    method: str,
    path: str,
    *,
    body: Mapping[str, Any] | None = None,
    instance: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Any:
    """Ask the daemon for something that it may refuse.

    Raises:
        ControlError: ``daemon_not_running``, ``control_request_failed``, or the daemon's own code
            where it refused.
    """
    status, answer = _ask(workflow, method, path, body, instance=instance, environ=environ)
    if status >= 400:
        error = answer.get("error", {})
        raise ControlError(
            error.get("code", "control_request_failed"), error.get("message", f"status {status}")
        )
    return answer


def give_order(workflow: Path, body: Mapping[str, Any], *, instance: str | None) -> Any:
    """Give an order to the daemon; warn on standard error where its ledger has not taken it.

    Returns:
        The daemon's answer.

    Raises:
        ControlError: As ``request``.
    """
    taken = request(workflow, "POST", "/api/v1/control", body=body, instance=instance)
    if not taken.get("durable", True):
        print(
            "warning: the ledger can't be written; the order counts, but a crash would forget it",
            file=sys.stderr,
        )
    return taken


def _ask(
    workflow: Path,
    method: str,
    path: str,
    body: Mapping[str, Any] | None,
    *,
    instance: str | None,
    environ: Mapping[str, str] | None,
) -> tuple[int, Any]:
    from symphony.config.state_dir import find_instance

    holder = find_instance(workflow.expanduser(), instance=instance, env=environ)
    if holder is None:
        is_there = workflow.expanduser().is_file()
        mend = (
            f"; start one with: symphony {workflow}"
            if is_there
            else ", and there is no such file: give the path of its workflow file"
        )
        raise ControlError("daemon_not_running", f"no daemon of {workflow} is running{mend}")
    connection = _UnixConnection(holder.socket)
    content = None if body is None else json.dumps(body)
    try:
        connection.request(method, path, content, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ControlError(
            "control_request_failed",
            f"the daemon (pid {holder.pid}) does not answer on {holder.socket}: {error}",
        ) from error
    finally:
        connection.close()


def describe(payload: Any) -> list[str]:
    """Return the lines that ``symphony status`` prints of ``/api/v1/state``."""
    if "error" in payload:
        return [f"starting: {payload['error'].get('message', '')}"]
    counts, totals = payload["counts"], payload["codex_totals"]
    lines = [
        f"running {counts['running']}  retrying {counts['retrying']}  blocked {counts['blocked']}"
        f"  tokens {totals['total_tokens']:,}  runtime {totals['seconds_running']:.0f} s"
    ]
    lines += [f"  {row['detail']}" for row in payload.get("holds", ())]
    if payload.get("parked") is not None:
        until, lift = payload["parked_until"], "symphony resume --park"
        lines.append(f"  parked until {until}: {payload['parked']}; lift it with: {lift}")
    lines += [f"  breaker {row['detail']}" for row in payload.get("breakers", ())]
    lines += budget_lines(payload.get("budget"))
    costs = {row["issue_id"]: _cost(row) for row in (payload.get("budget") or {}).get("issues", ())}
    lines += [
        f"  host {row['host']}: {row['shortage']}"
        for row in payload.get("resources", ())
        if row["shortage"]
    ]
    problems = payload.get("problems", {})
    if problems.get("config"):
        lines.append(f"  the workflow file on disk is not in force: {problems['config']}")
    if problems.get("tracker"):
        lines.append(f"  the tracker could not be read: {problems['tracker']}")
    if problems.get("webhooks"):
        lines.append(f"  webhooks: {problems['webhooks']}")
    if problems.get("places"):
        lines.append(f"  {problems['places']}")
    if problems.get("ledger"):
        lines.append(f"  the ledger can't be written: {problems['ledger']}")
    hours = payload.get("active_hours")
    if hours is not None and not hours["open"]:
        lines.append(f"  {hours['detail']}")
    lines += [_running(row, costs.get(row["issue_id"], "")) for row in payload["running"]]
    lines += [
        f"  retry  {row['issue_identifier']:<12} attempt {row['attempt']:<3} "
        f"at {row['due_at']}  {costs.get(row['issue_id'], '')}"
        f"{_of_category(row)}{row['error'] or ''}"
        for row in payload["retrying"]
    ]
    lines += [
        f"  block  {row['issue_identifier']:<12} {costs.get(row['issue_id'], '')}{row['error']}"
        f"{_answer_by(row)}"
        for row in payload["blocked"]
    ]
    return [printable(line) for line in lines]


def budget_lines(budget: Any) -> list[str]:
    """Return a line for the day and for all work where they have limits."""
    named = [] if budget is None else [("day", budget["day"]), ("total", budget["total"])]
    lines = []
    for name, row in named:
        for limit in row["limits"]:
            spent, most = (f"{limit[part]:,.10g}" for part in ("spent", "limit"))
            state = f"  {row['shut']}" if row["shut"] else ""
            lines.append(f"  budget {name} {limit['quantity']} {spent} of {most}{state}")
    return lines


def _of_category(row: Any) -> str:
    return f"{row['category']}: " if row.get("category") and row["error"] else ""


def _answer_by(row: Any) -> str:
    by_answer = "answer" in row["unblock_by"]
    return f"; answer it with: symphony answer {row['issue_identifier']}" if by_answer else ""


def _cost(row: Any) -> str:
    """Return what an issue has cost over all of its runs, for its line."""
    money = f" ${row['usd']:,.2f}" if row["usd"] else ""
    return f"[{row['tokens']:,} tokens{money}, {row['runs']} runs]  "


def _running(row: Any, cost: str) -> str:
    tokens = row["tokens"]["total_tokens"]
    doing = f"stopping: {row['stopping']}" if row["stopping"] else row["last_message"] or ""
    return (
        f"  run    {row['issue_identifier']:<12} {row['state']:<14} "
        f"turn {row['turn_count']:<3} {tokens:>10,} tokens  {cost}{doing}"
    )


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over the control socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_LIMIT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

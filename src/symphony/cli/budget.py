"""``symphony budget show`` and ``raise``: what work has cost, and how more is granted."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter

from symphony.cli.status import give_order, request
from symphony.cli.usage import Whole, printable
from symphony.config.budget import micro_usd
from symphony.errors import UsageError
from symphony.model.spend import Quantity, shown

app = cyclopts.App(name="budget", help="Show what work has cost and its limits, or grant more.")

OfWorkflow = Annotated[
    Path, Parameter(name=("--workflow", "-w"), help="Whose daemon: the path of its workflow file.")
]
Instance = Annotated[str | None, Parameter(help="Name of the state directory.")]
_DEFAULT = Path("WORKFLOW.md")
_MOST = 10**15
"""The API takes no larger amount."""


@app.command
def show(
    *,
    json: Annotated[bool, Parameter(help="Print the API's answer as it is.", negative=())] = False,
    workflow: OfWorkflow = _DEFAULT,
    instance: Instance = None,
) -> int:
    """Show what the day, all work and each issue have spent, and their limits."""
    answer = request(workflow, "GET", "/api/v1/budget", instance=instance)
    if json:
        json_format.dump(answer, sys.stdout, indent=2)
        print()
        return 0
    for line in describe(answer):
        print(printable(line))
    return 0


@app.command(name="raise")
def raise_limit(
    scope: Annotated[str, Parameter(help="Identifier of an issue, or 'day', or 'total'.")],
    /,
    *,
    tokens: Annotated[Whole, Parameter(help="Tokens to add to the limit.")] = 0,
    usd: Annotated[str, Parameter(help="US dollars to add to the limit.")] = "0",
    wall_ms: Annotated[Whole, Parameter(help="Milliseconds of run time to add to the limit.")] = 0,
    attempts: Annotated[Whole, Parameter(help="Runs to add to the limit of an issue.")] = 0,
    reason: Annotated[str, Parameter(help="For the log.")] = "",
    workflow: OfWorkflow = _DEFAULT,
    instance: Instance = None,
) -> int:
    """Add to the limits of an issue, of the present day or of all work; what waited goes on."""
    money = micro_usd(usd)
    faults = [
        f"--{name} {amount}: give a whole number from 0 to {_MOST:,}; what was added can't be "
        "taken back"
        for name, amount in (("tokens", tokens), ("wall-ms", wall_ms), ("attempts", attempts))
        if not 0 <= amount <= _MOST
    ]
    if money is None or not 0 <= money <= _MOST:
        faults.append(f"--usd {usd}: give an amount such as 12.50, at most {_MOST // 10**6:,}")
    if not faults and not (tokens or money or wall_ms or attempts):
        faults.append("give at least one of --tokens, --usd, --wall-ms, --attempts above 0")
    if faults or money is None:
        raise UsageError("; ".join(faults))
    amounts = {"tokens": tokens, "micro_usd": money, "wall_ms": wall_ms, "attempts": attempts}
    body = {"action": "raise", "issue": scope, "reason": reason, "amounts": amounts}
    give_order(workflow, body, instance=instance)
    said = [
        f"+{shown(quantity, amount)}"
        for quantity, amount in (
            (Quantity.TOKENS, tokens),
            (Quantity.USD, money),
            (Quantity.WALL, wall_ms),
            (Quantity.ATTEMPTS, attempts),
        )
        if amount
    ]
    print(f"{scope}: {', '.join(said)}")
    return 0


def describe(answer: Any) -> list[str]:
    """Return the lines of ``budget show``."""
    lines = [
        _line(f"day {answer['date']}", answer["day"]),
        _line("total", answer["total"]),
    ]
    lines += [_line(row["issue_identifier"] or row["issue_id"], row) for row in answer["issues"]]
    return lines


def _line(name: str, row: Any) -> str:
    spent = [
        f"{row['tokens']:>12,} tokens",
        f"{shown(Quantity.USD, round(row['usd'] * 1_000_000)):>10}",
        f"{row['wall_seconds']:>9,.0f} s",
        f"{row['runs']:>4} runs",
    ]
    if row["unpriced_tokens"]:
        spent.append(f"{row['unpriced_tokens']:,} tokens without a price")
    limits = [_limit(limit) for limit in row["limits"]]
    text = f"{name:<16} {'  '.join(spent)}"
    if limits:
        text += f"  limits: {', '.join(limits)}"
    return f"{text}  SPENT" if row["shut"] else text


def _limit(limit: Any) -> str:
    quantity = Quantity(limit["quantity"])
    scale = 1_000_000 if quantity is Quantity.USD else 1
    text = shown(quantity, round(limit["limit"] * scale))
    if limit["raised"]:
        text += f" (raised by {shown(quantity, round(limit['raised'] * scale))})"
    return text

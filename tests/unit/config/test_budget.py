"""The ``budget`` section: what may be written, and what is told where it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from symphony.config.budget import BudgetSettings, micro_usd
from symphony.config.codex_model import model_of
from symphony.config.loading import load_workflow
from symphony.errors import SettingsError
from symphony.model.spend import BudgetScope, Limits
from symphony.trackers.registry import PROFILES

PRICES = "prices: {gpt-5: {input_per_million: 1, output_per_million: 2}}"


def load(folder: Path, budget: str, *, command: str = "codex app-server", **environ: str) -> Any:
    path = folder / "WORKFLOW.md"
    lines = ["---", "tracker: {kind: memory}", f"codex: {{command: {command!r}}}", "budget:"]
    lines += [f"  {line}" for line in budget.splitlines()]
    path.write_text("\n".join([*lines, "---", "x"]))
    return load_workflow(
        path, environ={"HOME": str(folder), **environ}, profiles=PROFILES
    ).settings.budget


def faults(folder: Path, budget: str, **more: Any) -> dict[str, str]:
    with pytest.raises(SettingsError) as caught:
        load(folder, budget, **more)
    return {fault.path: fault.problem for fault in caught.value.faults}


def test_nothing_is_limited_by_default() -> None:
    settings = BudgetSettings()
    assert not any(settings.limits(scope).is_set for scope in BudgetScope)
    assert settings.money_scope is None


def test_limits_are_read_as_written(tmp_path: Path) -> None:
    budget = load(
        tmp_path,
        f"turn: {{tokens: '1000'}}\nissue: {{usd: 12.5, wall_ms: 60000, attempts: 3}}\n{PRICES}",
    )
    assert budget.limits(BudgetScope.TURN) == Limits(scope=BudgetScope.TURN, tokens=1000)
    assert budget.limits(BudgetScope.ISSUE) == Limits(
        scope=BudgetScope.ISSUE, micro_usd=12_500_000, wall_ms=60_000, attempts=3
    )
    assert budget.money_scope is BudgetScope.ISSUE


def test_all_faults_are_told_at_once_with_their_values(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        "turn: {tokens: 0, wal_ms: 5}\n"
        "run: 7\n"
        "issue: {attempts: many}\n"
        "day: {usd: -1, attempts: 3}\n"
        "total: {usd: 0.0000001}\n"
        "prices: {gpt-5.1: {input_per_million: x}}\n"
        "day_timezone: Mars/Olympus\n"
        "no_progress_turns: -1\n"
        "daily: {}\n",
    )
    assert found["budget.turn.tokens"].startswith("must be an integer above 0")
    assert found["budget.turn.wal_ms"] == "is no setting; did you mean 'wall_ms'?"
    assert found["budget.run"] == "must be a map of keys and values"
    assert found["budget.issue.attempts"].startswith("must be an integer above 0")
    assert "US dollars above 0" in found["budget.day.usd"]
    assert "is no setting" in found["budget.day.attempts"]
    assert "six decimals" in found["budget.total.usd"]
    assert "US dollars for a million tokens" in found["budget.prices.gpt-5.1.input_per_million"]
    assert found["budget.prices.gpt-5.1.output_per_million"] == "is required"
    assert "time zone" in found["budget.day_timezone"]
    assert "0 or above" in found["budget.no_progress_turns"]
    assert "is no setting" in found["budget.daily"]
    assert len(found) == 12


@pytest.mark.parametrize(
    ("value", "micro"),
    [
        (1, 1_000_000),
        (0.1, 100_000),
        ("12.50", 12_500_000),
        ("0.000001", 1),
        (0, 0),
        ("0.0000001", None),
        ("1e99", None),
        (float("inf"), None),
        (float("nan"), None),
        ("five", None),
        (True, None),
        (None, None),
    ],
)
def test_money_is_exact_to_a_millionth(value: object, micro: int | None) -> None:
    assert micro_usd(value) == micro


def test_the_price_is_that_of_the_exact_name_then_the_longest_beginning_then_default() -> None:
    def price(dollars: int) -> dict[str, int]:
        return {"input_per_million": dollars, "output_per_million": 0}

    some = BudgetSettings.model_validate(
        {"prices": {"gpt": price(1), "gpt-5": price(2), "gpt-5-mini": price(3)}}
    )
    names = {"gpt-5": 2, "gpt-5-mini": 3, "gpt-5-mini-2026": 3, "gpt-5.1": 2, "gpt-4": 1}
    for model, dollars in names.items():
        found = some.price_of(model)
        assert found is not None
        assert found.input == dollars * 1_000_000
        assert found.cached_input == found.input
    assert some.price_of("o9") is None
    assert some.price_of(None) is None
    every = BudgetSettings.model_validate({"prices": {"default": price(9)}})
    for model in ("o9", None):
        found = every.price_of(model)
        assert found is not None
        assert found.input == 9_000_000


def test_a_limit_in_usd_needs_prices(tmp_path: Path) -> None:
    found = faults(tmp_path, "day: {usd: 5}")
    assert found == {
        "budget.prices": "is required because budget.day.usd is set: a price for each model, or "
        "default"
    }


@pytest.mark.parametrize(
    "command",
    ["codex -m o9 app-server", "codex -c model=o9 app-server", 'codex --config model="o9" x'],
)
def test_a_model_that_the_command_names_must_have_a_price(tmp_path: Path, command: str) -> None:
    budget = f"day: {{usd: 5}}\n{PRICES}"
    found = faults(tmp_path, budget, command=command)
    assert "no price for the model 'o9' (codex.command)" in found["budget.prices"]
    load(tmp_path, budget, command=command.replace("o9", "gpt-5-mini"))


def test_a_model_of_codexs_own_configuration_must_have_a_price(tmp_path: Path) -> None:
    home = tmp_path / "codex"
    home.mkdir()
    (home / "config.toml").write_text('model = "gpt-5"\n[profiles.cheap]\nmodel = "o9"\n')
    budget = f"day: {{usd: 5}}\n{PRICES}"
    load(tmp_path, budget, CODEX_HOME=str(home))
    found = faults(
        tmp_path, budget, command="codex --profile cheap app-server", CODEX_HOME=str(home)
    )
    assert "'o9'" in found["budget.prices"]
    assert str(home / "config.toml") in found["budget.prices"]


@pytest.mark.parametrize("command", ["codex -m $MODEL app-server", "./wrapper", "codex 'x", ""])
def test_a_model_that_is_not_plainly_written_is_left_to_the_run(
    tmp_path: Path, command: str
) -> None:
    if "$" not in command:
        (tmp_path / ".codex").mkdir()
        (tmp_path / ".codex" / "config.toml").write_text('model = "o9"\n')
    assert model_of(command, {"HOME": str(tmp_path)}) is None


def test_an_unreadable_configuration_of_codex_is_not_ours_to_judge(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("model = [")
    assert model_of("codex app-server", {"CODEX_HOME": str(tmp_path)}) is None


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        BudgetSettings().day_timezone = "UTC"  # type: ignore[misc]

from __future__ import annotations

from typing import Any

import pytest

from symphony.trackers.linear_settings import (
    DEFAULT_ENDPOINT,
    codes,
    resolve,
    secret_environment_names,
)

GOOD = {"project_slug": "demo"}


def key_of(provider: dict[str, Any], environ: dict[str, str]) -> str | None:
    settings, _ = resolve({**GOOD, **provider}, environ)
    return settings.api_key if settings else None


def test_the_defaults_are_linear_s_own() -> None:
    settings, faults = resolve({"project_slug": " demo "}, {"LINEAR_API_KEY": "k"})
    assert faults == []
    assert settings is not None
    assert settings.endpoint == DEFAULT_ENDPOINT
    assert (settings.api_key, settings.project_slug, settings.assignee) == ("k", "demo", None)
    assert "'k'" not in repr(settings)


@pytest.mark.parametrize(
    ("value", "environ", "key"),
    [
        (None, {"LINEAR_API_KEY": "fallback"}, "fallback"),
        ("literal", {"LINEAR_API_KEY": "fallback"}, "literal"),
        ("$MINE", {"MINE": " own ", "LINEAR_API_KEY": "fallback"}, "own"),
        ("$MINE", {"MINE": "", "LINEAR_API_KEY": "fallback"}, None),
        ("$MINE", {"MINE": "  ", "LINEAR_API_KEY": "fallback"}, None),
        ("$MINE", {"LINEAR_API_KEY": "fallback"}, "fallback"),
        ("$MINE", {}, None),
        ("  ", {"LINEAR_API_KEY": "fallback"}, None),
        ("$bad-name", {"LINEAR_API_KEY": "fallback"}, None),
        ("env:MINE", {"MINE": "x"}, "env:MINE"),
        (7, {"LINEAR_API_KEY": "fallback"}, None),
        ("a\nb", {}, None),
    ],
)
def test_the_token_is_looked_up_as_the_reference_does(
    value: Any, environ: dict[str, str], key: str | None
) -> None:
    assert key_of({"api_key": value}, environ) == key


def test_a_missing_token_names_the_variable_to_export_and_never_the_value() -> None:
    _, faults = resolve({**GOOD, "api_key": "$MINE"}, {"MINE": ""})
    assert "export MINE" in str(faults[0])
    _, faults = resolve({**GOOD, "api_key": "$bad-secret"}, {})
    assert "bad-secret" not in str(faults[0])


def test_all_faults_come_at_once_with_their_keys() -> None:
    provider = {"endpoint": 7, "api_key": 8, "project_slug": " ", "assignee": []}
    settings, faults = resolve(provider, {})
    assert settings is None
    assert [fault.path for fault in faults] == [
        f"tracker.provider.{key}" for key in ("endpoint", "api_key", "project_slug", "assignee")
    ]
    assert codes(faults) == (
        "invalid_linear_endpoint",
        "missing_linear_api_token",
        "missing_linear_project_slug",
        "invalid_linear_assignee",
    )


@pytest.mark.parametrize(
    "endpoint", ["", "ftp://x", "api.linear.app", "http://[", "https://", "http://a:99999/"]
)
def test_an_endpoint_that_is_no_url_is_a_fault(endpoint: str) -> None:
    _, faults = resolve({**GOOD, "api_key": "k", "endpoint": endpoint}, {})
    assert codes(faults) == ("invalid_linear_endpoint",)


@pytest.mark.parametrize(
    ("value", "environ", "assignee"),
    [
        (None, {"LINEAR_ASSIGNEE": "me"}, "me"),
        ("$WHO", {"WHO": "user-1"}, "user-1"),
        ("$WHO", {"WHO": "", "LINEAR_ASSIGNEE": "me"}, None),
        ("$WHO", {"LINEAR_ASSIGNEE": "me"}, "me"),
        ("user-2", {"LINEAR_ASSIGNEE": "me"}, "user-2"),
    ],
)
def test_the_assignee_is_looked_up_likewise(
    value: Any, environ: dict[str, str], assignee: str | None
) -> None:
    settings, _ = resolve({**GOOD, "api_key": "k", "assignee": value}, environ)
    assert settings is not None
    assert settings.assignee == assignee


def test_the_secret_names_hold_the_default_and_the_referenced_variable() -> None:
    assert secret_environment_names({}) == ("LINEAR_API_KEY",)
    assert secret_environment_names({"api_key": "$MINE"}) == ("LINEAR_API_KEY", "MINE")
    assert secret_environment_names({"api_key": "$LINEAR_API_KEY"}) == ("LINEAR_API_KEY",)
    assert secret_environment_names({"api_key": "literal"}) == ("LINEAR_API_KEY",)


def test_team_and_blockers_route_and_their_faults_are_named() -> None:
    base = {"project_slug": "demo", "api_key": "literal"}
    good = {**base, "team": " ENG ", "blockers": "any", "sub_issues": "never"}
    settings, faults = resolve(good, {})
    assert faults == []
    assert settings is not None
    assert (settings.team, settings.blocked_anywhere) == ("eng", True)
    assert settings.sub_issues == "never"
    bad = {**base, "team": 7, "blockers": "always", "sub_issues": "first", "teem": 1}
    settings, faults = resolve(bad, {})
    assert settings is None
    keys = [fault.path.rpartition(".")[2] for fault in faults]
    assert keys == ["team", "blockers", "sub_issues", "teem"]
    assert faults[2].problem == "must be one of independent, before_parent, with_parent, never"
    assert "did you mean `team`" in faults[3].problem

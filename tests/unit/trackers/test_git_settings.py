"""The settings of `github` and `gitlab`, side by side since their rules are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from symphony.config.settings import TrackerSettings
from symphony.errors import TrackerError
from symphony.trackers import registry
from symphony.trackers.github_settings import resolve as resolve_github
from symphony.trackers.gitlab_settings import resolve as resolve_gitlab

ENVIRONMENT = {"GITHUB_TOKEN": "ghp_1", "GITLAB_PAT": "glpat_1", "MINE": " other ", "EMPTY": ""}
GOOD: dict[str, dict[str, Any]] = {
    "github": {"repo": "octo/demo"},
    "gitlab": {"project_path": "group/sub/demo"},
}
STATES = {"github": ("open", "closed"), "gitlab": ("opened", "closed")}


def tracker(
    kind: str, active: Any = None, terminal: Any = None, **provider: Any
) -> TrackerSettings:
    return TrackerSettings(
        kind=kind,
        provider={k: v for k, v in {**GOOD[kind], **provider}.items() if v != "ABSENT"},
        active_states=[STATES[kind][0]] if active is None else active,
        terminal_states=[STATES[kind][1]] if terminal is None else terminal,
    )


def faults(kind: str, environ: dict[str, str] | None = None, **fields: Any) -> list[str]:
    settings = tracker(kind, **fields)
    found = registry.validate(settings, ENVIRONMENT if environ is None else environ, Path())
    assert all("ghp_" not in str(fault) and "glpat_" not in str(fault) for fault in found)
    return [str(fault) for fault in found]


CASES: list[tuple[str, dict[str, Any], str]] = [
    ("github", {"repo": "ABSENT"}, "missing_github_repo"),
    ("github", {"repo": 7}, "missing_github_repo"),
    ("github", {"repo": "$EMPTY"}, "missing_github_repo"),
    ("github", {"repo": "octo"}, "invalid_github_repo"),
    ("github", {"repo": "octo/"}, "invalid_github_repo"),
    ("github", {"repo": "octo/a b"}, "invalid_github_repo"),
    ("github", {"repo": "octo/demo/issues"}, "invalid_github_repo"),
    ("github", {"repo": "octo/.."}, "invalid_github_repo"),
    ("github", {"token": "$EMPTY"}, "missing_github_token"),
    ("github", {"token": "$bad-name"}, "missing_github_token"),
    ("github", {"token": 7}, "missing_github_token"),
    ("github", {"token": "ghp_\n"}, ""),
    ("github", {"token": "ghp_\u00e9"}, "missing_github_token"),
    ("github", {"api_url": "http://api.github.com"}, "invalid_github_api_url"),
    ("github", {"api_url": "https://"}, "invalid_github_api_url"),
    ("github", {"api_url": "https://me:pw@x.example"}, "invalid_github_api_url"),
    ("github", {"api_url": "https://x.example/?a=b"}, "invalid_github_api_url"),
    ("github", {"api_url": 7}, "invalid_github_api_url"),
    ("github", {"api_url": "http://127.0.0.1:80/"}, ""),
    ("github", {"active": ["opne"]}, "did you mean `open`"),
    ("github", {"active": [" OPEN "], "terminal": ["Closed"]}, ""),
    ("github", {"active": [], "terminal": []}, ""),
    ("github", {"active": ["closed"]}, "invalid_github_states"),
    ("github", {"terminal": ["open"]}, "invalid_github_states"),
    ("github", {"active": ["Todo"], "state_labels": ["Todo"]}, ""),
    ("github", {"active": ["Todoo"], "state_labels": {"Todo": "x"}}, "did you mean `todo`"),
    ("github", {"state_labels": "Todo"}, "state_labels"),
    ("github", {"state_labels": [" "]}, "state_labels"),
    ("github", {"state_labels": ["a", "A"]}, "twice"),
    ("github", {"project": "3"}, "number of a project"),
    ("github", {"project": 3, "active": ["Whatever"], "terminal": ["Done"]}, ""),
    ("github", {"project": 3, "active": ["closed"]}, "can't be active"),
    ("github", {"project": 3, "state_labels": ["a"]}, "exclude each other"),
    ("github", {"project_owner": " "}, "must be a name"),
    ("github", {"dependencies": "yes"}, "true or false"),
    ("github", {"priority_labels": {"p0": "high"}}, "whole numbers"),
    ("github", {"tool_scope": "world"}, "one of repository, owner, any"),
    ("github", {"api_ulr": "x"}, "did you mean `api_url`"),
    ("gitlab", {"project_path": "ABSENT"}, "missing_gitlab_project_path"),
    ("gitlab", {"project_path": "a b"}, "invalid_gitlab_project_path"),
    ("gitlab", {"project_path": "a\0b"}, "invalid_gitlab_project_path"),
    ("gitlab", {"project_path": "a/../b"}, "invalid_gitlab_project_path"),
    ("gitlab", {"project_path": "a%2Fb"}, "invalid_gitlab_project_path"),
    ("gitlab", {"project_path": "42"}, ""),
    ("gitlab", {"api_key": "$EMPTY"}, "missing_gitlab_api_key"),
    ("gitlab", {"api_url": "ftp://x.example"}, "invalid_gitlab_api_url"),
    ("gitlab", {"active": ["open"]}, "invalid_gitlab_states"),
    ("gitlab", {"active": ["todo"], "state_scope": "flow"}, ""),
    ("gitlab", {"state_scope": ""}, "state_scope"),
    ("gitlab", {"state_scope": "flow", "state_labels": ["a"]}, "exclude each other"),
    ("gitlab", {"project_path": "42", "blocking_links": True}, "not its number"),
    ("gitlab", {"priority_weights": {3: 1}}, ""),
    ("gitlab", {"priority_weights": {"heavy": 1}}, "map of weights"),
    ("gitlab", {"tool_scope": "repository"}, "one of project, group, any"),
]


@pytest.mark.parametrize(("kind", "fields", "words"), CASES, ids=[f"{c[0]} {c[1]}" for c in CASES])
def test_a_fault_names_its_key_and_its_mend(kind: str, fields: Any, words: str) -> None:
    found = faults(kind, **fields)
    assert [words in fault for fault in found] == ([True] if words else [])


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_all_faults_come_at_once_in_the_order_of_the_reference(kind: str) -> None:
    place = next(iter(GOOD[kind]))
    found = faults(kind, environ={}, api_url="x", active=["a"], terminal=["b"], **{place: None})
    codes = [fault.rpartition("(")[2].partition(")")[0] for fault in found]
    secret, path = {
        "github": ("missing_github_token", "missing_github_repo"),
        "gitlab": ("missing_gitlab_api_key", "missing_gitlab_project_path"),
    }[kind]
    states = f"invalid_{kind}_states"
    assert codes == [f"invalid_{kind}_api_url", path, secret, states, states]


@pytest.mark.parametrize(("value", "token"), [(None, "ghp_1"), ("$MINE", "other"), (" x ", "x")])
def test_a_token_is_looked_up(value: Any, token: str) -> None:
    settings, found = resolve_github(tracker("github", token=value), ENVIRONMENT)
    assert found == []
    assert settings is not None
    assert settings.token == token
    assert token not in repr(settings)
    assert settings.secret_environment_names == (
        ("GITHUB_TOKEN", "MINE") if value == "$MINE" else ("GITHUB_TOKEN",)
    )


def test_a_variable_that_is_not_set_falls_back() -> None:
    settings, _ = resolve_gitlab(tracker("gitlab", api_key="$NOT_SET"), ENVIRONMENT)
    assert settings is not None
    assert settings.api_key == "glpat_1"
    names = settings.secret_environment_names
    assert names == ("GITLAB_PAT", "GITLAB_ACCESS_TOKEN", "NOT_SET")


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_a_missing_token_has_a_category_of_its_own(kind: str) -> None:
    with pytest.raises(TrackerError, match="export GIT") as caught:
        registry.build(tracker(kind), {}, Path())
    assert caught.value.category == "missing_tracker_secret"


@pytest.mark.parametrize(
    ("api_url", "graphql"),
    [
        (None, "https://api.github.com/graphql"),
        ("https://ghe.example/api/v3/", "https://ghe.example/api/graphql"),
    ],
)
def test_graphql_is_beside_the_rest_api(api_url: Any, graphql: str) -> None:
    settings, _ = resolve_github(tracker("github", api_url=api_url), ENVIRONMENT)
    assert settings is not None
    assert settings.graphql_url == graphql

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from symphony.config.settings import TrackerSettings
from symphony.errors import TrackerError
from symphony.trackers import registry
from symphony.trackers.jira_jql import UnusableJql, scoped, split_order, state_query
from symphony.trackers.jira_settings import DEFAULT_PRIORITIES, JiraSettings, resolve

GOOD = {"base_url": "https://x.atlassian.net", "email": "a@x.example", "project_key": "EX"}
ENVIRON = {"JIRA_API_TOKEN": "secret-token"}
STATES = {"active_states": ["To Do"], "terminal_states": ["Done"]}


def tracker(provider: dict[str, Any], **states: Any) -> TrackerSettings:
    return TrackerSettings(kind="jira", provider=provider, **{**STATES, **states})


def good(**provider: Any) -> JiraSettings:
    settings, faults = resolve(tracker({**GOOD, **provider}), ENVIRON)
    assert faults == []
    assert settings is not None
    return settings


def problems(provider: dict[str, Any], environ: dict[str, str], **states: Any) -> dict[str, str]:
    settings, faults = resolve(tracker(provider, **states), environ)
    assert (settings is None) == bool(faults)
    return {fault.path.removeprefix("tracker.provider."): fault.problem for fault in faults}


def test_everything_may_come_from_the_environment_but_the_project() -> None:
    environ = {
        "JIRA_BASE_URL": " https://x.atlassian.net/ ",
        "JIRA_EMAIL": " a@x.example ",
        "JIRA_API_TOKEN": " t ",
        "KEY": " EX ",
    }
    settings, faults = resolve(tracker({"project_key": "$KEY"}), environ)
    assert faults == []
    assert settings is not None
    assert settings.base_url == "https://x.atlassian.net"
    assert (settings.email, settings.api_token, settings.project_key) == ("a@x.example", "t", "EX")
    assert "'t'" not in repr(settings)
    assert settings.secret_environment_names == ("JIRA_API_TOKEN",)
    assert good(api_token="$MINE").secret_environment_names == ("JIRA_API_TOKEN", "MINE")


def test_all_faults_come_at_once_with_keys_names_and_mends() -> None:
    found = problems({}, {})
    assert list(found) == ["base_url", "email", "api_token", "project_key"]
    assert "export JIRA_BASE_URL (invalid_jira_base_url)" in found["base_url"]
    assert "export JIRA_EMAIL (missing_jira_email)" in found["email"]
    assert "export JIRA_API_TOKEN" in found["api_token"]
    assert "(missing_jira_api_token)" in found["api_token"]
    assert "(missing_jira_project_key)" in found["project_key"]


@pytest.mark.parametrize(
    "url",
    [
        "http://x.atlassian.net",
        "x.atlassian.net",
        "https://",
        "https://x.example/?a=1",
        "https://x.example/#a",
        "$bad-name",
        7,
        " ",
    ],
)
def test_an_address_that_can_t_be_trusted_with_a_token_is_a_fault(url: Any) -> None:
    assert "invalid_jira_base_url" in problems({**GOOD, "base_url": url}, ENVIRON)["base_url"]


@pytest.mark.parametrize(
    ("value", "environ"),
    [
        ("$MINE", {"MINE": "", "JIRA_API_TOKEN": "x"}),
        ("$MINE", {}),
        ("$bad-name", {"JIRA_API_TOKEN": "x"}),
        (7, {"JIRA_API_TOKEN": "x"}),
        (" ", {"JIRA_API_TOKEN": "x"}),
        ("a\nb", {}),
    ],
)
def test_a_token_that_is_missing_is_a_fault_that_does_not_show_it(
    value: Any, environ: dict[str, str]
) -> None:
    settings, faults = resolve(tracker({**GOOD, "api_token": value}), environ)
    assert settings is None
    assert "missing_jira_api_token" in str(faults[0])
    assert faults[0].value is None


@pytest.mark.parametrize("email", ["a:b@x.example", "ä@x.example", "a\n@x.example"])
def test_an_email_that_basic_credentials_can_t_hold_is_a_fault(email: str) -> None:
    assert "email" in problems({**GOOD, "email": email}, ENVIRON)


def test_states_have_no_default() -> None:
    settings = TrackerSettings(kind="jira", provider=GOOD)
    found = [str(fault) for fault in resolve(settings, ENVIRON)[1]]
    assert "missing_jira_active_states" in found[0]
    assert "missing_jira_terminal_states" in found[1]
    assert resolve(tracker(GOOD, active_states=[], terminal_states=[]), ENVIRON)[1] == []
    (fault,) = resolve(tracker(GOOD, active_states=["To Do", " "]), ENVIRON)[1]
    assert fault.path == "tracker.active_states"
    assert "invalid_jira_states" in fault.problem


def test_categories_are_checked_by_name() -> None:
    assert good(states="category").by_category
    provider = {**GOOD, "states": "category"}
    settings = tracker(provider, active_states=["to do", "In Progres"])
    (fault,) = resolve(settings, ENVIRON)[1]
    assert "did you mean `in progress`?" in fault.problem
    assert "invalid_jira_states" in fault.problem


@pytest.mark.parametrize(
    ("value", "clause"),
    [
        ("open", "sprint in openSprints()"),
        (" Open ", "sprint in openSprints()"),
        (17, "sprint = 17"),
        ("17", "sprint = 17"),
        ('My "first"', 'sprint = "My \\"first\\""'),
    ],
)
def test_a_sprint_is_the_open_one_or_a_number_or_a_name(value: Any, clause: str) -> None:
    assert good(sprint=value).filters == (clause,)


@pytest.mark.parametrize(
    "jql",
    ["", " ", 7, "a = b) OR (c = d", "(a", 'a = "b', "a = b ORDER BY rank", "a = 'b", "a)"],
)
def test_a_filter_that_could_reach_around_its_brackets_is_a_fault(jql: Any) -> None:
    assert "jql" in problems({**GOOD, "jql": jql}, ENVIRON)


def test_filters_are_joined_with_the_scope() -> None:
    settings = good(sprint="open", jql='component = "A (b" OR labels = x')
    assert settings.filters == (
        "sprint in openSprints()",
        '(component = "A (b" OR labels = x)',
    )
    assert state_query("EX", ["A"], filters=settings.filters) == (
        'project = "EX" AND status IN ("A") AND sprint in openSprints() '
        'AND (component = "A (b" OR labels = x)'
    )


@pytest.mark.parametrize(
    ("jql", "result"),
    [
        ("", 'project = "EX"'),
        ("a = b", 'project = "EX" AND (a = b)'),
        ("a = b OR c = d order by rank", 'project = "EX" AND (a = b OR c = d) order by rank'),
        ("ORDER  BY rank DESC", 'project = "EX" ORDER  BY rank DESC'),
        ('a = "ORDER BY x"', 'project = "EX" AND (a = "ORDER BY x")'),
        ('a ~ "it\\"s (" ', 'project = "EX" AND (a ~ "it\\"s (")'),
        ("reorder by = 1", 'project = "EX" AND (reorder by = 1)'),
    ],
)
def test_a_query_is_narrowed_down_to_the_project(jql: str, result: str) -> None:
    assert scoped(jql, "EX") == result


@pytest.mark.parametrize("jql", ["x) OR (y", "a ORDER BY b) OR (c", 'x"', "'", "a ORDER BY (b)"])
def test_a_query_that_could_escape_its_brackets_is_refused(jql: str) -> None:
    with pytest.raises(UnusableJql):
        split_order(jql)


def test_priorities_are_a_map_or_jira_s_own() -> None:
    assert good().priorities == {}
    assert good(priorities="default").priorities == DEFAULT_PRIORITIES
    assert good(priorities={" Urgent ": 1}).priorities == {"urgent": 1}
    assert "priorities" in problems({**GOOD, "priorities": {"High": "1"}}, ENVIRON)


def test_switches_and_words_are_checked_and_unknown_keys_named() -> None:
    settings = good(read_only=True, tool_scope="any", description="markdown")
    assert (settings.read_only, settings.any_project, settings.markdown) == (True, True, True)
    found = problems(
        {
            **GOOD,
            "read_only": "yes",
            "tool_scope": "world",
            "description": "html",
            "states": "x",
            "sprint": 0,
            "projectkey": "EX",
        },
        ENVIRON,
    )
    assert set(found) == {
        "read_only",
        "tool_scope",
        "description",
        "states",
        "sprint",
        "projectkey",
    }
    assert "did you mean `project_key`?" in found["projectkey"]


def test_the_registry_builds_it_and_names_a_missing_token(tmp_path: Path) -> None:
    built = registry.build(tracker(dict(GOOD)), ENVIRON, tmp_path)
    assert built.kind == "jira"
    assert built.secret_environment_names == ("JIRA_API_TOKEN",)
    with pytest.raises(TrackerError, match="export JIRA_API_TOKEN") as caught:
        registry.build(tracker(dict(GOOD)), {}, tmp_path)
    assert caught.value.category == "missing_tracker_secret"
    with pytest.raises(TrackerError) as caught:
        registry.build(tracker({}), ENVIRON, tmp_path)
    assert caught.value.category == "invalid_tracker_config"

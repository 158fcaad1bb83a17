"""Every misconfiguration of a tracker has its own message, with the key and the mend.

Through the workflow file, as a person meets them: what can be seen in the file comes from loading
it, all at once; what only the tracker knows comes before anything is dispatched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from rest_server import Fault
from tracker_worlds import KINDS, RemoteHarness, open_harness

from symphony.config.loading import load_workflow
from symphony.config.settings import TrackerSettings
from symphony.errors import SettingFault, SettingsError
from symphony.trackers import registry
from symphony.trackers.base import ChecksAtStart

ABSENT = "leave this out"
PROVIDER = "tracker.provider"
SECTIONS: dict[str, dict[str, Any]] = {
    "linear": {"project_slug": "demo", "api_key": "$OUR_TOKEN"},
    "github": {"repo": "octo/demo", "token": "$OUR_TOKEN"},
    "gitlab": {"project_path": "group/demo", "api_key": "$OUR_TOKEN"},
    "jira": {
        "base_url": "https://demo.atlassian.net",
        "email": "a@b.example",
        "api_token": "$OUR_TOKEN",
        "project_key": "DEMO",
    },
    "asana": {"project_gid": "900", "api_key": "$OUR_TOKEN"},
    "local": {"path": "board", "prefix": "DEMO"},
    "memory": {},
}
STATES = {"github": ("open", "closed"), "gitlab": ("opened", "closed")}

Row = tuple[str, dict[str, Any], str, str]
"""Kind, changes (``active_states`` and the like, or keys of the provider), path, words."""


def rows_of(kind: str, *rows: tuple[dict[str, Any], str, str]) -> list[Row]:
    return [(kind, changes, path, words) for changes, path, words in rows]


def of_tool(kind: str, scopes: str) -> list[Row]:
    return rows_of(
        kind,
        ({"tool_scope": "world"}, f"{PROVIDER}.tool_scope", f"must be one of {scopes}"),
        ({"tool_scope": 7}, f"{PROVIDER}.tool_scope", f"must be one of {scopes}"),
        ({"read_only": "yes"}, f"{PROVIDER}.read_only", "must be true or false"),
        ({"read_olny": True}, f"{PROVIDER}.read_olny", "did you mean `read_only`"),
    )


def of_secret(kind: str, key: str, variable: str, code: str) -> list[Row]:
    path = f"{PROVIDER}.{key}"
    return rows_of(
        kind,
        ({key: ABSENT}, path, f"export {variable}"),
        ({key: "$NOT_THERE"}, path, "export NOT_THERE"),
        ({key: "$NOT_THERE"}, path, code),
        ({key: "$EMPTY"}, path, code),
        ({key: "$bad-name"}, path, code),
        ({key: 7}, path, code),
        ({key: ["$OUR_TOKEN"]}, path, code),
        ({key: "tök"}, path, "characters no token has"),
        ({key: "to\nken"}, path, "characters no token has"),
    )


def of_url(kind: str, key: str, code: str, *more: Any) -> list[Row]:
    bad = ["ftp://x.example", "x.example", "https://", "https://x.example:99999", "", 7, [], *more]
    return rows_of(kind, *(({key: url}, f"{PROVIDER}.{key}", code) for url in bad))


STRICT_URLS = (
    "http://x.example",
    "https://me:secret@x.example",
    "https://x.example/?a=b",
    "https://x.example/#a",
    "https://x.example/a b",
)


def of_states(kind: str, *, required: bool = True) -> list[Row]:
    active, terminal = "tracker.active_states", "tracker.terminal_states"
    found = rows_of(
        kind,
        ({"active_states": 7}, active, "must be"),
        ({"terminal_states": {"a": 1}}, terminal, "must be"),
        ({"active_states": [["Todo"]]}, active, "must be"),
    )
    if required:
        found += rows_of(
            kind,
            ({"active_states": ABSENT}, active, "is required"),
            ({"terminal_states": ABSENT}, terminal, "is required"),
        )
    return found


FILE: list[Row] = [
    *of_secret("linear", "api_key", "LINEAR_API_KEY", "missing_linear_api_token"),
    *of_url("linear", "endpoint", "invalid_linear_endpoint"),
    *of_tool("linear", "project, team, any"),
    *of_states("linear", required=False),
    *rows_of(
        "linear",
        ({"project_slug": ABSENT}, f"{PROVIDER}.project_slug", "end of the project's address"),
        ({"project_slug": 7}, f"{PROVIDER}.project_slug", "missing_linear_project_slug"),
        ({"assignee": []}, f"{PROVIDER}.assignee", "a Linear user id or `me`"),
        ({"assignee": " "}, f"{PROVIDER}.assignee", "invalid_linear_assignee"),
        ({"team": 7}, f"{PROVIDER}.team", "key of a team"),
        ({"blockers": "always"}, f"{PROVIDER}.blockers", "must be one of todo, any"),
        ({"sub_issues": "first"}, f"{PROVIDER}.sub_issues", "must be one of independent"),
    ),
    *of_secret("github", "token", "GITHUB_TOKEN", "missing_github_token"),
    *of_url("github", "api_url", "invalid_github_api_url", *STRICT_URLS),
    *of_tool("github", "repository, owner, any"),
    *of_states("github"),
    *rows_of(
        "github",
        ({"repo": ABSENT}, f"{PROVIDER}.repo", "`owner/name` (missing_github_repo)"),
        ({"repo": 7}, f"{PROVIDER}.repo", "missing_github_repo"),
        ({"repo": "octo"}, f"{PROVIDER}.repo", "`owner/name` (invalid_github_repo)"),
        ({"repo": "https://github.com/octo/demo"}, f"{PROVIDER}.repo", "invalid_github_repo"),
        ({"active_states": ["opne"]}, "tracker.active_states", "did you mean `open`"),
        ({"active_states": ["closed"]}, "tracker.active_states", "invalid_github_states"),
        ({"terminal_states": ["close"]}, "tracker.terminal_states", "did you mean `closed`"),
        ({"project": "3"}, f"{PROVIDER}.project", "number of a project"),
        ({"project": 3, "state_labels": ["open"]}, f"{PROVIDER}.project", "exclude each other"),
        ({"project_owner": 7}, f"{PROVIDER}.project_owner", "must be a name"),
        ({"project_owner": "octo"}, f"{PROVIDER}.project_owner", "needs `project`"),
        ({"project_field": "Stage"}, f"{PROVIDER}.project_field", "needs `project`"),
        ({"state_labels": 7}, f"{PROVIDER}.state_labels", "list of names, or a map"),
        ({"dependencies": 1}, f"{PROVIDER}.dependencies", "must be true or false"),
        ({"sub_issues": "yes"}, f"{PROVIDER}.sub_issues", "must be true or false"),
        ({"priority_labels": ["p1"]}, f"{PROVIDER}.priority_labels", "whole numbers"),
        ({"priority_milestones": {"M1": 1.5}}, f"{PROVIDER}.priority_milestones", "whole"),
    ),
    *of_secret("gitlab", "api_key", "GITLAB_PAT", "missing_gitlab_api_key"),
    *of_url("gitlab", "api_url", "invalid_gitlab_api_url", *STRICT_URLS),
    *of_tool("gitlab", "project, group, any"),
    *of_states("gitlab"),
    *rows_of(
        "gitlab",
        ({"project_path": ABSENT}, f"{PROVIDER}.project_path", "missing_gitlab_project_path"),
        ({"project_path": "a b"}, f"{PROVIDER}.project_path", "`group/project` (invalid_"),
        ({"active_states": ["open"]}, "tracker.active_states", "did you mean `opened`"),
        ({"terminal_states": ["done"]}, "tracker.terminal_states", "may hold `closed`"),
        ({"state_scope": 7}, f"{PROVIDER}.state_scope", "before `::`"),
        (
            {"state_scope": "flow", "state_labels": ["opened"]},
            f"{PROVIDER}.state_scope",
            "exclude each other",
        ),
        (
            {"state_scope": "flow", "active_states": ["Closed"]},
            "tracker.active_states",
            "can't be active",
        ),
        (
            {"project_path": "42", "blocking_links": True},
            f"{PROVIDER}.blocking_links",
            "as `group/project`, not its number",
        ),
        ({"blocking_links": "no"}, f"{PROVIDER}.blocking_links", "must be true or false"),
        ({"priority_weights": ["1"]}, f"{PROVIDER}.priority_weights", "map of weights"),
    ),
    *of_secret("jira", "api_token", "JIRA_API_TOKEN", "missing_jira_api_token"),
    *of_url("jira", "base_url", "invalid_jira_base_url", *STRICT_URLS, ABSENT),
    *of_tool("jira", "project, any"),
    *of_states("jira"),
    *rows_of(
        "jira",
        ({"email": ABSENT}, f"{PROVIDER}.email", "export JIRA_EMAIL (missing_jira_email)"),
        ({"email": "a:b"}, f"{PROVIDER}.email", "plain e-mail address"),
        ({"project_key": ABSENT}, f"{PROVIDER}.project_key", "missing_jira_project_key"),
        ({"project_key": 7}, f"{PROVIDER}.project_key", "the key of the project"),
        ({"active_states": [" "]}, "tracker.active_states", "invalid_jira_states"),
        (
            {"states": "category", "active_states": ["In Progres"]},
            "tracker.active_states",
            "did you mean `in progress`",
        ),
        ({"states": "name"}, f"{PROVIDER}.states", "must be one of status, category"),
        ({"sprint": []}, f"{PROVIDER}.sprint", "`open`, or a sprint's number or name"),
        ({"jql": "a = (b"}, f"{PROVIDER}.jql", "a bracket that is not closed"),
        ({"jql": "a = b ORDER BY c"}, f"{PROVIDER}.jql", "leave it out"),
        ({"jql": 7}, f"{PROVIDER}.jql", "must be a JQL clause"),
        ({"priorities": "usual"}, f"{PROVIDER}.priorities", "map of names"),
        ({"description": "html"}, f"{PROVIDER}.description", "must be one of text, markdown"),
    ),
    *of_secret("asana", "api_key", "ASANA_PAT", "missing_asana_api_key"),
    *of_url("asana", "endpoint", "invalid_asana_endpoint", *STRICT_URLS),
    *of_tool("asana", "project, any"),
    *of_states("asana"),
    *rows_of(
        "asana",
        ({"project_gid": ABSENT}, f"{PROVIDER}.project_gid", "missing_asana_project_gid"),
        ({"project_gid": 900}, f"{PROVIDER}.project_gid", "put it in quotes"),
        ({"project_gid": "my-board"}, f"{PROVIDER}.project_gid", "digits only"),
        ({"active_states": [" "]}, "tracker.active_states", "invalid_asana_states"),
        ({"completed_state": "Gone"}, f"{PROVIDER}.completed_state", "tracker.terminal_states"),
        ({"priority_field": 7}, f"{PROVIDER}.priority_field", "custom field's name or gid"),
        ({"priorities": {"High": 1}}, f"{PROVIDER}.priorities", "need `priority_field`"),
        (
            {"priority_field": "P", "priorities": {"High": "1"}},
            f"{PROVIDER}.priorities",
            "whole numbers",
        ),
        ({"dependencies": "on"}, f"{PROVIDER}.dependencies", "must be true or false"),
    ),
    *of_states("local", required=False),
    *rows_of(
        "local",
        ({"path": "nowhere"}, f"{PROVIDER}.path", "mkdir -p"),
        ({"path": 7}, f"{PROVIDER}.path", "path of a folder"),
        ({"path": "WORKFLOW.md"}, f"{PROVIDER}.path", "is not a folder"),
        ({"prefix": "1-2"}, f"{PROVIDER}.prefix", "such as `DEMO`"),
        ({"paht": "board"}, f"{PROVIDER}.paht", "did you mean `path`"),
    ),
    *rows_of("memory", ({"path": "x"}, f"{PROVIDER}.path", "it has none")),
]
STATE_KEYS = ("active_states", "terminal_states")


def section(kind: str, changes: dict[str, Any]) -> dict[str, Any]:
    active, terminal = STATES.get(kind, ("Todo", "Done"))
    found: dict[str, Any] = {"kind": kind, "active_states": [active], "terminal_states": [terminal]}
    provider = dict(SECTIONS[kind])
    for key, value in changes.items():
        place = found if key in STATE_KEYS else provider
        place.pop(key, None) if value is ABSENT else place.update({key: value})
    return {**found, "provider": provider}


def faults_of(folder: Path, tracker: dict[str, Any]) -> list[SettingFault]:
    """What is wrong with a workflow file that has this section ``tracker``."""
    (folder / "board").mkdir(exist_ok=True)
    path = folder / "WORKFLOW.md"
    front = yaml.safe_dump({"tracker": tracker}, allow_unicode=True)
    path.write_text(f"---\n{front}---\nDo it.\n", encoding="utf-8")
    environ = {"OUR_TOKEN": "token-of-ours", "EMPTY": "", "HOME": str(folder)}
    try:
        load_workflow(
            path,
            environ=environ,
            profiles=registry.PROFILES,
            validate_tracker=lambda settings: registry.validate(settings.tracker, environ, folder),
        )
    except SettingsError as error:
        return list(error.faults)
    return []


@pytest.mark.parametrize("kind", KINDS)
def test_the_section_that_the_rows_change_is_sound(tmp_path: Path, kind: str) -> None:
    assert faults_of(tmp_path, section(kind, {})) == []


@pytest.mark.parametrize(
    ("kind", "changes", "path", "words"), FILE, ids=[f"{r[0]}-{r[1]}-{r[3]}" for r in FILE]
)
def test_a_misconfiguration_has_one_message_with_its_key_and_its_mend(
    tmp_path: Path, kind: str, changes: dict[str, Any], path: str, words: str
) -> None:
    (fault,) = faults_of(tmp_path, section(kind, changes))
    assert fault.path == path
    assert words in fault.problem
    assert "token-of-ours" not in str(fault)


@pytest.mark.parametrize("kind", KINDS)
def test_all_misconfigurations_are_told_at_once(tmp_path: Path, kind: str) -> None:
    wrong: dict[str, Any] = {}
    expected = set()
    for row_kind, changes, path, words in FILE:
        alone = len(changes) == 1 and not changes.keys() & wrong.keys()
        # What a setting needs of another one can't be told where that one is wrong itself.
        if row_kind == kind and alone and "need" not in words:
            wrong |= changes
            expected.add(path)
    found = [fault.path for fault in faults_of(tmp_path, section(kind, wrong))]
    assert sorted(found) == sorted(expected)
    assert len(found) >= {"memory": 1, "local": 5}.get(kind, 7)


Start = tuple[str, dict[str, Any], dict[str, Any], str]
"""Kind, changes of the section, a fault of the server, words of the only sentence."""

START: list[Start] = [
    *(
        (kind, {}, {"status": 401, "body": b'{"message": "no"}'}, words)
        for kind, words in {
            "linear": "tracker.provider.api_key (LINEAR_API_KEY)",
            "github": "tracker.provider.token (GITHUB_TOKEN)",
            "gitlab": "tracker.provider.api_key (GITLAB_PAT)",
            "jira": "tracker.provider.api_token (JIRA_API_TOKEN)",
            "asana": "tracker.provider.api_key (ASANA_PAT)",
        }.items()
    ),
    *(
        (kind, {}, {"status": 403, "body": b'{"message": "no"}'}, words)
        for kind, words in {
            "linear": "tracker.provider.api_key",
            "github": "tracker.provider.repo",
            "gitlab": "tracker.provider.project_path",
            "jira": "tracker.provider.api_token",
            "asana": "tracker.provider.project_gid",
        }.items()
    ),
    ("linear", {"project_slug": "dmeo"}, {}, "tracker.provider.project_slug"),
    ("linear", {"team": "OPS"}, {}, "tracker.provider.team: no the team OPS"),
    ("linear", {"team": "OPS"}, {}, "its teams are `DEMO`"),
    ("linear", {"assignee": "user-9"}, {}, "tracker.provider.assignee"),
    ("linear", {"active_states": ["In Progres"]}, {}, "did you mean `In Progress`"),
    ("linear", {"active_states": ["todo"]}, {}, "spells `todo` as `Todo`"),
    ("linear", {"terminal_states": ["Duplicated"]}, {}, "did you mean `Duplicate`"),
    ("github", {"repo": "octo/dmeo"}, {}, "check tracker.provider.repo"),
    ("github", {"state_labels": {"Todo": "todoo"}}, {}, "did you mean `Todo`"),
    ("github", {"project": 3, "active_states": ["Tood"]}, {}, "did you mean `Todo`"),
    ("github", {"project": 4, "active_states": ["Todo"]}, {}, "tracker.provider.project and"),
    (
        "github",
        {"project": 3, "project_field": "Stage", "active_states": ["Todo"]},
        {},
        "tracker.provider.project_field",
    ),
    ("github", {}, {"status": 410, "body": b"{}"}, "issues turned off"),
    ("gitlab", {"project_path": "group/dmeo"}, {}, "check tracker.provider.project_path"),
    ("gitlab", {"state_labels": {"Todo": "todoo"}}, {}, "did you mean `Todo`"),
    (
        "gitlab",
        {"state_scope": "flow", "active_states": ["todo"], "terminal_states": ["closed"]},
        {},
        "has no `flow::todo`",
    ),
    ("jira", {"project_key": "DMEO"}, {}, "tracker.provider.project_key"),
    ("jira", {"active_states": ["Toodo"]}, {}, "did you mean `Todo`"),
    ("jira", {"terminal_states": ["Dnoe"]}, {}, "did you mean `Done`"),
    ("jira", {"jql": "colour = red"}, {}, "tracker.provider.jql: Jira"),
    ("jira", {"sprint": "Nobody's"}, {}, "tracker.provider.sprint: Jira"),
    (
        "jira",
        {"states": "category", "active_states": ["To Do"], "project_key": "DMEO"},
        {},
        "tracker.provider.project_key",
    ),
    ("asana", {"project_gid": "901"}, {}, "tracker.provider.project_gid"),
    ("asana", {"active_states": ["Tood"]}, {}, "did you mean `Todo`"),
    ("asana", {"terminal_states": ["Doen"]}, {}, "did you mean `Done`"),
]


def started(remote: RemoteHarness, changes: dict[str, Any]) -> ChecksAtStart:
    """The tracker of the harness with changes; GitHub and GitLab with their own two states."""
    kind = remote.tracker.kind
    active, terminal = STATES.get(kind, ("Todo", "Done"))
    if "state_labels" in changes:
        active = next(iter(changes["state_labels"]))
    provider = {k: v for k, v in remote.section["provider"].items() if k != "state_labels"}
    found: dict[str, Any] = {"active_states": [active], "terminal_states": [terminal]}
    for key, value in changes.items():
        (found if key in STATE_KEYS else provider)[key] = value
    settings = TrackerSettings.model_validate({"kind": kind, "provider": provider, **found})
    tracker = registry.build(settings, remote.environ, Path())
    assert isinstance(tracker, ChecksAtStart)
    return tracker


@pytest.mark.parametrize(
    ("kind", "changes", "fault", "words"), START, ids=[f"{r[0]}-{r[1]}-{r[3]}" for r in START]
)
async def test_what_only_the_tracker_knows_is_told_at_start(
    tmp_path: Path, kind: str, changes: dict[str, Any], fault: dict[str, Any], words: str
) -> None:
    async with open_harness(kind, tmp_path) as remote:
        for number, state in enumerate(("Todo", "In Progress", "Done"), start=1):
            remote.put(number, state=state)
        if fault:
            # Where a look at the project is refused, a second one tells whether all of it is.
            remote.server.faults += [Fault(**fault), Fault(**fault)]
        tracker = started(remote, changes)
        (sentence,) = await tracker.faults_at_start()
        assert words in sentence
        assert remote.server.token not in sentence
        await tracker.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["jira", "asana"])
async def test_who_sees_issues_but_not_the_states_may_start(tmp_path: Path, kind: str) -> None:
    async with open_harness(kind, tmp_path) as remote:
        remote.put(1, state="Todo")
        remote.server.faults.append(Fault(status=404, body=b"{}"))
        tracker = started(remote, {"active_states": ["Tood"]})
        assert list(await tracker.faults_at_start()) == []
        await tracker.aclose()  # type: ignore[attr-defined]


async def test_a_sound_tracker_has_no_faults_at_start(remote: RemoteHarness) -> None:
    remote.put(1)
    tracker = started(remote, {})
    assert list(await tracker.faults_at_start()) == []
    await tracker.aclose()  # type: ignore[attr-defined]


async def test_several_faults_at_start_are_told_together(remote: RemoteHarness) -> None:
    for number, state in enumerate(("Todo", "In Progress", "Done"), start=1):
        remote.put(number, state=state)
    changes: dict[str, Any] = {"active_states": ["Toddo"], "terminal_states": ["Doone"]}
    match remote.tracker.kind:
        case "linear":
            changes = {"active_states": ["Toddo", "todo"], "assignee": "user-9"}
        case "github" | "gitlab":
            changes = {"state_labels": {"Toddo": "toddo", "Doone": "doone"}}
        case "jira":
            changes |= {"jql": "colour = red"}
    tracker = started(remote, changes)
    sentences = list(await tracker.faults_at_start())
    assert len(sentences) >= 2
    assert len(set(sentences)) == len(sentences)
    await tracker.aclose()  # type: ignore[attr-defined]

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from symphony.config.loading import load_workflow, read_workflow, workflow_id
from symphony.config.settings import Settings
from symphony.errors import ConfigError, SettingFault, SettingsError, WorkflowFileError

if TYPE_CHECKING:
    from .conftest import Loader

DATA = Path(__file__).resolve().parents[2] / "data"


def faults(error: SettingsError) -> dict[str, SettingFault]:
    return {fault.path: fault for fault in error.faults}


def test_the_shipped_shape_of_a_workflow_loads_unchanged(load: Loader) -> None:
    workflow = load((DATA / "workflow_linear.md").read_text(encoding="utf-8"))
    settings = workflow.settings
    assert settings.tracker.kind == "linear"
    assert settings.tracker.provider == {"project_slug": "orchard-5f1c2d"}
    assert settings.tracker.active_states == ("Todo", "In Progress", "Merging", "Rework")
    assert settings.polling.interval_ms == 5000
    assert settings.workspace.path == "/home/ada/code/orchard-workspaces"
    assert settings.hooks.after_create is not None
    assert settings.hooks.after_create.startswith("git clone --depth 1")
    assert settings.codex.command.startswith("codex --config shell_environment_policy")
    assert settings.codex.approval_policy == "never"
    assert settings.codex.turn_sandbox_policy == {"type": "workspaceWrite", "networkAccess": True}
    assert workflow.prompt_template.startswith("You take care of the issue")
    assert workflow.warnings == ()


def test_a_workflow_carries_where_it_came_from(load: Loader) -> None:
    workflow = load("---\ntracker: {kind: local}\n---\n\n\nDo it.\n")
    assert workflow.path == load.path
    assert workflow.workflow_id == workflow_id(load.path)
    assert workflow.digest == read_workflow(load.path).digest
    assert workflow.prompt_template == "Do it."
    assert workflow.prompt_line == 6
    assert workflow.config == {"tracker": {"kind": "local"}}


def test_the_id_is_that_of_the_path_whatever_the_content_and_the_way_there(
    load: Loader, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(load.path.parent)
    assert workflow_id(link / "WORKFLOW.md") == workflow_id(load.path)
    assert workflow_id(load.path.parent / "OTHER.md") != workflow_id(load.path)


def test_a_byte_order_mark_is_no_part_of_the_text(load: Loader) -> None:
    assert load("\ufeff---\ntracker: {kind: local}\n---\nDo it.").prompt_template == "Do it."


def test_a_blank_body_is_valid(load: Loader) -> None:
    assert load("---\ntracker: {kind: local}\n---\n").prompt_template == ""


@pytest.mark.parametrize("text", ["Only a prompt.\n", "", "---\n---\nDo it.", "---\ntracker:\n---"])
def test_a_file_without_a_tracker_kind_names_the_key_and_the_kinds(load: Loader, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(text)
    assert caught.value.category == "missing_tracker_kind"
    assert "tracker.kind" in caught.value.message
    assert "github, linear, local" in caught.value.message


def test_an_unknown_kind_names_the_known_ones_and_the_line(load: Loader) -> None:
    with pytest.raises(SettingsError) as caught:
        load.front("", kind="jura")
    assert caught.value.category == "unsupported_tracker_kind"
    assert str(caught.value.faults[0]) == (
        "tracker.kind (line 3): must be one of: github, linear, local, got 'jura'"
    )


def test_unterminated_front_matter_is_read_as_settings_with_a_warning(load: Loader) -> None:
    workflow = load("---\ntracker:\n  kind: local\n")
    assert workflow.prompt_template == ""
    assert "no closing '---'" in workflow.warnings[0]


def test_a_missing_file_says_how_to_mend_it(tmp_path: Path) -> None:
    with pytest.raises(WorkflowFileError) as caught:
        load_workflow(tmp_path / "WORKFLOW.md", environ={}, profiles={})
    assert caught.value.category == "missing_workflow_file"
    assert str(tmp_path / "WORKFLOW.md") in caught.value.message


def test_a_directory_is_no_workflow_file(tmp_path: Path) -> None:
    with pytest.raises(WorkflowFileError, match="Is a directory"):
        load_workflow(tmp_path, environ={}, profiles={})


def test_a_file_that_is_not_utf_8_is_refused_with_its_line(load: Loader) -> None:
    load.path.write_bytes(b"---\ntracker: {kind: local}\n---\nna\xefve\n")
    with pytest.raises(WorkflowFileError, match="line 4: the file must be UTF-8") as caught:
        load_workflow(load.path, environ={}, profiles={})
    assert caught.value.category == "workflow_parse_error"


def test_all_faults_of_all_sections_come_at_once_with_their_lines(load: Loader) -> None:
    text = (
        "---\n"
        "tracker:\n  kind: local\n  active_states: Todo, Done\n"
        "polling:\n  interval_ms: soon\n"
        "agent:\n  max_turns: 0\n  max_concurrent_agents: 1.5\n"
        "codex:\n  command: '  '\n  approval_policy: 7\n"
        "hooks: none\n"
        "logging:\n  format: xml\n"
        "---\n"
    )
    with pytest.raises(SettingsError) as caught:
        load(text)
    found = faults(caught.value)
    assert {path: fault.line for path, fault in found.items()} == {
        "tracker.active_states": 4,
        "polling.interval_ms": 6,
        "agent.max_turns": 8,
        "agent.max_concurrent_agents": 9,
        "codex.command": 11,
        "codex.approval_policy": 12,
        "hooks": 13,
        "logging.format": 15,
    }
    assert found["polling.interval_ms"].value == "'soon'"
    assert found["logging.format"].problem == "must be one of: 'logfmt' or 'json'"
    assert caught.value.category == "invalid_workflow_config"
    assert caught.value.message.startswith(f"{load.path}: invalid configuration\n")


@pytest.mark.parametrize(
    "yaml",
    [
        "polling: {interval_ms: null}",
        "polling: null",
        "agent: {max_turns: ~}\ncodex: {command: null}",
        "hooks:\n  before_run:\nserver:\n",
    ],
)
def test_null_means_the_default(load: Loader, yaml: str) -> None:
    assert load.front(yaml).settings == load.front("").settings


def test_null_in_a_list_is_a_fault_and_no_crash(load: Loader) -> None:
    with pytest.raises(SettingsError, match="entry 2 is null"):
        load("---\ntracker:\n  kind: local\n  required_labels: [a, null]\n---\n")


def test_yaml_words_stay_states_and_labels(load: Loader) -> None:
    workflow = load(
        "---\ntracker:\n  kind: local\n  active_states: [On, No, 1:30]\n"
        "  required_labels: [no, 2026-01-02]\n---\n"
    )
    assert workflow.settings.tracker.active_states == ("On", "No", "1:30")
    assert workflow.settings.tracker.required_labels == ("no", "2026-01-02")


def test_states_come_from_the_profile_where_absent(load: Loader) -> None:
    tracker = load.front("").settings.tracker
    assert tracker.active_states == ("Todo", "In Progress")
    assert tracker.terminal_states == ("Closed", "Cancelled", "Canceled", "Duplicate", "Done")


def test_a_kind_without_default_states_demands_them(load: Loader) -> None:
    with pytest.raises(SettingsError) as caught:
        load.front("", kind="github")
    assert set(faults(caught.value)) == {"tracker.active_states", "tracker.terminal_states"}
    assert "is required for kind 'github'" in caught.value.message


def test_a_state_in_both_lists_and_a_blank_one_are_warned_of(load: Loader) -> None:
    workflow = load(
        "---\ntracker:\n  kind: local\n  active_states: [Todo, done, ' ']\n"
        "  terminal_states: [Done]\n---\n"
    )
    assert any("both name done" in warning for warning in workflow.warnings)
    assert any("a blank entry matches no state" in warning for warning in workflow.warnings)


def test_no_active_state_at_all_is_warned_of(load: Loader) -> None:
    workflow = load("---\ntracker: {kind: local, active_states: []}\n---\n")
    assert any("no issue is ever dispatched" in warning for warning in workflow.warnings)


def test_unknown_keys_are_ignored_with_the_nearest_known_name(load: Loader) -> None:
    workflow = load.front("agnt: {max_turns: 1}\nagent:\n  max_turn: 3\nsomething: else")
    assert workflow.settings.agent.max_turns == 20
    assert workflow.warnings == (
        "unknown setting 'agnt' (line 4) is ignored; did you mean 'agent'?",
        "unknown setting 'something' (line 7) is ignored",
        "unknown setting 'agent.max_turn' (line 6) is ignored; did you mean 'agent.max_turns'?",
    )


def test_a_derived_value_can_not_be_written(load: Loader) -> None:
    workflow = load.front("workspace: {path: /elsewhere, root: /here}")
    assert workflow.settings.workspace.path == "/here"
    assert "unknown setting 'workspace.path'" in workflow.warnings[0]


def test_invalid_limits_by_state_are_ignored_one_by_one_with_a_warning(load: Loader) -> None:
    workflow = load.front(
        "agent:\n  max_concurrent_agents_by_state:\n"
        "    In Progress: 2\n    Todo: 0\n    Rework: many\n    ' ': 1\n"
    )
    assert workflow.settings.agent.max_concurrent_agents_by_state == {"in progress": 2}
    assert len(workflow.warnings) == 3
    assert all("max_concurrent_agents_by_state" in warning for warning in workflow.warnings)


def test_a_limit_that_stands_twice_for_a_state_is_warned_of(load: Loader) -> None:
    workflow = load.front("agent: {max_concurrent_agents_by_state: {' ToDo ': 1, todo: 2}}")
    assert workflow.settings.agent.max_concurrent_agents_by_state == {"todo": 2}
    assert [one for one in workflow.warnings if "'todo' stands twice; 2, the last" in one]


def test_every_entry_of_a_list_that_is_no_text_is_told(load: Loader) -> None:
    told = "entry 1 is 3, entry 2 is true, entry 4 is a list: text needs quotes there"
    with pytest.raises(SettingsError, match=told):
        load.front("worker: {ssh_hosts: [3, true, box, [a]]}")


def test_limits_by_state_that_are_no_map_are_a_fault(load: Loader) -> None:
    with pytest.raises(SettingsError, match="must be a map of keys and values"):
        load.front("agent: {max_concurrent_agents_by_state: [1]}")


def test_old_codex_values_load_translated_with_a_warning(load: Loader) -> None:
    workflow = load.front(
        "codex:\n  approval_policy: on-failure\n  thread_sandbox: full-access\n"
        "  turn_sandbox_policy: {type: fullAccess}\n"
    )
    codex = workflow.settings.codex
    assert codex.approval_policy == "on-request"
    assert codex.thread_sandbox == "danger-full-access"
    assert codex.turn_sandbox_policy == {"type": "dangerFullAccess"}
    assert len(workflow.warnings) == 3


class TestWorkspaceRoot:
    @pytest.mark.parametrize(
        ("written", "root", "path"),
        [
            ("/srv/w", "/srv/w", "/srv/w"),
            ("/srv//x/../w/", "/srv//x/../w/", "/srv/w"),
            ("~/w", "~/w", "/home/ada/w"),
            ("'~'", "~", "/home/ada"),
            ("~", "/var/tmp/symphony_workspaces", "/var/tmp/symphony_workspaces"),  # null
            ("$ROOT", "/from/env", "/from/env"),
            ("$TILDE", "~/env", "/home/ada/env"),
            ("$UNSET", "/var/tmp/symphony_workspaces", "/var/tmp/symphony_workspaces"),
            ("$EMPTY", "/var/tmp/symphony_workspaces", "/var/tmp/symphony_workspaces"),
            ("''", "/var/tmp/symphony_workspaces", "/var/tmp/symphony_workspaces"),
        ],
    )
    def test_it_is_resolved_and_its_raw_form_kept(
        self, load: Loader, written: str, root: str, path: str
    ) -> None:
        load.environ.update(ROOT="/from/env", TILDE="~/env", EMPTY="")
        workspace = load.front(f"workspace: {{root: {written}}}").settings.workspace
        assert (workspace.root, workspace.path) == (root, path)

    def test_the_home_of_a_user_that_there_is_not_is_a_fault(self, load: Loader) -> None:
        with pytest.raises(SettingsError, match="there is no user 'nosuchuser-here' here"):
            load.front("workspace: {root: ~nosuchuser-here/w}")

    def test_the_home_of_a_user_of_remote_hosts_is_left_to_them(self, load: Loader) -> None:
        yaml = "workspace: {root: ~nosuchuser-here/w}\nworker: {ssh_hosts: [box]}"
        assert load.front(yaml).settings.workspace.root == "~nosuchuser-here/w"

    @pytest.mark.parametrize("written", ["work", "./work", "env:ROOT", "$ROOT/x"])
    def test_a_relative_one_lies_below_the_directory_of_the_file(
        self, load: Loader, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        load.environ["ROOT"] = "/from/env"
        monkeypatch.chdir(tmp_path)
        workspace = load.front(f"workspace: {{root: '{written}'}}").settings.workspace
        assert workspace.root == written
        assert workspace.path == os.path.normpath(load.path.parent / written)

    def test_an_absent_one_lies_below_the_temp_directory(self, load: Loader) -> None:
        assert load.front("").settings.workspace.path == "/var/tmp/symphony_workspaces"
        del load.environ["TMPDIR"]
        assert load.front("").settings.workspace.path == "/tmp/symphony_workspaces"

    def test_a_dollar_sign_within_it_is_warned_of(self, load: Loader) -> None:
        workflow = load.front("workspace: {root: /srv/$USER}")
        assert workflow.settings.workspace.path == "/srv/$USER"
        assert "'$' is taken literally" in workflow.warnings[0]

    def test_a_nul_character_is_refused(self, load: Loader) -> None:
        with pytest.raises(SettingsError, match="must not contain a NUL"):
            load.front('workspace: {root: "/srv/\\0"}')

    @pytest.mark.parametrize("value", ["5", "[a]", "true"])
    def test_another_type_is_refused(self, load: Loader, value: str) -> None:
        with pytest.raises(SettingsError, match=r"workspace\.root"):
            load.front(f"workspace: {{root: {value}}}")

    def test_one_that_agents_share_through_the_temp_directory_is_warned_of(
        self, load: Loader
    ) -> None:
        policy = "codex: {turn_sandbox_policy: {type: workspaceWrite}}\nworkspace: {root: %s}"
        assert "set excludeSlashTmp: true" in load.front(policy % "/tmp/w").warnings[0]
        assert "set excludeTmpdirEnvVar: true" in load.front(policy % "/var/tmp/w").warnings[0]
        assert load.front(policy % "/srv/w").warnings == ()
        assert load.front("workspace: {root: /tmp/w}").warnings == ()


class TestLinearAliases:
    def test_they_stand_in_for_the_provider_and_the_provider_wins(self, load: Loader) -> None:
        workflow = load(
            "---\ntracker:\n  kind: linear\n  project_slug: flat\n  api_key: $KEY\n"
            "  assignee: me\n  provider: {project_slug: own, custom: {a: [1]}}\n---\n"
        )
        assert workflow.settings.tracker.provider == {
            "project_slug": "own",
            "custom": {"a": [1]},
            "api_key": "$KEY",
            "assignee": "me",
        }

    def test_a_null_of_the_provider_leaves_the_alias_in_force(self, load: Loader) -> None:
        workflow = load(
            "---\ntracker:\n  kind: linear\n  project_slug: flat\n"
            "  provider: {project_slug: null}\n---\n"
        )
        assert workflow.settings.tracker.provider == {"project_slug": "flat"}

    @pytest.mark.parametrize("key", ["endpoint", "api_key", "project_slug", "assignee"])
    def test_they_must_be_text(self, load: Loader, key: str) -> None:
        with pytest.raises(SettingsError) as caught:
            load(f"---\ntracker:\n  kind: linear\n  {key}: 424242\n---\n")
        assert faults(caught.value)[f"tracker.{key}"].line == 4
        assert ("424242" in caught.value.message) is (key != "api_key")

    def test_for_other_kinds_they_are_ignored_with_a_warning(self, load: Loader) -> None:
        workflow = load("---\ntracker:\n  kind: local\n  api_key: s3cr3t\n---\n")
        assert workflow.settings.tracker.provider == {}
        assert "tracker.api_key is ignored" in workflow.warnings[0]
        assert "s3cr3t" not in str(workflow)


def test_provider_values_stay_references_and_unknown_keys_stay(load: Loader) -> None:
    load.environ["KEY"] = "s3cr3t"
    workflow = load("---\ntracker:\n  kind: local\n  provider: {api_key: $KEY, odd: 5}\n---\n")
    assert workflow.settings.tracker.provider == {"api_key": "$KEY", "odd": 5}
    assert "s3cr3t" not in repr(workflow)


def test_a_provider_that_is_no_map_is_refused_without_its_value(load: Loader) -> None:
    with pytest.raises(SettingsError) as caught:
        load("---\ntracker:\n  kind: local\n  provider: s3cr3t\n---\n")
    assert "tracker.provider (line 4): must be a map" in caught.value.message
    assert "s3cr3t" not in caught.value.message


class TestTheAdaptersCheck:
    @staticmethod
    def demand_slug(settings: Settings) -> Sequence[SettingFault]:
        if settings.tracker.provider.get("project_slug"):
            return ()
        return (SettingFault("tracker.provider.project_slug", "is required"),)

    def test_its_faults_are_those_of_the_file(self, load: Loader) -> None:
        assert load.front("", kind="linear").settings.tracker.provider == {}
        with pytest.raises(SettingsError) as caught:
            load("---\ntracker: {kind: linear}\n---\n", validate_tracker=self.demand_slug)
        assert caught.value.category == "invalid_tracker_config"
        assert caught.value.faults == (
            SettingFault("tracker.provider.project_slug", "is required", None, 2),
        )

    def test_its_faults_come_beside_those_of_other_sections(self, load: Loader) -> None:
        with pytest.raises(SettingsError) as caught:
            load(
                "---\ntracker:\n  kind: linear\n  project_slug: ''\npolling: {interval_ms: 0}\n---",
                validate_tracker=self.demand_slug,
            )
        lines = {path: fault.line for path, fault in faults(caught.value).items()}
        assert lines == {"polling.interval_ms": 5, "tracker.provider.project_slug": 4}
        assert caught.value.category == "invalid_workflow_config"

    def test_it_is_not_asked_about_a_tracker_that_is_no_tracker(self, load: Loader) -> None:
        def never(settings: Settings) -> Sequence[SettingFault]:
            raise AssertionError(settings)

        with pytest.raises(SettingsError, match=r"tracker\.kind"):
            load("---\ntracker: {kind: nothing}\n---\n", validate_tracker=never)


def test_findings_on_the_prompt_are_warnings_of_their_own(load: Loader) -> None:
    asked: list[tuple[str, int]] = []

    def check(text: str, first_line: int) -> Sequence[str]:
        asked.append((text, first_line))
        return ["line 4: unknown variable 'nope'"]

    workflow = load("---\ntracker: {kind: local}\n---\n{{ nope }}\n", check_prompt=check)
    assert asked == [("{{ nope }}", 4)]
    assert workflow.prompt_warnings == ("line 4: unknown variable 'nope'",)
    assert workflow.warnings == ()


def test_every_fault_is_a_config_error(load: Loader) -> None:
    for text in ("---\n- a\n---\n", "---\na: b: c\n---\n", "x"):
        with pytest.raises(ConfigError):
            load(text)


def test_the_repository_of_workspaces_is_found_from_the_workflows_directory(
    load: Loader,
) -> None:
    front = "tracker: {kind: local}\nworkspace: {repository: ../project, base: dev}\n"
    workflow = load(f"---\n{front}---\n")
    settings = workflow.settings.workspace
    assert settings.repository == str(workflow.path.parent.parent / "project")
    assert settings.base == "dev"


def test_faults_of_the_repository_are_all_told_and_tell_no_password(load: Loader) -> None:
    front = "tracker: {kind: local}\nworkspace:\n  repository: https://me:hush@e.com/a\n"
    with pytest.raises(SettingsError) as caught:
        load(f"---\n{front}  base: a b\n  branch: work\n  on_dirty: forget\n---\n")
    paths = {"repository", "base", "branch", "on_dirty"}
    assert set(faults(caught.value)) == {f"workspace.{key}" for key in paths}
    assert "hush" not in str(caught.value)
    assert "'keep_aside', 'keep' or 'delete'" in str(caught.value)

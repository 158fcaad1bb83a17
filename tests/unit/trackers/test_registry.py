from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from symphony.config.settings import TrackerSettings
from symphony.errors import TrackerError
from symphony.trackers import registry


def tracker_settings(kind: str, **provider: Any) -> TrackerSettings:
    return TrackerSettings(
        kind=kind, provider=provider, active_states=["Todo"], terminal_states=["Done"]
    )


PROVIDERS: dict[str, dict[str, Any]] = {
    "linear": {"project_slug": "demo"},
    "github": {"repo": "octo/demo"},
    "gitlab": {"project_path": "group/demo"},
    "jira": {"base_url": "https://x.example", "email": "a@x.example", "project_key": "DEMO"},
    "asana": {"project_gid": "1"},
}
ENVIRONMENT = {
    "LINEAR_API_KEY": "k",
    "GITHUB_TOKEN": "k",
    "GITLAB_PAT": "k",
    "JIRA_API_TOKEN": "k",
    "ASANA_PAT": "k",
}
NATIVE_STATES = {"github": ("open", "closed"), "gitlab": ("opened", "closed")}


@pytest.mark.parametrize("kind", sorted(registry.PROFILES))
def test_every_profile_has_an_adapter_and_states(kind: str, tmp_path: Path) -> None:
    profile = registry.PROFILES[kind]
    if kind in ("linear", "local", "memory"):
        assert profile.default_active_states == ("Todo", "In Progress")
        assert set(profile.default_terminal_states or ()) == {
            "Closed",
            "Cancelled",
            "Canceled",
            "Duplicate",
            "Done",
        }
    else:
        assert profile.default_active_states is None, "the reference asks for them"
        assert profile.default_terminal_states is None
    (tmp_path / "board").mkdir()
    active, terminal = NATIVE_STATES.get(kind, ("Todo", "Done"))
    settings = TrackerSettings(
        kind=kind,
        provider=PROVIDERS.get(kind, {}),
        active_states=[active],
        terminal_states=[terminal],
    )
    assert registry.build(settings, ENVIRONMENT, tmp_path).kind == kind


def test_profiles_are_known_without_loading_an_adapter() -> None:
    script = (
        "import sys; from symphony.trackers.registry import PROFILES, profile\n"
        "assert profile('linear')\n"
        "print([m for m in sys.modules if m.startswith('symphony.trackers.l')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_no_adapter_knows_another_one() -> None:
    folder = Path(registry.__file__).parent
    for path in sorted(folder.glob("*.py")):
        family = path.stem.partition("_")[0]
        if family not in registry.PROFILES:
            continue
        for match in re.finditer(r"^ *(?:from|import) (\S*)( import .*)?", path.read_text(), re.M):
            words = set(re.findall(r"[a-z]+", match[0]))
            foreign = words & (set(registry.PROFILES) - {family})
            assert not foreign, f"{path.name} imports of {foreign}"


def test_an_unknown_kind_is_answered_with_the_kinds_there_are(tmp_path: Path) -> None:
    (fault,) = registry.validate(tracker_settings("Linaer"), {}, tmp_path)
    assert fault.path == "tracker.kind"
    assert ", ".join(registry.PROFILES) in fault.problem
    assert "did you mean `linear`?" in fault.problem
    with pytest.raises(TrackerError) as caught:
        registry.build(tracker_settings("nope"), {}, tmp_path)
    assert caught.value.category == "unsupported_tracker_kind"


def test_all_faults_of_a_board_come_at_once(tmp_path: Path) -> None:
    settings = tracker_settings("local", prefix="1 2")
    faults = registry.validate(settings, {}, tmp_path)
    assert [fault.path for fault in faults] == ["tracker.provider.path", "tracker.provider.prefix"]
    assert f"mkdir -p {tmp_path / 'board'}" in faults[0].problem
    with pytest.raises(TrackerError) as caught:
        registry.build(settings, {}, tmp_path)
    assert caught.value.category == "invalid_tracker_config"
    assert registry.validate(tracker_settings("local", path=7), {}, tmp_path)[0].value == "7"
    (tmp_path / "file").touch()
    (fault,) = registry.validate(tracker_settings("local", path="file"), {}, tmp_path)
    assert "is not a folder" in fault.problem


def test_a_missing_token_has_a_category_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(TrackerError, match="export LINEAR_API_KEY") as caught:
        registry.build(tracker_settings("linear", project_slug="x"), {}, tmp_path)
    assert caught.value.category == "missing_tracker_secret"


async def test_a_board_lies_relative_to_the_workflow_file(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "X-1.md").write_text("---\ntitle: t\nstate: Todo\n---\n")
    built = registry.build(tracker_settings("local", path="mine"), {}, tmp_path)
    assert len(await built.fetch_issues_by_states(["todo"])) == 1

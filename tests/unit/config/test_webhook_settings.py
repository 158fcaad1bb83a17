from __future__ import annotations

from pathlib import Path

import pytest

from symphony.config.loading import Workflow, load_workflow
from symphony.errors import SettingsError
from symphony.trackers.registry import PROFILES

SECRET = "0123456789abcdef"


def load(tmp_path: Path, secret: str, environ: dict[str, str], kind: str = "linear") -> Workflow:
    path = tmp_path / "WORKFLOW.md"
    path.write_text(f"---\ntracker: {{kind: {kind}}}\nwebhooks: {{secret: {secret}}}\n---\nx\n")
    return load_workflow(path, environ=environ, profiles=PROFILES)


@pytest.mark.parametrize(
    ("secret", "environ", "problem"),
    [
        (SECRET * 2, {}, "must be $NAME"),
        ("7", {}, "must be $NAME"),
        ("$HOOK", {}, "HOOK is not set or empty"),
        ("$HOOK", {"HOOK": " "}, "HOOK is not set or empty"),
        ("$HOOK", {"HOOK": "short"}, "must have 16 characters or more"),
    ],
)
def test_a_faulty_secret_is_named_and_never_shown(
    tmp_path: Path, secret: str, environ: dict[str, str], problem: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, secret, environ)
    assert "webhooks.secret" in str(caught.value)
    assert problem in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "short" not in str(caught.value)


def test_the_variable_of_the_secret_is_kept_from_agents(tmp_path: Path) -> None:
    workflow = load(tmp_path, "$HOOK", {"HOOK": SECRET})
    assert workflow.settings.secret_environment_names == ("HOOK",)
    assert workflow.warnings == ()


def test_a_tracker_without_webhooks_is_told(tmp_path: Path) -> None:
    workflow = load(tmp_path, "$HOOK", {"HOOK": SECRET}, kind="local")
    assert any("no webhooks of kind 'local'" in warning for warning in workflow.warnings)

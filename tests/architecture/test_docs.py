"""What a user can set or type is documented: a heading each."""

from __future__ import annotations

import re
from pathlib import Path

import codex_app_server

import symphony.cli
from symphony.config.settings import setting_keys
from symphony.trackers.registry import PROFILES

ROOT = Path(__file__).resolve().parents[2]


def headings(name: str) -> set[str]:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    return {match.group(1) for match in re.finditer(r"^#+ .*?`([^`]+)`", text, re.MULTILINE)}


def test_every_setting_has_a_heading() -> None:
    assert set(setting_keys()) - headings("settings.md") == set()


def test_no_heading_documents_a_setting_that_is_gone() -> None:
    documented = {heading for heading in headings("settings.md") if "." in heading}
    assert documented - set(setting_keys()) == set()


def test_every_command_has_a_heading() -> None:
    assert set(symphony.cli.command_names()) - headings("commands.md") == set()


def test_every_tracker_has_its_profile_page() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "trackers").glob("*.md")}
    assert set(PROFILES) - pages == set()


def test_the_public_names_of_the_client_are_a_sorted_list() -> None:
    names = codex_app_server.__all__
    assert list(names) == sorted(names)
    public = {name for name in dir(codex_app_server) if not name.startswith("_")}
    submodules = {
        path.stem
        for path in Path(codex_app_server.__file__).parent.iterdir()
        if path.stem.islower()
    }
    assert public - submodules - {"annotations"} == set(names) - {"__version__"} - submodules


def test_every_public_name_of_the_client_can_be_had() -> None:
    missing = [name for name in codex_app_server.__all__ if not hasattr(codex_app_server, name)]
    assert missing == []

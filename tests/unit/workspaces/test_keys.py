"""Keys and paths of workspaces: who gets which name, and what no path may do."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from symphony.errors import WorkspaceError
from symphony.workspaces.keys import (
    canonicalize,
    check_agent_cwd,
    check_inside,
    check_own_directory,
    misspelt,
    workspace_key,
)


@pytest.mark.parametrize(
    ("identifier", "key"),
    [
        ("MT/Det", "MT_Det--b45ad8f201f2d40b"),
        ("team/a-1", "team_a-1--7c03d5a56ca4204b"),
        ("team_a-1", "team_a-1"),
        ("a b", "a_b--c8687a08aa5d6ed2"),
        ("é-1", "_-1--ac09ccc36d141ca3"),
        ("MT-123", "MT-123"),
        ("a..b", "a..b"),
        ("a" * 255, "a" * 255),
    ],
)
def test_keys_are_those_of_the_reference(identifier, key):
    assert workspace_key(identifier) == key


@pytest.mark.parametrize(
    ("identifier", "category"),
    [
        ("", "workspace_equals_root"),
        (".", "workspace_equals_root"),
        ("..", "workspace_outside_root"),
    ],
)
def test_identifiers_that_name_no_child_are_refused(identifier, category):
    with pytest.raises(WorkspaceError) as caught:
        workspace_key(identifier)
    assert caught.value.category == category


def test_an_identifier_made_to_look_like_anothers_key_gets_its_own():
    stolen = workspace_key("team/a-1")
    assert workspace_key(stolen) not in (stolen, "team/a-1")
    again = workspace_key(workspace_key(stolen))
    assert len({stolen, workspace_key(stolen), again}) == 3
    # Where capital letters don't count, this would be the same directory.
    assert workspace_key(stolen.upper()).lower() != stolen.lower()


def test_names_with_a_meaning_for_tools_are_never_keys():
    for identifier in (".git", ".codex", ".symphony", "...", ".hidden"):
        assert re.fullmatch(r"_[A-Za-z0-9._-]*--[0-9a-f]{16}", workspace_key(identifier))


def test_a_long_identifier_is_cut_and_hashed():
    first, second = "a" * 255 + "1", "a" * 255 + "2"
    assert len(workspace_key(first)) == len(workspace_key("ä" * 300)) == 255
    assert workspace_key(first) != workspace_key(second)


@given(st.text(max_size=300))
def test_every_key_is_one_safe_segment(identifier):
    assume(identifier not in ("", ".", ".."))
    key = workspace_key(identifier)
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", key)
    assert len(key) <= 255


@given(
    st.lists(
        st.from_regex(r"[a-c./_ -]{1,4}(--[0-9a-f]{16})?", fullmatch=True),
        min_size=2,
        max_size=2,
        unique=True,
    )
)
def test_different_identifiers_never_share_a_key(pair):
    assume(not {"", ".", ".."} & set(pair))
    # With each one's key as an identifier too: that is how one could be crafted.
    names = {*pair, *(workspace_key(name) for name in pair)}
    keys = {workspace_key(name) for name in names}
    assert len(keys) == len(names)


def test_links_are_resolved_and_missing_parts_kept(tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to("real")
    (real / "absolute").symlink_to(tmp_path / "link" / ".." / "elsewhere")
    assert canonicalize(f"{tmp_path}/link/new/deeper") == f"{real}/new/deeper"
    assert canonicalize(f"{tmp_path}/./link//absolute/x") == f"{tmp_path}/elsewhere/x"
    assert canonicalize(f"{tmp_path}/link/../y") == f"{tmp_path}/y"
    assert canonicalize("/") == "/"


@pytest.mark.parametrize(
    "path", ["relative/path", "/tmp/" + "x" * 300, "/etc/passwd/child", "/tmp/a\0b"]
)
def test_paths_that_cannot_be_resolved_say_so(path):
    with pytest.raises(WorkspaceError) as caught:
        canonicalize(path)
    assert caught.value.category == "workspace_path_unreadable"


def test_a_circle_of_links_is_an_error_and_not_a_hang(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(WorkspaceError, match="too many symbolic links"):
        canonicalize(str(tmp_path / "a"))


def test_containment_tells_root_outside_and_escape_apart(tmp_path):
    root = tmp_path / "root"
    outside = tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "inside").mkdir()
    (root / "escape").symlink_to(outside)
    (tmp_path / "alias").symlink_to(root)
    assert check_inside(f"{tmp_path}/alias/inside", str(root)) == str(root / "inside")
    assert check_inside(str(root / "inside"), f"{tmp_path}/alias") == str(root / "inside")
    for path, category in [
        (root, "workspace_equals_root"),
        (tmp_path / "alias", "workspace_equals_root"),
        (root / "escape", "workspace_symlink_escape"),
        (root / "escape" / "deeper", "workspace_symlink_escape"),
        (outside, "workspace_outside_root"),
        (f"{root}-sibling", "workspace_outside_root"),
        (root / ".." / "outside", "workspace_outside_root"),
    ]:
        with pytest.raises(WorkspaceError) as caught:
            check_inside(str(path), str(root))
        assert caught.value.category == category, path


def test_a_workspace_that_is_a_link_is_refused_wherever_it_leads(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "MT-1").mkdir()
    (root / "MT-2").symlink_to("MT-1")
    (root / "MT-3").symlink_to(tmp_path)
    (root / "MT-4").symlink_to(root)
    (root / "MT-5").symlink_to(root / "nowhere")
    assert check_own_directory(str(root), "MT-1") == str(root / "MT-1")
    assert check_own_directory(str(root), "MT-9") == str(root / "MT-9")
    for key, category in [
        ("MT-2", "workspace_symlink_escape"),
        ("MT-3", "workspace_outside_root"),
        ("MT-4", "workspace_equals_root"),
        ("MT-5", "workspace_symlink_escape"),
    ]:
        with pytest.raises(WorkspaceError) as caught:
            check_own_directory(str(root), key)
        assert caught.value.category == category, key


def test_an_agent_starts_only_in_a_real_directory_below_the_root(tmp_path):
    root = tmp_path / "root"
    (root / "MT-1").mkdir(parents=True)
    (root / "MT-2").symlink_to("MT-1")
    (root / "file").write_text("")
    check_agent_cwd(str(root / "MT-1"), str(root))
    for path in (root, tmp_path, root / "MT-2", root / "gone", root / "file", "relative"):
        with pytest.raises(WorkspaceError) as caught:
            check_agent_cwd(os.fspath(path), str(root))
        assert caught.value.category == "invalid_workspace_cwd"


def test_another_spelling_of_a_key_is_found_where_case_does_not_count():
    assert misspelt("MT-1", {"mt-1", "MT-2"}) == "mt-1"
    assert misspelt("MT-1", {"mt-1", "MT-1"}) is None
    assert misspelt("MT-1", {"MT-2"}) is None

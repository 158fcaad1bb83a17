"""Workspaces from making to removal, on a real disk with real hooks."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from symphony.errors import HookError, WorkspaceError
from symphony.workspaces import folders
from symphony.workspaces.keys import workspace_key


def names(folder: Path) -> set[str]:
    return {entry for entry in os.listdir(folder) if entry != ".symphony"}


def text(*parts: object) -> str:
    return Path(*map(str, parts)).read_text()


def put(folder: Path | str, name: str, content: str = "") -> Path:
    path = Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


# Making and reuse


async def test_a_new_workspace_is_made_and_filled_by_after_create(place, run_spec):
    place.hooks(
        after_create='echo "$SYMPHONY_ISSUE_IDENTIFIER|$SYMPHONY_ISSUE_TITLE|$SYMPHONY_RUN_ID'
        '|$SYMPHONY_ATTEMPT|$SYMPHONY_WORKSPACE|${TOKEN-no token}" > told\npwd > where\n'
    )
    workspace = await place.workspaces.prepare(run_spec("team/a-1", attempt=3))
    key = "team_a-1--7c03d5a56ca4204b"
    path = str(place.root / key)
    assert (workspace.path, workspace.key, workspace.created_now) == (path, key, True)
    assert text(path, "told") == f"team/a-1|Mend it|run-team/a-1|3|{path}|no token\n"
    assert text(path, "where") == f"{path}\n"


async def test_an_existing_workspace_is_used_as_it_is(place, run_spec):
    place.hooks(after_create="echo once >> created")
    first = await place.workspaces.prepare(run_spec())
    put(first.path, "tmp/scratch", "kept")
    put(first.path, "edit.py", "half done")
    second = await place.workspaces.prepare(run_spec(attempt=1))
    assert not second.created_now
    assert second.path == first.path
    assert text(first.path, "created") == "once\n"
    assert text(first.path, "tmp/scratch") == "kept"
    assert text(first.path, "edit.py") == "half done"


async def test_a_file_in_the_way_is_replaced_by_a_directory(place, run_spec):
    put(place.root, "MT-1", "not a directory")
    workspace = await place.workspaces.prepare(run_spec())
    assert workspace.created_now
    assert names(place.root / "MT-1") == set()


@pytest.mark.parametrize(
    ("hooks", "category"),
    [
        ({"after_create": "echo half > part; exit 3"}, "workspace_hook_failed"),
        (
            {"after_create": "echo half > part; sleep 661", "timeout_ms": 300},
            "workspace_hook_timeout",
        ),
    ],
)
async def test_a_failed_after_create_leaves_nothing_and_the_next_attempt_begins_anew(
    place, run_spec, hooks, category
):
    place.hooks(**hooks)
    with pytest.raises(HookError) as caught:
        await place.workspaces.prepare(run_spec())
    assert caught.value.category == category
    assert names(place.root) == set()
    place.hooks(after_create="test ! -e part && echo whole > full")
    workspace = await place.workspaces.prepare(run_spec())
    assert workspace.created_now
    assert names(Path(workspace.path)) == {"full"}


async def test_a_cancelled_after_create_leaves_nothing(place, run_spec, eventually, alive):
    place.hooks(after_create="echo > part; sleep 662")
    task = asyncio.create_task(place.workspaces.prepare(run_spec()))
    await eventually((place.root / "MT-1" / "part").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(place.root) == set()
    assert alive() == 1


async def test_what_a_killed_daemon_left_half_made_is_made_anew(place, run_spec):
    # A daemon that died between the making and the end of after_create.
    root = folders.open_root(str(place.root))
    path, created = folders.claim(root, "MT-1")
    assert created
    put(path, "half a clone")
    place.hooks(after_create="ls -A > seen")
    workspace = await place.workspaces.prepare(run_spec())
    assert workspace.created_now
    assert text(path, "seen") == "seen\n"
    assert not (await place.workspaces.prepare(run_spec())).created_now


async def test_two_calls_for_one_issue_make_it_once(place, run_spec):
    place.hooks(after_create="echo once >> created")
    made = await asyncio.gather(*(place.workspaces.prepare(run_spec()) for _ in range(5)))
    assert sorted(workspace.created_now for workspace in made) == [False] * 4 + [True]
    assert text(made[0].path, "created") == "once\n"


async def test_issues_with_like_identifiers_never_share_a_workspace(place, run_spec):
    identifiers = ["team/a-1", "team_a-1", "team a-1", "team_a-1--7c03d5a56ca4204b"]
    made = await asyncio.gather(*(place.workspaces.prepare(run_spec(i)) for i in identifiers))
    assert len({workspace.path for workspace in made}) == 4
    assert all(workspace.created_now for workspace in made)


async def test_a_link_to_another_issues_workspace_is_refused(place, run_spec):
    first = await place.workspaces.prepare(run_spec("MT-1"))
    (place.root / "MT-2").symlink_to(first.path)
    with pytest.raises(WorkspaceError) as caught:
        await place.workspaces.prepare(run_spec("MT-2"))
    assert caught.value.category == "workspace_symlink_escape"
    assert first.path in caught.value.message


async def test_a_link_out_of_the_root_is_refused(place, run_spec):
    place.root.mkdir()
    (place.root / "MT-1").symlink_to(place.folder)
    with pytest.raises(WorkspaceError) as caught:
        await place.workspaces.prepare(run_spec())
    assert caught.value.category == "workspace_outside_root"


async def test_a_root_that_is_a_link_is_followed_to_the_real_one(place, run_spec):
    real = place.folder / "real"
    real.mkdir()
    place.root.symlink_to(real)
    assert (await place.workspaces.prepare(run_spec())).path == str(real / "MT-1")


async def test_an_unusable_root_is_named_with_the_mend(place, run_spec):
    place.move_root(put(place.folder, "file") / "root")
    with pytest.raises(WorkspaceError) as caught:
        await place.workspaces.open()
    assert caught.value.category == "workspace_root_unwritable"
    assert str(place.root) in caught.value.message
    assert "workspace.root" in caught.value.message
    with pytest.raises(WorkspaceError):
        await place.workspaces.prepare(run_spec())


# Around a run


async def test_before_run_runs_in_the_workspace_and_its_failure_counts(place, run_spec):
    place.hooks(before_run="pwd > where")
    workspace = await place.workspaces.prepare(run_spec())
    await place.workspaces.before_run(workspace, run_spec())
    assert text(workspace.path, "where") == f"{workspace.path}\n"
    place.hooks(before_run="echo no network >&2; exit 9")
    with pytest.raises(HookError, match="exit status 9: no network"):
        await place.workspaces.before_run(workspace, run_spec())
    assert names(Path(workspace.path)) == {"where"}


async def test_an_agent_never_starts_where_the_workspace_was_swapped_for_a_link(place, run_spec):
    workspace = await place.workspaces.prepare(run_spec())
    place.hooks(
        before_run='cd / && rmdir "$SYMPHONY_WORKSPACE" && ln -s /etc "$SYMPHONY_WORKSPACE"'
    )
    with pytest.raises(WorkspaceError) as caught:
        await place.workspaces.before_run(workspace, run_spec())
    assert caught.value.category == "invalid_workspace_cwd"


@pytest.mark.parametrize(
    "hooks",
    [
        {"after_run": "echo ran > ran; exit 1"},
        {"after_run": "echo ran > ran; yes | head -c 300000; exit 1"},
        {"after_run": "echo ran > ran; sleep 663", "timeout_ms": 300},
    ],
)
async def test_after_run_may_fail(place, run_spec, hooks):
    workspace = await place.workspaces.prepare(run_spec())
    place.hooks(**hooks)
    await place.workspaces.after_run(workspace, run_spec())
    assert text(workspace.path, "ran") == "ran\n"


async def test_after_run_may_find_its_workspace_gone(place, run_spec, caplog):
    workspace = await place.workspaces.prepare(run_spec())
    shutil.rmtree(workspace.path)
    place.hooks(after_run="true")
    await place.workspaces.after_run(workspace, run_spec())
    ignored = [record for record in caplog.records if record.message == "Hook ignored"]
    assert [record.hook for record in ignored] == ["after_run"]


async def test_a_hook_out_of_time_leaves_no_process(place, run_spec, alive):
    place.hooks(
        before_run="trap '' TERM; setsid sleep 664 & (setsid sleep 665 &) ; sleep 666; sleep 667",
        timeout_ms=400,
    )
    workspace = await place.workspaces.prepare(run_spec())
    with pytest.raises(HookError):
        await place.workspaces.before_run(workspace, run_spec())
    assert alive() == 1


# Removal


async def test_removal_runs_before_remove_and_touches_only_its_own(place, run_spec, issue):
    first = await place.workspaces.prepare(run_spec("team/a-1"))
    second = await place.workspaces.prepare(run_spec("team_a-1"))
    record = place.folder / "record"
    place.hooks(before_remove=f'echo "$SYMPHONY_ISSUE_IDENTIFIER $PWD" >> {record}')
    assert await place.workspaces.remove(issue("team/a-1"))
    assert names(place.root) == {"team_a-1"}
    assert text(record) == f"team/a-1 {first.path}\n"
    assert not await place.workspaces.remove(issue("team/a-1"))
    assert text(record).count("\n") == 1
    assert names(Path(second.path).parent) == {"team_a-1"}


@pytest.mark.parametrize(
    "hooks",
    [
        {"before_remove": "exit 1"},
        {"before_remove": "yes | head -c 300000; exit 1"},
        {"before_remove": "sleep 668", "timeout_ms": 300},
    ],
)
async def test_a_failing_before_remove_does_not_keep_the_workspace(place, run_spec, issue, hooks):
    workspace = await place.workspaces.prepare(run_spec())
    place.hooks(**hooks)
    assert await place.workspaces.remove(issue())
    assert names(Path(workspace.path).parent) == set()


async def test_nothing_to_remove_is_no_error(place, issue):
    assert not await place.workspaces.remove(issue())
    assert not await place.workspaces.remove(issue(), path=str(place.root / "MT-1"))
    assert not place.root.exists()


async def test_removal_never_follows_a_link(place, run_spec, issue):
    outside = put(place.folder, "outside/precious", "data").parent
    workspace = await place.workspaces.prepare(run_spec())
    (Path(workspace.path) / "link").symlink_to(outside)
    assert await place.workspaces.remove(issue())
    assert text(outside, "precious") == "data"
    (place.root / "MT-1").symlink_to(outside)
    ran = place.folder / "ran"
    place.hooks(before_remove=f"echo > {ran}")
    for path in (None, str(place.root / "MT-1")):
        with pytest.raises(WorkspaceError) as caught:
            await place.workspaces.remove(issue(), path=path)
        assert caught.value.category == "workspace_outside_root"
    assert text(outside, "precious") == "data"
    assert not ran.exists()


async def test_a_workspace_swapped_for_a_link_by_its_hook_loses_only_the_link(
    place, run_spec, issue
):
    outside = put(place.folder, "outside/precious", "data").parent
    await place.workspaces.prepare(run_spec())
    place.hooks(before_remove=f'cd / && rm -r "$SYMPHONY_WORKSPACE" && ln -s {outside} '
                '"$SYMPHONY_WORKSPACE"')  # fmt: skip
    assert await place.workspaces.remove(issue())
    assert text(outside, "precious") == "data"
    assert names(place.root) == set()


async def test_a_recorded_workspace_is_removed_after_the_root_has_changed(place, run_spec, issue):
    workspace = await place.workspaces.prepare(run_spec())
    place.move_root(place.folder / "another")
    assert not await place.workspaces.remove(issue())
    assert await place.workspaces.remove(issue(), path=workspace.path)
    assert names(Path(workspace.path).parent) == set()


@pytest.mark.parametrize(
    ("recorded", "category"),
    [
        ("root/MT-1", "workspace_path_unreadable"),
        ("", "workspace_path_unreadable"),
        ("/", "workspace_outside_root"),
        ("{root}", "workspace_outside_root"),
        ("{root}/MT-2", "workspace_outside_root"),
        ("{root}/MT-1/..", "workspace_outside_root"),
    ],
)
async def test_a_record_that_is_not_the_issues_workspace_removes_nothing(
    place, run_spec, issue, recorded, category
):
    await place.workspaces.prepare(run_spec("MT-1"))
    await place.workspaces.prepare(run_spec("MT-2"))
    with pytest.raises(WorkspaceError) as caught:
        await place.workspaces.remove(issue(), path=recorded.format(root=place.root))
    assert caught.value.category == category
    assert names(place.root) == {"MT-1", "MT-2"}


async def test_a_removal_cut_off_by_a_crash_is_ended_at_the_next_start(place):
    root = folders.open_root(str(place.root))
    left = put(root, ".symphony/trash/0123/file").parent
    await place.workspaces.open()
    assert not left.exists()


def test_read_only_directories_of_module_caches_are_removed(tmp_path):
    # As an ordinary user, for root may write anywhere.
    script = (
        "import os, sys\n"
        "from symphony.workspaces import folders\n"
        "root = folders.open_root(sys.argv[1])\n"
        "path, _ = folders.claim(root, 'MT-1')\n"
        "os.makedirs(path + '/mod/cache/inner')\n"
        "open(path + '/mod/cache/inner/file', 'w').close()\n"
        "os.symlink('/', path + '/mod/link')\n"
        "for name in ('/mod/cache/inner', '/mod/cache', '/mod'):\n"
        "    os.chmod(path + name, 0o500 if name != '/mod/cache' else 0)\n"
        "folders.discard(root, 'MT-1')\n"
        "print(sorted(os.listdir(root)), os.listdir(root + '/.symphony/trash'))\n"
        "locked = root + '/locked'\n"
        "os.mkdir(locked, 0o500)\n"
        "for path in (locked, locked + '/new'):\n"
        "    try:\n"
        "        folders.open_root(path)\n"
        "    except Exception as error:\n"
        "        print(error.category, path in error.message)\n"
    )
    tmp_path.chmod(stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)
    demote = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*demote, sys.executable, "-c", script, str(tmp_path / "root")],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "['.symphony'] []",
        "workspace_root_unwritable True",
        "workspace_root_unwritable True",
    ]


# What is there


async def test_existing_workspaces_are_told_by_their_paths(place, run_spec):
    assert await place.workspaces.existing_paths() == set()
    await place.workspaces.open()
    assert await place.workspaces.existing_paths() == set()
    made = {(await place.workspaces.prepare(run_spec(one))).path for one in ("MT-1", "team/a-1")}
    put(place.root, "MT-3", "a file")
    assert await place.workspaces.existing_paths() == made
    expected = str(place.root / workspace_key("team/a-1"))
    assert place.workspaces.path_for("team/a-1") == expected
    assert place.workspaces.path_for("..") is None


# What a run of an earlier daemon has worked in


async def test_a_recorded_workspace_is_found_where_it_was_made(place, run_spec):
    made = await place.workspaces.prepare(run_spec())
    found = await place.workspaces.find(run_spec().issue, made.path)
    assert (found.path, found.key, found.root) == (made.path, made.key, made.root)
    shutil.rmtree(made.path)
    assert await place.workspaces.find(run_spec().issue, made.path) is None


async def test_a_record_of_another_place_or_a_link_is_no_workspace(place, run_spec):
    made = await place.workspaces.prepare(run_spec())
    other = await place.workspaces.prepare(run_spec("B-2"))
    with pytest.raises(WorkspaceError, match="not this issue's"):
        await place.workspaces.find(run_spec().issue, other.path)
    shutil.rmtree(made.path)
    os.symlink(other.path, made.path)
    with pytest.raises(WorkspaceError, match="is a link"):
        await place.workspaces.find(run_spec().issue, made.path)

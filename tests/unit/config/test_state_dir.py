import json
import os
import pwd
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from symphony.config import state_dir
from symphony.errors import StateDirError

HOLD = """
import sys
from pathlib import Path
from symphony.config import state_dir
state = state_dir.locate(Path(sys.argv[1]))
state.prepare()
lock = state.lock()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cache_home():
    """A cache directory that is not below the temp directory."""
    base = Path(os.environ.get("SYMPHONY_TEST_CACHE", Path.home() / ".cache/symphony-tests"))
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=base) as directory:
        yield Path(directory)


@pytest.fixture
def env(tmp_path, cache_home):
    return {
        "HOME": str(tmp_path / "home"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CACHE_HOME": str(cache_home),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
    }


@pytest.fixture
def workflow(tmp_path):
    path = tmp_path / "My Repo!" / "WORKFLOW.md"
    path.parent.mkdir()
    path.write_text("hello")
    return path


def spawn_holder(workflow, env):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workflow)],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"held\n"
    return holder


def end(holder):
    holder.kill()
    holder.communicate()


def test_the_instance_is_named_after_the_directory_and_the_path(workflow, env):
    state = state_dir.locate(workflow, env=env)
    assert state.instance.startswith("my-repo-")
    assert state.root == Path(env["XDG_STATE_HOME"]) / "symphony" / state.instance
    assert state.ledger.parent == state.root
    assert state.logs_root == state.root
    other = state_dir.locate(workflow.with_name("OTHER.md"), env=env)
    assert other.instance != state.instance


def test_a_relative_path_and_a_linked_directory_name_the_same_instance(
    workflow, env, tmp_path, monkeypatch
):
    monkeypatch.chdir(workflow.parent)
    (tmp_path / "link").symlink_to(workflow.parent)
    expected = state_dir.instance_name(workflow)
    assert state_dir.instance_name(Path("WORKFLOW.md")) == expected
    assert state_dir.instance_name(tmp_path / "link" / "WORKFLOW.md") == expected


def test_a_workflow_file_that_is_swapped_by_a_link_stays_the_same_instance(workflow):
    before = state_dir.instance_name(workflow)
    target = workflow.with_name("v2.md")
    workflow.rename(target)
    workflow.symlink_to(target)
    assert state_dir.instance_name(workflow) == before


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 65, "sp ace"])
def test_an_instance_name_that_is_no_directory_name_is_refused(workflow, env, name):
    with pytest.raises(StateDirError, match="instance name"):
        state_dir.locate(workflow, instance=name, env=env)


def test_a_given_name_and_logs_root_are_used(workflow, env, tmp_path):
    state = state_dir.locate(workflow, instance="night", logs_root=tmp_path / "logs", env=env)
    assert state.root.name == "night"
    assert state.logs_root == tmp_path / "logs"


def test_prepared_directories_are_private_to_their_owner(workflow, env):
    state = state_dir.locate(workflow, env=env)
    state.root.mkdir(parents=True, mode=0o755)
    state.prepare()
    for directory in (state.root, state.transcripts, state.cache, state.codex_home):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_state_directory_that_cannot_be_made_is_named_with_its_mend(workflow, env, tmp_path):
    (tmp_path / "state").write_text("a file, not a directory")
    with pytest.raises(StateDirError) as caught:
        state_dir.locate(workflow, env=env).prepare()
    assert caught.value.category == "state_dir_unusable"
    assert str(tmp_path / "state") in caught.value.message
    assert "XDG_STATE_HOME" in caught.value.message


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to give a directory away")
def test_a_state_directory_of_another_user_is_refused(workflow, env):
    state = state_dir.locate(workflow, env=env)
    state.root.mkdir(parents=True)
    os.chown(state.root, 12345, 12345)
    with pytest.raises(StateDirError, match="belongs to user 12345"):
        state.prepare()


def test_relative_xdg_values_are_ignored(workflow, env):
    env = env | {"XDG_STATE_HOME": "relative"}
    assert state_dir.locate(workflow, env=env).root.is_relative_to(
        Path(env["HOME"]) / ".local/state"
    )


def test_codex_homes_are_never_below_the_temp_directory(workflow, env, tmp_path):
    moved = state_dir.locate(workflow, env=env | {"XDG_CACHE_HOME": str(tmp_path)})
    own = Path(pwd.getpwuid(os.getuid()).pw_dir)
    assert moved.codex_home == own / ".cache/symphony" / moved.instance / "codex-home"
    assert "XDG_CACHE_HOME" in moved.warnings[0]
    kept = state_dir.locate(workflow, env=env)
    assert kept.codex_home.is_relative_to(env["XDG_CACHE_HOME"])
    assert kept.warnings == ()


def test_where_every_cache_is_below_the_temp_directory_the_mend_is_named(workflow, env, tmp_path):
    own = pwd.getpwuid(os.getuid()).pw_dir
    with pytest.raises(StateDirError, match="set XDG_CACHE_HOME"):
        state_dir.locate(workflow, env=env | {"XDG_CACHE_HOME": str(tmp_path), "TMPDIR": own})


def test_the_socket_lies_in_the_state_directory_where_its_path_is_short_enough(workflow, env):
    state = state_dir.locate(workflow, env=env | {"XDG_STATE_HOME": "/s"})
    assert state.socket == state.root / "control.sock"


def test_a_long_state_path_moves_the_socket_to_a_place_that_can_be_bound(workflow, env, tmp_path):
    runtime = Path(tempfile.mkdtemp(prefix="rt"))
    deep = env | {"XDG_STATE_HOME": str(tmp_path / ("d" * 90)), "XDG_RUNTIME_DIR": str(runtime)}
    try:
        state = state_dir.locate(workflow, env=deep)
        state.prepare()
        assert state.socket.parent == runtime / "symphony"
        assert len(os.fsencode(state.socket)) <= state_dir.SOCKET_PATH_LIMIT
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(state.socket))
        state.socket.unlink()
    finally:
        (runtime / "symphony").rmdir()
        runtime.rmdir()
    without = state_dir.locate(workflow, env=deep | {"XDG_RUNTIME_DIR": ""})
    assert without.socket.parent == Path(f"/tmp/symphony-{os.getuid()}")


def test_a_link_in_place_of_the_socket_directory_is_refused(workflow, env, tmp_path):
    runtime = Path(tempfile.mkdtemp(prefix="rt"))
    (runtime / "symphony").symlink_to(tmp_path)
    deep = env | {"XDG_STATE_HOME": str(tmp_path / ("d" * 90)), "XDG_RUNTIME_DIR": str(runtime)}
    try:
        with pytest.raises(StateDirError, match="it is a link"):
            state_dir.locate(workflow, env=deep).prepare()
    finally:
        (runtime / "symphony").unlink()
        runtime.rmdir()


def test_a_second_daemon_is_refused_with_the_name_of_the_first(workflow, env):
    holder = spawn_holder(workflow, env)
    try:
        state = state_dir.locate(workflow, env=env)
        with pytest.raises(StateDirError) as caught:
            state.lock()
        assert caught.value.category == "already_running"
        assert f"pid {holder.pid}" in caught.value.message
        assert str(workflow) in caught.value.message
    finally:
        end(holder)
    with state.lock():
        assert json.loads(state.lock_file.read_bytes())["pid"] == os.getpid()


def test_a_running_daemon_is_found_by_its_workflow_and_a_dead_one_is_not(workflow, env):
    assert state_dir.find_instance(workflow, env=env) is None
    holder = spawn_holder(workflow, env)
    try:
        found = state_dir.find_instance(workflow, env=env)
        assert found is not None
        assert found.pid == holder.pid
        assert found.socket == str(state_dir.locate(workflow, env=env).socket)
        own = pwd.getpwuid(os.getuid()).pw_dir
        cacheless = env | {"XDG_CACHE_HOME": "/tmp", "TMPDIR": own, "XDG_RUNTIME_DIR": ""}
        assert state_dir.find_instance(workflow, env=cacheless) == found
    finally:
        end(holder)
    assert state_dir.find_instance(workflow, env=env) is None


def test_a_later_process_of_the_same_pid_is_not_the_holder(workflow, env):
    state = state_dir.locate(workflow, env=env)
    state.prepare()
    with state.lock():
        fields = json.loads(state.lock_file.read_bytes())
        assert state_dir.find_instance(workflow, env=env) is not None
        state.lock_file.write_text(json.dumps(fields | {"start_ticks": 1}))
        assert state_dir.find_instance(workflow, env=env) is None
        state.lock_file.write_text("{")
        assert state_dir.find_instance(workflow, env=env) is None


def test_a_released_lock_can_be_taken_again(workflow, env):
    state = state_dir.locate(workflow, env=env)
    state.prepare()
    first = state.lock()
    with pytest.raises(StateDirError):
        state.lock()
    first.release()
    first.release()
    state.lock().release()

"""Command lines and environments: what bash is given, and what it makes of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from symphony.hosts.base import ExitStatus
from symphony.hosts.launch import (
    clean_environment,
    codex_argv,
    codex_environment,
    is_simple_command,
    launch_error,
    script_argv,
)


@pytest.mark.parametrize(
    "command",
    [
        "codex app-server",
        "codex --config 'model=\"gpt-5\"' app-server",
        '"$HOME/bin/codex" app-server --listen stdio://',
        "/opt/codex/bin/codex app-server",
        "~/bin/codex app-server",
    ],
)
def test_simple_commands_are_executed_in_the_shells_place(command):
    assert is_simple_command(command)
    assert codex_argv(command) == ("bash", "-lc", f"exec {command}")


@pytest.mark.parametrize(
    "command",
    [
        "RUST_LOG=debug codex app-server",
        "A+=b codex",
        "cd /srv && codex app-server",
        "codex app-server | tee log",
        "codex app-server 2>log",
        "codex app-server &",
        "codex app-server; echo done",
        "(codex app-server)",
        "{ codex app-server; }",
        "source env.sh",
        "exec codex app-server",
        "! codex",
        "codex $(cat args)",
        "codex `cat args`",
        "set -e\ncodex app-server",
        "codex app-server # ours",
        "codex 'unclosed",
        "",
        "   ",
    ],
)
def test_other_commands_are_left_as_they_are(command):
    assert not is_simple_command(command)
    assert codex_argv(command) == ("bash", "-lc", command)


def run(argv: tuple[str, ...], home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("A=1 printenv A", "1\n"),
        ("A=2 && export A && printenv A", "2\n"),
        ("echo x | tr x y", "y\n"),
        ("echo 'a  b' \"c;d\"", "a  b c;d\n"),
    ],
)
def test_bash_runs_every_kind_of_command(tmp_path, command, output):
    assert run(codex_argv(command, secret_names=["TOKEN"]), tmp_path).stdout == output


@pytest.mark.parametrize("make", [codex_argv, script_argv])
def test_secrets_that_the_login_profile_exports_again_are_removed(tmp_path, make):
    for name in (".bash_profile", ".profile"):
        (tmp_path / name).write_text("export LINEAR_API_KEY=again OTHER=stays\n")
    argv = make("env", secret_names=["LINEAR_API_KEY", "not a name", "; touch x"])
    done = run(argv, tmp_path, LINEAR_API_KEY="first")
    assert "LINEAR_API_KEY" not in done.stdout
    assert "OTHER=stays" in done.stdout
    assert "touch" not in argv[2]


@pytest.mark.parametrize("make", [codex_argv, script_argv])
def test_a_secret_that_cannot_be_removed_ends_the_start(tmp_path, make):
    for name in (".bash_profile", ".profile"):
        (tmp_path / name).write_text("export TOKEN=s3cret; readonly TOKEN\n")
    done = run(make("env", secret_names=["TOKEN"]), tmp_path)
    assert done.returncode != 0
    assert "s3cret" not in done.stdout + done.stderr


def test_the_message_of_a_stuck_secret_names_it(tmp_path):
    (tmp_path / ".bash_profile").write_text("readonly TOKEN=s3cret\n")
    done = run(codex_argv("env", secret_names=["TOKEN"]), tmp_path)
    error = launch_error(
        ExitStatus(code=done.returncode), command="env", environ={}, stderr=done.stderr
    )
    assert error is not None
    assert error.category == "host_start_failed"
    assert "TOKEN" in error.message
    assert "profile" in error.message


def program(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "codex").write_text(f"#!/bin/sh\necho {text}\n")
    (folder / "codex").chmod(0o755)


def test_the_fallback_is_used_only_where_the_path_has_no_codex(tmp_path):
    fallback, own = tmp_path / "it's a fall back", tmp_path / "own"
    program(fallback, "fallback")
    program(own, "own")
    argv = codex_argv("codex app-server", fallback_dir=fallback)
    assert run(argv, tmp_path).stdout == "fallback\n"
    (tmp_path / ".bash_profile").write_text(f'export PATH="{own}:$PATH"\n')
    assert run(argv, tmp_path).stdout == "own\n"


def test_an_agents_environment_has_its_own_homes_and_no_secrets_or_foreign_markers():
    environ = {
        "PATH": "/bin",
        "TOKEN": "s3cret",
        "TMPDIR": "/shared",
        "TMP": "/shared",
        "SYMPHONY_RUN_ID": "outer",
        "SYMPHONY_SPAWN": "outer",
        "SYMPHONY_INSTANCE": "outer",
    }
    env = codex_environment(
        environ, secret_names=["TOKEN"], codex_home=Path("/c/home"), temp_dir=Path("/c/tmp/r1")
    )
    assert env == {"PATH": "/bin", "CODEX_HOME": "/c/home", "TMPDIR": "/c/tmp/r1"}
    assert environ["TOKEN"] == "s3cret"
    assert clean_environment(environ, secret_names=()) == {
        "PATH": "/bin",
        "TOKEN": "s3cret",
        "TMPDIR": "/shared",
        "TMP": "/shared",
    }


def test_a_daemon_started_by_a_hook_of_git_does_not_pass_its_repository_on():
    environ = {
        "PATH": "/bin",
        "GIT_DIR": "/repo/.git",
        "GIT_INDEX_FILE": "/repo/.git/index",
        "GIT_WORK_TREE": "/repo",
        "GIT_PREFIX": "sub/",
        "GIT_SSH_COMMAND": "ssh -i key",
    }
    assert clean_environment(environ, secret_names=()) == {
        "PATH": "/bin",
        "GIT_SSH_COMMAND": "ssh -i key",
    }


def test_a_program_that_the_shell_does_not_find_is_named_with_the_mend(tmp_path):
    done = run(codex_argv("no-such-codex app-server"), tmp_path)
    error = launch_error(
        ExitStatus(code=done.returncode),
        command="no-such-codex app-server",
        environ={"PATH": "/usr/bin:/bin"},
        stderr=done.stderr,
    )
    assert error is not None
    assert error.category == "codex_not_found"
    assert "no-such-codex app-server" in error.message
    assert "/usr/bin:/bin" in error.message


def test_a_file_that_is_no_program_is_told_apart(tmp_path):
    plain = tmp_path / "codex"
    plain.write_text("text")
    done = run(codex_argv(str(plain)), tmp_path)
    error = launch_error(ExitStatus(code=done.returncode), command=str(plain), environ={})
    assert error is not None
    assert error.category == "host_start_failed"


def test_other_ends_are_not_explained_away():
    for status in (ExitStatus(code=0), ExitStatus(code=78), ExitStatus(signal=9)):
        assert launch_error(status, command="codex", environ=dict(os.environ)) is None


def test_a_native_binary_goes_before_the_path_of_the_login_shell(tmp_path: Path) -> None:
    for name, said in (("native", "native"), ("wrapper", "wrapper")):
        program = tmp_path / name / "codex"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\necho {said}\n")
        program.chmod(0o755)
    env = {"PATH": f"{tmp_path / 'wrapper'}:/usr/bin:/bin", "HOME": str(tmp_path)}
    argv = codex_argv("codex app-server", first_dir=tmp_path / "native")
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "native\n"

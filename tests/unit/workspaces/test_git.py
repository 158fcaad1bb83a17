from __future__ import annotations

import os
import subprocess
from pathlib import Path

from symphony.workspaces.git import filter_names, hostile_environment, own_environment


def test_filter_drivers_are_found_by_whatever_name() -> None:
    keys = [
        "filter.lfs.clean",
        "filter.a=b.process",
        "filter.with.dots.smudge",
        "filter.with\nnewline.required",
        "filter.lfs.smudge",
        "core.filter",
        "filters.x.clean",
    ]
    assert filter_names(keys) == {"lfs", "a=b", "with.dots", "with\nnewline"}


def test_git_itself_takes_the_overrides_whatever_the_repository_says(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    with (tmp_path / ".git" / "config").open("a") as config:
        config.write('[core]\nfsmonitor = /bin/evil\n[filter "a=b"]\nclean = /bin/evil\n')
    env = hostile_environment(os.environ["PATH"], filters=["a=b"])
    listed = subprocess.run(
        ["git", "-C", str(tmp_path), "config", "--list"], env=env, capture_output=True, text=True
    ).stdout.splitlines()
    effective = dict(line.partition("=")[::2] for line in listed if "filter" not in line)
    assert effective["core.fsmonitor"] == "false"
    assert effective["core.hookspath"] == "/dev/null"
    assert listed.index("filter.a=b.clean=") > listed.index("filter.a=b.clean=/bin/evil")


def test_our_own_git_has_the_users_keys_and_neither_secrets_nor_repositories_of_others() -> None:
    environ = {
        "HOME": "/home/ada",
        "SSH_AUTH_SOCK": "/run/agent",
        "GIT_SSH_COMMAND": "ssh -i key",
        "GIT_DIR": "/elsewhere",
        "GIT_CONFIG_PARAMETERS": "'core.pager=evil'",
        "TOKEN": "hush",
        "SSH_ASKPASS": "/usr/bin/ask",
    }
    env = own_environment(environ, secret_names=["TOKEN"])
    assert env["SSH_AUTH_SOCK"] == "/run/agent"
    assert env["GIT_SSH_COMMAND"] == "ssh -i key"
    assert env["GIT_TERMINAL_PROMPT"] == "0"
    assert {"GIT_DIR", "GIT_CONFIG_PARAMETERS", "TOKEN", "SSH_ASKPASS"} & env.keys() == set()

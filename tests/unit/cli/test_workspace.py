"""``symphony workspace before-remove`` with a gh that writes down what it is asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from symphony.cli.workspace import app

GH = """#!/bin/sh
echo "$PWD $*" >> {log}
case "$1 $2" in
  "auth status") exit {auth} ;;
  "pr list") printf '{numbers}'; exit {listing} ;;
  "pr close") [ "$3" = 13 ] && {{ echo "no such thing"; exit 4; }}; exit 0 ;;
esac
"""


class Desk:
    """A checkout, a gh, and what was said."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.checkout = folder / "checkout"
        self.programs = folder / "bin"
        self.log = folder / "gh.log"
        self.programs.mkdir()
        (self.checkout / ".git").mkdir(parents=True)
        (self.checkout / "below").mkdir()
        self.check_out("feature/roof")
        monkeypatch.chdir(self.checkout / "below")
        monkeypatch.setenv("PATH", f"{self.programs}{os.pathsep}/usr/bin{os.pathsep}/bin")
        monkeypatch.delenv("GH_REPO", raising=False)

    def check_out(self, branch: str) -> None:
        (self.checkout / ".git" / "HEAD").write_text(f"ref: refs/heads/{branch}\n")

    def gh(self, *, numbers: str = "", auth: int = 0, listing: int = 0) -> None:
        path = self.programs / "gh"
        path.write_text(GH.format(log=self.log, numbers=numbers, auth=auth, listing=listing))
        path.chmod(0o755)

    def asked(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*words: str) -> tuple[int, str, str]:
        code = app(["before-remove", *words], result_action="return_value")
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_the_open_pull_requests_of_the_branch_are_closed(desk: Desk, call: Call) -> None:
    desk.gh(numbers="7\\n13\\n21\\n")
    status, out, err = call("--repo", "team/project")
    assert status == 0
    assert out.splitlines() == [
        "Closed PR #7 for branch feature/roof",
        "Closed PR #21 for branch feature/roof",
    ]
    failed = "Failed to close PR #13 for branch feature/roof: exit 4 output='no such thing'\n"
    assert err == failed
    listing, first = desk.asked()[1:3]
    assert listing == (
        "/ pr list --repo=team/project --head=feature/roof --state=open --json=number"
        " --jq=.[].number"
    )
    assert first == (
        "/ pr close 7 --repo=team/project --comment=Closing because the tracker issue for branch"
        " feature/roof entered a terminal state without merge."
    )


def test_branch_and_repository_can_be_named(
    desk: Desk, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.gh(numbers="7\\n")
    monkeypatch.setenv("GH_REPO", "team/other")
    assert call("--branch", "mine")[1] == "Closed PR #7 for branch mine\n"
    assert "--repo=team/other --head=mine" in desk.asked()[1]


def test_a_worktree_is_read_through_its_file(desk: Desk, call: Call) -> None:
    desk.gh(numbers="7\\n")
    os.rename(desk.checkout / ".git", desk.checkout / "elsewhere")
    (desk.checkout / ".git").write_text("gitdir: elsewhere\n")
    assert call("--repo", "a/b")[1] == "Closed PR #7 for branch feature/roof\n"


def test_without_gh_nothing_happens(desk: Desk, call: Call) -> None:
    assert call("--repo", "a/b") == (0, "", "")


@pytest.mark.parametrize("fault", [{"auth": 1}, {"listing": 1}])
def test_a_gh_that_refuses_is_no_failure(desk: Desk, call: Call, fault: dict[str, int]) -> None:
    desk.gh(numbers="7\\n", **fault)
    assert call("--repo", "a/b") == (0, "", "")


@pytest.mark.parametrize("head", ["", "a" * 40, "ref: refs/heads/", "ref: refs/heads/a\x1bb"])
def test_without_a_branch_gh_is_not_asked(desk: Desk, call: Call, head: str) -> None:
    desk.gh()
    (desk.checkout / ".git" / "HEAD").write_text(f"{head}\n")
    assert call("--repo", "a/b") == (0, "", "")
    assert desk.asked() == []


def test_without_a_repository_gh_is_not_asked(desk: Desk, call: Call) -> None:
    desk.gh()
    assert call() == (0, "", "")
    assert desk.asked() == []

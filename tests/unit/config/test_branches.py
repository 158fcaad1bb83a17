from __future__ import annotations

import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from symphony.config.branches import (
    DEFAULT_BRANCH,
    base_fault,
    branch_fault,
    branch_name,
    is_branch_name,
    is_local_repository,
    repository_fault,
)


def test_the_default_names_the_branch_after_the_identifier() -> None:
    assert branch_fault(DEFAULT_BRANCH) is None
    assert branch_name(DEFAULT_BRANCH, {"issue.identifier": "MT-1"}) == "symphony/MT-1"


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("work", "must tell issues apart"),
        ("work/{{ issue.title }}", "must tell issues apart"),
        ("{{ issue.state }}/{{ issue.id }}", "knows no {{ issue.state }}"),
        ("-{{ issue.id }}", "git takes"),
        ("a..b/{{ issue.id }}", "git takes"),
        ("a b/{{ issue.id }}", "git takes"),
        ("{{ issue.id }}.lock", "git takes"),
        ("{{ issue.id | upcase }}", "must tell issues apart"),
    ],
)
def test_a_template_that_can_not_work_is_refused(template: str, problem: str) -> None:
    assert problem in (branch_fault(template) or "")


def test_a_title_is_made_fit_and_the_trackers_own_name_is_taken_as_it_is() -> None:
    template = "{{issue.id}}-{{ issue.title }}"
    values = {"issue.id": "7", "issue.title": "Mend: the ROOF, now!"}
    assert branch_name(template, values) == "7-mend-the-roof-now"
    own = {"issue.branch_name": "me/mt-1-roof"}
    assert branch_name("{{ issue.branch_name }}", own) == "me/mt-1-roof"


# Letters alone would seldom meet what git refuses: dots, slashes, dashes and ".lock" side by side.
awkward = st.lists(st.sampled_from([".", "/", "-", "a", "0", ".lock", "HEAD", "@", "{", " ", "é"]))


@given(st.text() | awkward.map("".join), st.text() | awkward.map("".join))
@example("", "0..0")
@example(".", "..")
def test_two_identifiers_never_share_a_branch(one: str, other: str) -> None:
    names = [branch_name(DEFAULT_BRANCH, {"issue.identifier": value}) for value in (one, other)]
    assert (names[0] == names[1]) == (one == other)
    assert all(is_branch_name(name) for name in names)


@given(st.text() | awkward.map("".join), awkward.map("".join))
def test_any_title_and_any_name_of_the_tracker_make_a_branch(title: str, own: str) -> None:
    for template in (
        "{{ issue.id }}-{{ issue.title }}",
        "{{ issue.title }}{{ issue.branch_name }}",
    ):
        values = {"issue.id": "7", "issue.title": title, "issue.branch_name": own}
        assert is_branch_name(branch_name(template, values))


@pytest.mark.parametrize(
    "name",
    ["a", "a/b", "a..b", ".a", "a/.b", "a.lock", "a/", "/a", "a//b", "a.", "a@{b", "-a", "a=b"],
)
def test_what_passes_for_a_branch_name_git_takes_too(name: str) -> None:
    git = subprocess.run(["git", "check-ref-format", "--branch", name], capture_output=True)
    assert not is_branch_name(name) or git.returncode == 0
    assert is_branch_name(name) == (git.returncode == 0)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://me:secret@example.com/a.git", "must not hold a password"),
        ("ext::sh -c id", "must be a URL"),
        ("--upload-pack=id", "must be a URL"),
        ("", "can't be blank"),
    ],
)
def test_a_repository_that_is_no_address_or_tells_a_secret_is_refused(url, problem) -> None:
    fault = repository_fault(url) or ""
    assert problem in fault
    assert "secret" not in fault


def test_addresses_are_told_from_paths() -> None:
    remote = ["https://e.com/a", "git@e.com:a/b.git", "ssh://git@e.com:22/a", "file:///a"]
    assert [repository_fault(url) for url in remote] == [None] * 4
    assert not any(is_local_repository(url) for url in remote)
    assert all(is_local_repository(path) for path in ("../a", "/srv/a.git", "./a:b", "~/a"))


def test_a_base_is_a_branch_name() -> None:
    assert base_fault("release/1.x") is None
    assert base_fault("a b") is not None

"""What a process inherits, and what texts no longer show."""

from __future__ import annotations

from typing import Any

import pytest
from codex_app_server import InvalidArgument
from codex_app_server.environment import Redactor, launch_environment

OURS = {"PATH": "/bin", "HOME": "/h", "LC_ALL": "C", "TRACKER_TOKEN": "tok-123456", "ODD": "1"}


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        ({}, OURS),
        ({"env": {"ODD": "2", "NEW": "3"}}, {**OURS, "ODD": "2", "NEW": "3"}),
        ({"env": {"NEW": "3"}, "mode": "replace"}, {"NEW": "3"}),
        ({"mode": "replace"}, {}),
        ({"mode": "allow"}, {"PATH": "/bin", "HOME": "/h", "LC_ALL": "C"}),
        ({"mode": "allow", "allow": ["O*"], "env": {"NEW": "3"}}, {"ODD": "1", "NEW": "3"}),
        ({"remove_secrets": ["*_token"]}, {n: v for n, v in OURS.items() if "TOKEN" not in n}),
        (
            {"remove_secrets": ["*_TOKEN"], "env": {"TRACKER_TOKEN": "given"}},
            {**OURS, "TRACKER_TOKEN": "given"},
        ),
        ({"mode": "allow", "allow": ["*"], "remove_secrets": ["*"]}, {}),
    ],
)
def test_the_environment_is_composed(options: dict[str, Any], variables: dict[str, str]) -> None:
    assert launch_environment(inherited=OURS, **options).variables == variables


def test_removed_values_and_those_of_telling_names_are_secrets() -> None:
    composed = launch_environment(
        {"MY_API_KEY": "key-abcdef"}, remove_secrets=["TRACKER_*", "ODD"], inherited=OURS
    )
    assert set(composed.secrets) == {"1", "key-abcdef", "tok-123456"}


@pytest.mark.parametrize(
    ("env", "mode", "text"),
    [
        ({}, "mix", "mode='mix': give one of merge, replace, allow"),
        ({"A": 1}, "merge", r"env\['A'\]=1"),
        ({"A=B": "1"}, "merge", "no '='"),
        ({"A": "\0"}, "merge", "NUL"),
    ],
)
def test_nonsense_is_refused_by_name(env: Any, mode: Any, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        launch_environment(env, mode=mode)


def test_secrets_are_masked_the_longest_first_and_short_ones_left_alone() -> None:
    redactor = Redactor(["abcdef", "abcdefgh", "x", ""])
    assert redactor.clean("abcdefgh abcdef x") == "[redacted] [redacted] x"


def test_the_rest_of_a_secret_at_a_cut_is_left_out() -> None:
    redactor = Redactor(["first-part\nsecond-part-of-it"])
    cut = "part\nsecond-part-of-it after\nnext line\n"
    assert redactor.clean(cut, cut=True) == "next line\n"

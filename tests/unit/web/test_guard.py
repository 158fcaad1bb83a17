"""Hosts and links that are ours, and those that aren't."""

from __future__ import annotations

import pytest

from symphony.web.guard import HostRule
from symphony.web.pages import safe_url, tone


@pytest.mark.parametrize(
    "authority",
    ["127.0.0.1:4000", "localhost", "LOCALHOST:9999", "[::1]:4000", "127.0.0.1", "localhost."],
)
def test_loopback_names_are_allowed_on_any_port(authority: str) -> None:
    assert HostRule("127.0.0.1").allows(authority)


@pytest.mark.parametrize(
    "authority",
    ["", "evil.example", "127.0.0.1.evil.example", "evil.example:4000", "10.0.0.1:4000",
     "localhost@evil.example", "localhost:abc", "localhost, evil.example", "[::1", "a/localhost"],
)  # fmt: skip
def test_other_names_are_refused(authority: str) -> None:
    assert not HostRule("127.0.0.1").allows(authority)


def test_a_specific_address_is_allowed_when_it_is_listened_on() -> None:
    assert HostRule("10.0.0.1").allows("10.0.0.1:4000")
    assert HostRule("[fd00::1]").allows("[fd00::1]:4000")
    assert not HostRule("10.0.0.1").allows("10.0.0.2")


def test_a_wildcard_allows_addresses_but_no_foreign_names() -> None:
    rule = HostRule("0.0.0.0")
    assert rule.allows("192.168.1.7:4000")
    assert not rule.allows("rebind.example:4000")


def test_more_names_can_be_allowed() -> None:
    assert HostRule("127.0.0.1", ["Symphony.Example"]).allows("symphony.example")


@pytest.mark.parametrize("url", ["https://tracker.example/A-1", "http://[::1]:3000/x?y=1#z"])
def test_web_links_are_kept(url: str) -> None:
    assert safe_url(url) == url


@pytest.mark.parametrize(
    "url",
    [None, "", "javascript:alert(1)", "data:text/html,x", "//evil.example", "https://", "https:/x",
     "java\nscript:alert(1)", "http://[", "ftp://tracker.example/x", " https://tracker.example"],
)  # fmt: skip
def test_other_links_are_dropped(url: str | None) -> None:
    assert safe_url(url) is None


@pytest.mark.parametrize(
    ("state", "name"),
    [("In Progress", "active"), ("Blocked", "danger"), ("Todo", "warning"), ("Review", "neutral")],
)
def test_a_badge_has_the_colour_of_its_words(state: str, name: str) -> None:
    assert tone(state) == name

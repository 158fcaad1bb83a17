from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony.config.front_matter import split_document
from symphony.errors import PromptError
from symphony.model.issue import BlockerRef, Issue, IssueId
from symphony.model.run import RetryKind
from symphony.runner.prompt import (
    ISSUE_FIELDS,
    VARIABLES,
    PromptTemplate,
    check_prompt,
    continuation_prompt,
    issue_variables,
)

DATA = Path(__file__).resolve().parents[2] / "data"


def issue(**fields: Any) -> Issue:
    base: dict[str, Any] = {
        "id": IssueId("i-1"),
        "identifier": "ORC-7",
        "title": "Prune the pear tree",
        "state": "In Progress",
        "dispatchable": True,
    }
    return Issue(**{**base, **fields})


FULL = issue(
    description="Before winter.",
    priority=2,
    branch_name="orc-7-prune",
    url="https://example.org/ORC-7",
    assignee_id="u-1",
    labels=("backend", "garden"),
    blocked_by=(BlockerRef("i-2", "ORC-2", "Done"), BlockerRef("i-3", "ORC-3", None)),
    native_ref={"node": {"id": "n-1", "tags": ["a", "b"]}},
    created_at=datetime(2026, 2, 26, 18, 6, 48, tzinfo=UTC),
    updated_at=datetime(2026, 2, 26, 20, 6, 48, 120_000, tzinfo=timezone(timedelta(hours=2))),
)


def render(text: str, subject: Issue = FULL, **arguments: Any) -> str:
    return PromptTemplate.compile(text).render(subject, **arguments)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ issue.id }}", "i-1"),
        ("{{ issue.identifier }}: {{ issue.title }}", "ORC-7: Prune the pear tree"),
        ("{{ issue['state'] }}", "In Progress"),
        ("{{ issue.description }}", "Before winter."),
        ("{{ issue.priority }}", "2"),
        ("{{ issue.branch_name }} {{ issue.url }}", "orc-7-prune https://example.org/ORC-7"),
        ("{{ issue.assignee_id }}", "u-1"),
        ("{{ issue.dispatchable }}", "true"),
        ("{{ issue.labels }}", "backendgarden"),
        ("{{ issue.labels | join: ', ' }}", "backend, garden"),
        ("{% for l in issue.labels %}[{{ l }}]{% endfor %}", "[backend][garden]"),
        ("{% if issue.labels contains 'garden' %}yes{% endif %}", "yes"),
        ("{{ issue.labels.size }}/{{ issue.labels[1] }}", "2/garden"),
        (
            "{% for b in issue.blocked_by %}{{ b.identifier }}={{ b.state }};{% endfor %}",
            "ORC-2=Done;ORC-3=;",
        ),
        ("{{ issue.blocked_by | map: 'id' | join: ' ' }}", "i-2 i-3"),
        ("{{ issue.native_ref.node.id }}", "n-1"),
        ("{{ issue.native_ref.node.tags }}", "ab"),
        ("{{ issue.native_ref }}", '{"node": {"id": "n-1", "tags": ["a", "b"]}}'),
        ("{{ issue.created_at }}", "2026-02-26T18:06:48Z"),
        ("{{ issue.updated_at }}", "2026-02-26T18:06:48.120000Z"),
        ("{{ issue.created_at | date: '%d.%m.%Y' }}", "26.02.2026"),
    ],
)
def test_every_field_of_the_issue_can_be_rendered(template: str, text: str) -> None:
    assert render(template) == text


def test_the_fields_are_those_of_the_documentation() -> None:
    assert tuple(issue_variables(FULL)) == ISSUE_FIELDS
    # Why an issue is held back is for operators: one that runs is not.
    assert {*ISSUE_FIELDS, "withheld"} == set(Issue.__dataclass_fields__)


def test_absent_fields_render_empty_and_are_false() -> None:
    template = "[{{ issue.description }}{{ issue.priority }}{{ issue.labels }}{{ issue.url }}]"
    assert render(template, issue()) == "[]"
    assert render("{% if issue.description %}a{% else %}b{% endif %}", issue()) == "b"


def test_a_time_without_a_zone_counts_as_utc() -> None:
    naive = datetime(2026, 2, 26, 18, 6, 48)  # what an adapter may hand over
    assert render("{{ issue.created_at }}", issue(created_at=naive)) == "2026-02-26T18:06:48Z"


@pytest.mark.parametrize(("attempt", "text"), [(None, "first"), (1, "again 1"), (3, "again 3")])
def test_the_attempt_is_absent_on_the_first_run_only(attempt: int | None, text: str) -> None:
    template = "{% if attempt %}again {{ attempt }}{% else %}first{% endif %}"
    assert render(template, attempt=attempt) == text


def test_our_own_variables_can_be_rendered() -> None:
    template = "{{ retry_kind }} {{ turn }}/{{ max_turns }} {{ previous_error }} {{ workspace }}"
    assert (
        render(
            template,
            attempt=2,
            retry_kind=RetryKind.FAILURE,
            turn=1,
            max_turns=20,
            previous_error="port_exit",
            workspace="/w/ORC-7",
        )
        == "failure 1/20 port_exit /w/ORC-7"
    )


def test_our_own_variables_are_empty_where_nothing_is_known() -> None:
    template = "[{{ retry_kind }}{{ max_turns }}{{ previous_error }}{{ workspace }}]{{ turn }}"
    assert render(template) == "[]1"


def test_the_text_of_an_issue_is_never_parsed_as_a_template() -> None:
    hostile = issue(title="{{ attempt }}{% raw", description="{{ nope }}")
    assert render("{{ issue.title }}|{{ issue.description }}", hostile, attempt=1) == (
        "{{ attempt }}{% raw|{{ nope }}"
    )


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("{{ nope }}", "'nope' is undefined"),
        ("{{ issue.nope }}", "issue.nope is undefined"),
        ("{{ issue.nope.deeper }}", "nope"),
        ("{{ issue.labels[7] }}", "index out of range"),
        ("{% if nope %}{% endif %}", "nope"),
        ("{% if issue.nope == 'x' %}{% endif %}", "nope"),
        ("{% unless nope %}{% endunless %}", "nope"),
        ("{% case nope %}{% when 1 %}{% endcase %}", "nope"),
        ("{% for x in nope %}{% endfor %}", "nope"),
        ("{% for b in issue.blocked_by %}{{ b.nme }}{% endfor %}", "b.nme"),
        ("{{ nope | default: 'x' }}", "nope"),
        ("{{ issue.title | append: nope }}", "nope"),
        ("{{ issue.title | shout }}", "unknown filter 'shout'"),
        ("{{ issue.title | slice: 'a' }}", "expected an integer"),
        ("{{ issue.priority | divided_by: 0 }}", "divide by 0"),
        ("{{ issue.title | append }}", "append"),
        ("{% include 'other' %}", "no other templates, so none named 'other'"),
    ],
)
def test_what_is_unknown_fails_the_rendering_with_its_line(template: str, named: str) -> None:
    with pytest.raises(PromptError) as caught:
        PromptTemplate.compile(f"One.\n{template}", first_line=10).render(FULL, attempt=1)
    assert caught.value.category == "template_render_error"
    assert named in caught.value.message
    assert "line 11" in caught.value.message


@pytest.mark.parametrize(
    ("template", "line", "shown"),
    [
        ("One.\n{% if attempt %}\nTwo.\n", 11, "{% if attempt %}"),
        ("{% if a %}{% for x in y %}{% endfor %}\n{% case a %}{% endcase %}", 10, "{% if a %}"),
        ("One.\n\n{{ issue.title ", 12, "{{ issue.title"),
        ("One.\n{% shout %}", 11, "{% shout %}"),
        ("{% if %}{% endif %}", 10, "{% if %}"),
        ("{{ issue.title | }}", 10, "{{ issue.title | }}"),
    ],
)
def test_a_template_that_can_not_be_parsed_names_its_line(
    template: str, line: int, shown: str
) -> None:
    with pytest.raises(PromptError) as caught:
        PromptTemplate.compile(template, first_line=10)
    assert caught.value.category == "template_parse_error"
    assert f"line {line}:" in caught.value.message
    assert shown in caught.value.message


class TestCheck:
    @pytest.mark.parametrize(
        ("template", "findings"),
        [
            ("{{ nope }}", ["line 10: unknown variable 'nope'"]),
            ("{{ atempt }}", ["line 10: unknown variable 'atempt'; did you mean 'attempt'?"]),
            (
                "\n{{ issue.labls }}",
                ["line 11: unknown field 'issue.labls'; did you mean 'issue.labels'?"],
            ),
            (
                "{{ issue.title | upcas }}",
                ["line 10: unknown filter 'upcas'; did you mean 'upcase'?"],
            ),
            ("{% if false %}{{ nope }}{% endif %}", ["line 10: unknown variable 'nope'"]),
            ("{% if false and nope %}{% endif %}", ["line 10: unknown variable 'nope'"]),
            ("{% assign a = nope %}", ["line 10: unknown variable 'nope'"]),
            ("{% render 'x' %}", ["line 10: 'render' can't be used"]),
            ("{% if x %}", ["prompt template, line 10: expected tag endif"]),
            (
                "{{ issue.b }}\n{{ a }}\n{{ issue.title | c }}",
                ["line 10: unknown field", "line 11: unknown variable", "line 12: unknown filter"],
            ),
        ],
    )
    def test_it_finds_what_is_unknown_also_where_nobody_gets_to(
        self, template: str, findings: list[str]
    ) -> None:
        found = check_prompt(template, 10)
        assert len(found) == len(findings)
        assert all(got.startswith(want) for got, want in zip(found, findings, strict=True))

    @pytest.mark.parametrize(
        "template",
        [
            "",
            "Plain text.",
            "".join(f"{{{{ {name} }}}}" for name in VARIABLES),
            "".join(f"{{{{ issue.{name} }}}}" for name in ISSUE_FIELDS),
            "{% assign a = 1 %}{{ a }}{% capture b %}{% endcapture %}{{ b }}",
            "{% for b in issue.blocked_by %}{{ b.id }}{{ forloop.index }}{% endfor %}",
            "{{ issue.labels.first }}{{ issue.size }}{{ issue['title'] | quote_lines }}",
        ],
    )
    def test_it_finds_nothing_in_a_sound_template(self, template: str) -> None:
        assert check_prompt(template, 1) == ()

    @settings(deadline=None)
    @given(st.lists(st.sampled_from(["{{", "}}", "{%", "%}", " if ", "issue.", "|", "x", "\n"])))
    def test_any_text_is_checked_without_a_crash(self, parts: list[str]) -> None:
        assert isinstance(check_prompt("".join(parts), 1), tuple)


class TestDefaultPrompt:
    @pytest.mark.parametrize("body", ["", "  \n\t"])
    def test_a_blank_body_stands_for_it(self, body: str) -> None:
        text = render(body, issue(description="Cut.\nBurn."))
        assert "Identifier: ORC-7" in text
        assert "> Prune the pear tree" in text
        assert "> Cut.\n> Burn." in text

    @pytest.mark.parametrize("line", ["x", "", "word " * 40, "\U0001f600"])
    def test_a_description_of_a_megabyte_leaves_a_prompt_that_codex_takes(self, line: str) -> None:
        body = f"{line}\n" * (1_048_576 // (len(line) + 1))
        text = render("", issue(description=body))
        assert len(text) < 1_048_576
        assert f"[{len(body) - 300_000} more characters are cut off here" in text
        assert "cut off" not in render("", issue(description=body[:300_000]))

    @pytest.mark.parametrize("description", [None, "", "  \n "])
    def test_a_missing_description_is_said(self, description: str | None) -> None:
        assert "No description provided." in render("", issue(description=description))

    def test_the_first_run_hears_nothing_of_attempts(self) -> None:
        assert "attempt" not in render("", previous_error="boom")

    def test_a_retry_hears_why(self) -> None:
        text = render("", attempt=2, previous_error="hook failed\nexit 1")
        assert "follow-up attempt 2" in text
        assert "> hook failed\n> exit 1" in text

    @settings(deadline=None)
    @given(st.text(), st.text())
    def test_no_text_of_an_issue_escapes_its_fence(self, title: str, description: str) -> None:
        def outside(subject: Issue) -> list[str]:
            lines = render("", subject).splitlines()
            return [line for line in lines if line and not line.startswith("> ")]

        hostile = issue(title=f"T{title}", description=f"D{description}")
        assert outside(hostile) == outside(issue(title="T", description="D"))


class TestContinuation:
    def test_it_counts_the_turns_and_keeps_the_task(self) -> None:
        text = continuation_prompt(3, 20)
        assert text.startswith("Continuation guidance:\n")
        assert "continuation turn #3 of 20" in text
        assert "still in an active state" in text


def test_the_shipped_shape_of_a_workflow_renders() -> None:
    document = split_document((DATA / "workflow_linear.md").read_text(encoding="utf-8"))
    assert check_prompt(document.body, document.body_line) == ()
    first = render(document.body, attempt=None)
    assert "Labels: backendgarden" in first
    assert "- blocked by ORC-2 (Done)" in first
    assert "Follow-up" not in first
    assert "follow-up attempt #1" in render(document.body, attempt=1)
    assert "Nothing was written." in render(document.body, issue())


def test_compiling_the_same_text_again_is_free() -> None:
    assert PromptTemplate.compile("{{ attempt }}", 3) is PromptTemplate.compile("{{ attempt }}", 3)

import json
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony.observe.redaction import PLACEHOLDER, Redactor
from symphony.observe.rendering import VALUE_LIMIT, LogEvent, render_json, render_logfmt

WALL = 1_800_000_000.25
PAIR = re.compile(r'([A-Za-z0-9_.-]+)=("(?:[^"\\]|\\.)*"|[^\s"=]*)(?: |$)')


def parse(line):
    """Read a logfmt line back, strictly: every character belongs to a pair."""
    found, at = {}, 0
    while at < len(line):
        pair = PAIR.match(line, at)
        assert pair is not None, line[at:]
        key, value = pair.groups()
        assert key not in found
        found[key] = json.loads(value) if value.startswith('"') else value
        at = pair.end()
    return found


def logfmt(message="Dispatching issue to agent", redactor=None, **fields):
    event = LogEvent(WALL, "info", "symphony.engine", message, fields)
    return render_logfmt(event, redactor or Redactor())


def as_json(message="m", redactor=None, **fields):
    event = LogEvent(WALL, "info", "symphony", message, fields)
    line = render_json(event, redactor or Redactor())
    assert "\n" not in line
    return json.loads(line)


def test_a_line_is_stable_key_value_phrasing():
    line = logfmt(issue_id="1", issue_identifier="ABC-1", attempt=None, ok=True, turn=3)
    assert line == (
        "ts=2027-01-15T08:00:00.250Z level=info logger=symphony.engine "
        'msg="Dispatching issue to agent" issue_id=1 issue_identifier=ABC-1 attempt=none ok=true '
        "turn=3"
    )


@given(
    st.text(),
    st.dictionaries(st.text(string.ascii_lowercase, min_size=1, max_size=5), st.text(max_size=50)),
)
def test_every_line_parses_back_to_its_fields(message, fields):
    fields = {f"f_{key}": value for key, value in fields.items()}
    line = logfmt(message, **fields)
    assert len(line.splitlines()) == 1
    parsed = parse(line)
    assert parsed["msg"] == message
    assert {key: parsed[key] for key in fields} == fields


@pytest.mark.parametrize(
    "hostile",
    ["a\nts=2027 level=error msg=forged", "\x1b[2J", "\x9b31m", "x\u2028y", "\r", "\ud800"],
)
def test_a_strangers_text_starts_no_line_and_sends_nothing_to_the_terminal(hostile):
    line = logfmt(hostile, title=hostile)
    assert line.isprintable()
    assert parse(line)["title"] == hostile
    line.encode()


def test_a_field_cannot_pass_for_the_lines_own():
    parsed = parse(logfmt(**{"level": "critical", "bad key=": "x"}))
    assert parsed["level"] == "info"
    assert parsed["level_"] == "critical"
    assert parsed["bad_key_"] == "x"
    assert as_json(level="critical")["level_"] == "critical"


def test_large_payloads_are_cut():
    assert len(logfmt(output="x" * 100_000)) < VALUE_LIMIT + 200
    assert len(as_json(output=["x" * 100_000])["output"]) < VALUE_LIMIT + 50


def test_structure_survives_in_json_and_is_json_text_in_key_value():
    value = {"a": [1, None, True], "b": ("x",)}
    assert as_json(value=value)["value"] == {"a": [1, None, True], "b": ["x"]}
    assert json.loads(parse(logfmt(value=value))["value"]) == {"a": [1, None, True], "b": ["x"]}


def test_an_exception_is_shown_with_its_trace_and_without_secrets():
    try:
        raise ValueError("token s3cret-value refused")
    except ValueError as error:
        caught = error
    parsed = parse(logfmt(redactor=Redactor(["s3cret-value"]), exc_info=caught))
    assert "Traceback" in parsed["exception"]
    assert f"token {PLACEHOLDER} refused" in parsed["exception"]
    assert "exc_info" not in parsed


@pytest.mark.parametrize(
    "shown",
    [
        "s3cr3t/+key",
        "Authorization: Bearer s3cr3t/+key",
        "https://host/?key=s3cr3t%2F%2Bkey",
        "czNjcjN0LytrZXk=",
        {"headers": [{"deep": "s3cr3t/+key"}]},
        {"s3cr3t/+key": 1},
        b"s3cr3t/+key",
        OSError("s3cr3t/+key"),
    ],
)
def test_a_secret_is_found_by_value_wherever_it_occurs(shown):
    redactor = Redactor(["s3cr3t/+key"])
    for line in (logfmt("x", redactor, field=shown), json.dumps(as_json("x", redactor, f=shown))):
        assert "s3cr3t" not in line
        assert "czNjcjN0" not in line
        assert PLACEHOLDER in line


def test_a_secret_with_quotes_is_found_in_json_text_too():
    redactor = Redactor(['pa"ss\nword'])
    assert "ss\\" not in logfmt(redactor=redactor, body=json.dumps({"p": 'pa"ss\nword'}))


def test_values_that_are_too_short_or_missing_are_no_secrets():
    redactor = Redactor()
    redactor.add(None, "", "  ", "a")
    assert redactor.text("a man, a plan") == "a man, a plan"


def test_the_longer_of_two_secrets_leaves_no_rest():
    redactor = Redactor(["token", "token-and-more"])
    assert redactor.text("token-and-more token") == f"{PLACEHOLDER} {PLACEHOLDER}"

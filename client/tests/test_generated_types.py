"""The generated types: every decoder builds, the unknown stays readable, the file is current."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from codex_app_server.events import DELTA_METHODS
from codex_app_server.protocol import deltas, types
from codex_app_server.protocol.unions import EMPTY, TaggedUnion, Unknown, raw_json

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "client/tools"
GENERATOR = TOOLS / "generate_types.py"

STRUCTS = [
    value
    for value in vars(types).values()
    if isinstance(value, type) and issubclass(value, msgspec.Struct)
]
UNIONS = {name: value for name, value in vars(types).items() if isinstance(value, TaggedUnion)}


def decode(kind: Any, value: object) -> Any:
    return msgspec.json.decode(json.dumps(value).encode(), type=kind)


def pinned_binary() -> Path | None:
    folder = ROOT / ".codex-binaries" / types.SCHEMA_VERSION
    return next(folder.glob("vendor/*/bin/codex"), None)


# Completeness


def test_the_decoder_of_every_struct_builds():
    for struct in STRUCTS:
        msgspec.json.Decoder(struct)
    assert len(STRUCTS) > 800


@pytest.mark.parametrize("name", sorted(UNIONS))
def test_the_decoder_of_every_union_builds_and_reads_an_unknown_tag(name: str):
    union = UNIONS[name]
    value = {union.field: "ofALaterVersion", "more": [1]}
    assert union.one(raw_json(value)) == Unknown("ofALaterVersion", value)


def test_the_decoder_of_every_method_builds():
    for table in (types.NOTIFICATIONS, types.SERVER_REQUESTS, types.SERVER_RESPONSES):
        for kind in table.values():
            msgspec.json.Decoder(kind)
    for request in types.CLIENT_REQUESTS.values():
        msgspec.json.Decoder(request.response)
        if request.params is not None:
            msgspec.json.Decoder(request.params)


def test_the_tables_hold_all_methods_of_the_version():
    stable = [one for one in types.CLIENT_REQUESTS.values() if not one.experimental]
    assert (len(stable), len(types.CLIENT_REQUESTS)) == (109, 184)
    assert len(types.NOTIFICATIONS) == 86 + len({"rawResponse", "rawResponseItem"})
    assert len(types.SERVER_REQUESTS) == len(types.SERVER_RESPONSES) == 11


def test_the_tables_tell_stable_from_experimental_and_params_from_none():
    requests = types.CLIENT_REQUESTS
    assert requests["turn/start"] == (types.TurnStartParams, types.TurnStartResponse, True, False)
    assert requests["thread/backgroundTerminals/clean"].experimental
    assert requests["account/logout"].params is None
    assert not requests["account/rateLimits/read"].params_required


def test_the_types_build_no_decoder_when_they_are_imported():
    """A decoder of all items costs as much as all classes together."""
    built = [name for name, value in vars(types).items() if isinstance(value, msgspec.json.Decoder)]
    assert built == []


def test_the_types_of_deltas_are_those_of_all_types():
    for method, kind in deltas.DELTAS.items():
        assert types.NOTIFICATIONS[method] is kind
    assert deltas.DELTAS.keys() == DELTA_METHODS


# What comes in


def test_a_notification_is_read_down_to_its_item():
    event = decode(
        types.NOTIFICATIONS["item/completed"],
        {
            "threadId": "t",
            "turnId": "u",
            "item": {"type": "agentMessage", "id": "m", "text": "done"},
        },
    )
    assert isinstance(event.item, types.AgentMessageThreadItem)
    assert (event.item.tag, event.item.text, event.item.phase) == ("agentMessage", "done", None)


def test_unknown_fields_and_enum_values_are_accepted_and_missing_fields_are_none():
    event = decode(
        types.NOTIFICATIONS["turn/completed"],
        {"threadId": "t", "turn": {"id": "u", "status": "sleeping", "aura": "blue"}},
    )
    assert event.turn.status == "sleeping"
    assert event.turn.status not in types.KNOWN_VALUES["TurnStatus"]
    assert event.turn.error is None
    assert event.turn.items == []


def test_a_known_tag_of_another_shape_is_unknown_and_costs_only_itself():
    good = {"type": "agentMessage", "id": "m", "text": "done"}
    bad = {"type": "agentMessage", "id": 7}
    turn = decode(types.Turn, {"id": "u", "items": [good, bad, None]})
    assert [type(item) for item in turn.items] == [types.AgentMessageThreadItem, Unknown]
    assert turn.items[1] == Unknown("agentMessage", bad)


@pytest.mark.parametrize("value", ["text", 5, ["a"], {"type": 3}])
def test_a_union_that_is_no_tagged_object_is_unknown_without_a_tag(value: object):
    event = decode(types.ItemStartedNotification, {"threadId": "t", "turnId": "u", "item": value})
    assert event.item == Unknown(None, value)


@pytest.mark.parametrize("body", [{}, {"item": None}])
def test_an_absent_or_null_union_is_none(body: dict[str, object]):
    event = decode(types.ItemStartedNotification, {"threadId": "t", "turnId": "u", **body})
    assert event.item is None


def test_ids_and_deltas_are_required():
    with pytest.raises(msgspec.ValidationError, match="threadId"):
        decode(types.ItemStartedNotification, {"turnId": "u"})
    with pytest.raises(msgspec.ValidationError, match="delta"):
        decode(
            types.NOTIFICATIONS["item/agentMessage/delta"],
            {"threadId": "t", "turnId": "u", "itemId": "i"},
        )


def test_a_received_message_without_its_union_encodes_to_valid_json():
    event = types.ItemStartedNotification(thread_id="t", turn_id="u")
    assert event.item_raw is EMPTY
    assert json.loads(msgspec.json.encode(event)) == {"threadId": "t", "turnId": "u"}


def test_usage_and_rate_limits_are_typed():
    usage = decode(
        types.NOTIFICATIONS["thread/tokenUsage/updated"],
        {"threadId": "t", "turnId": "u", "tokenUsage": {"total": {"inputTokens": 7}}},
    )
    assert usage.token_usage.total.input_tokens == 7
    limits = decode(
        types.NOTIFICATIONS["account/rateLimits/updated"],
        {"rateLimits": {"primary": {"usedPercent": 43, "resetsAt": 1800000000}}},
    )
    assert limits.rate_limits.primary.used_percent == 43


# What goes out


def test_what_is_not_given_is_left_out_and_null_is_kept():
    params = types.TurnStartParams(
        thread_id="t",
        input=[types.TextUserInput(text="hello")],
        effort=None,
        sandbox_policy=types.WorkspaceWriteSandboxPolicy(writable_roots=["/w/.git"]),
    )
    assert json.loads(msgspec.json.encode(params)) == {
        "threadId": "t",
        "input": [{"type": "text", "text": "hello"}],
        "effort": None,
        "sandboxPolicy": {"type": "workspaceWrite", "writableRoots": ["/w/.git"]},
    }


def test_required_fields_of_an_answer_are_required():
    with pytest.raises(TypeError, match="decision"):
        types.SERVER_RESPONSES["item/fileChange/requestApproval"]()


def test_known_values_name_strings_and_keys_of_an_untagged_union():
    assert types.KNOWN_VALUES["AskForApproval"] == {"untrusted", "on-request", "never", "granular"}
    assert {"usageLimitExceeded", "httpConnectionFailed"} <= types.KNOWN_VALUES["CodexErrorInfo"]


# The generator


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    import generate_types

    return generate_types


def schema(**answers: object) -> dict[str, Any]:
    """A protocol of one request, whose answer holds a union, and nothing else."""
    return {
        "ClientRequest": {
            "oneOf": [
                {
                    "properties": {
                        "method": {"enum": ["box/open"]},
                        "params": {"$ref": "#/definitions/BoxOpenParams"},
                    }
                }
            ]
        },
        "ServerRequest": {"oneOf": []},
        "ServerNotification": {"oneOf": []},
        "BoxOpenParams": {
            "type": "object",
            "properties": {"from": {"type": "string"}, "$id": {"type": ["integer", "null"]}},
            "required": ["from"],
        },
        "RawResponseCompletedNotification": {"type": "object"},
        "RawResponseItemCompletedNotification": {"type": "object"},
        "Content": {
            "oneOf": [
                {"type": "object", "properties": {"kind": {"enum": [tag]}}, "required": ["kind"]}
                for tag in ("cat", "air")
            ]
        },
        **answers,
    }


ANSWER = {"type": "object", "properties": {"contents": {"$ref": "#/definitions/Content"}}}


def test_a_new_schema_gives_a_module_that_works(
    generator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    definitions = schema(BoxOpenResponse=ANSWER)
    stable = {**definitions, "ClientRequest": {"oneOf": []}}
    (tmp_path / "types_of_a_test.py").write_text(
        generator.generate("1.2.3", stable, definitions).types
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("types_of_a_test")
    assert module.SCHEMA_VERSION == "1.2.3"
    assert module.CLIENT_REQUESTS["box/open"].experimental
    params = module.BoxOpenParams(from_="a", id=None)
    assert json.loads(msgspec.json.encode(params)) == {"from": "a", "$id": None}
    answer = decode(module.BoxOpenResponse, {"contents": {"kind": "cat"}})
    assert answer.contents == module.CatContent()


def test_a_method_whose_answer_has_no_name_stops_the_generator(generator: Any):
    with pytest.raises(generator.SchemaError, match="box/open: no answer type"):
        generator.generate("1.2.3", schema(), schema())


def test_the_digest_does_not_depend_on_the_order_of_keys(generator: Any):
    one, other = {"a": {"x": 1, "y": 2}, "b": 3}, {"b": 3, "a": {"y": 2, "x": 1}}
    assert generator.digest(one) == generator.digest(other) != generator.digest({"a": 1})


@pytest.mark.codex
def test_the_file_is_what_the_pinned_binary_gives():
    codex = pinned_binary()
    if codex is None:
        pytest.skip(f"codex {types.SCHEMA_VERSION} is not in .codex-binaries (make codex)")
    command = [sys.executable, str(GENERATOR), "--codex", str(codex), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.strip()) == (0, "up to date")

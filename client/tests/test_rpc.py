import json
from typing import Any

import pytest
from codex_app_server.errors import InvalidArgument
from codex_app_server.events import (
    DeltaEvent,
    InvalidParams,
    MalformedLine,
    UnknownNotification,
    with_delta,
)
from codex_app_server.protocol.rpc import Response, Rpc, Run, ServerRequest
from hypothesis import given
from hypothesis import strategies as st


def lines(*messages: Any) -> bytes:
    return b"".join(
        (m if isinstance(m, bytes) else json.dumps(m).encode()) + b"\n" for m in messages
    )


def delta(text: str, turn: str = "u1", thread: str = "t1") -> dict[str, Any]:
    params = {"threadId": thread, "turnId": turn, "itemId": "i", "delta": text}
    return {"method": "item/agentMessage/delta", "params": params, "emittedAtMs": 5}


def test_replies_are_handed_out_once_and_only_to_who_waits() -> None:
    rpc = Rpc()
    first, line = rpc.request("a", {"x": 1})
    assert json.loads(line) == {"id": first, "method": "a", "params": {"x": 1}}
    (response,) = rpc.receive(lines({"id": first, "result": {"ok": 1}}), 0.0)
    assert isinstance(response, Response)
    assert bytes(response.result) == b'{"ok": 1}'
    assert rpc.receive(lines({"id": first, "result": {}}), 0.0) == []
    assert rpc.unmatched == 1


def test_a_reply_before_its_request_is_kept_and_matched() -> None:
    rpc = Rpc()
    assert rpc.receive(lines({"id": 1, "result": "early"}), 0.0) == []
    request_id, _ = rpc.request("initialize", {})
    early = rpc.take_early(request_id)
    assert early is not None
    assert bytes(early.result) == b'"early"'
    assert rpc.pending == 0
    assert rpc.take_early(request_id) is None


def test_a_forgotten_request_only_counts_its_late_reply() -> None:
    rpc = Rpc()
    request_id, _ = rpc.request("a", {})
    rpc.forget(request_id)
    assert rpc.receive(lines({"id": request_id, "result": {}}), 0.0) == []
    assert rpc.unmatched == 1


@pytest.mark.parametrize("spelling", ["1.0", '"1"', "1e0", "1"])
def test_a_reply_of_another_spelling_is_handed_out_once(spelling: str) -> None:
    rpc = Rpc()
    request_id, _ = rpc.request("a", {})
    line = f'{{"id": {spelling}, "result": 5}}\n'.encode()
    (response,) = rpc.receive(line, 0.0)
    assert isinstance(response, Response)
    assert (response.id, type(response.id), bytes(response.result)) == (request_id, int, b"5")
    assert rpc.receive(line, 0.0) == []
    assert (rpc.unmatched, rpc.pending) == (1, 0)


@pytest.mark.parametrize(
    "spelling", ["1.5", '"01"', '" 1"', '"1.0"', '"+1"', '"2"', '"\u0661"', "true"]
)
def test_what_only_resembles_an_id_answers_nothing(spelling: str) -> None:
    rpc = Rpc()
    rpc.request("a", {})
    rpc.receive(f'{{"id": {spelling}, "result": 5}}\n'.encode(), 0.0)
    assert rpc.pending == 1
    assert rpc.unmatched + rpc.malformed == 1


def test_a_request_of_the_server_keeps_a_string_of_digits_as_its_id() -> None:
    rpc = Rpc()
    rpc.request("a", {})
    (asked,) = rpc.receive(lines({"id": "1", "method": "m"}), 0.0)
    assert isinstance(asked, ServerRequest)
    assert asked.id == "1"
    assert rpc.pending == 1


@pytest.mark.parametrize("request_id", [0, 7, "0", "abc"])
def test_server_requests_keep_their_id_whatever_it_is(request_id: int | str) -> None:
    rpc = Rpc()
    own, _ = rpc.request("a", {})
    params = {"threadId": "t", "turnId": "u"}
    (request,) = rpc.receive(lines({"id": request_id, "method": "m", "params": params}), 1.5)
    assert isinstance(request, ServerRequest)
    assert (request.id, request.thread_id, request.turn_id) == (request_id, "t", "u")
    assert request.received_at == 1.5
    assert rpc.pending == 1
    assert json.loads(rpc.reply(request.id, {"a": 1})) == {"id": request_id, "result": {"a": 1}}
    assert own == 1


def test_errors_are_read_whatever_their_shape() -> None:
    rpc = Rpc()
    for error, code, message in [
        ({"code": -32600, "message": "no", "data": {"a": 1}}, -32600, "no"),
        ({"message": 3}, -32603, "3"),
        ("boom", -32603, '"boom"'),
    ]:
        request_id, _ = rpc.request("a", {})
        (response,) = rpc.receive(lines({"error": error, "id": request_id}), 0.0)
        assert isinstance(response, Response)
        assert (response.code, response.message) == (code, message)


def test_deltas_that_arrive_together_come_as_one_run_a_turn() -> None:
    rpc = Rpc()
    found = rpc.receive(
        lines(delta("a"), delta("b"), delta("c", "u2"), delta("d"), delta("e")), 2.0
    )
    assert [[e.params.delta for e in run.events] for run in found if isinstance(run, Run)] == [
        ["a", "b", "d", "e"],
        ["c"],
    ]
    assert all(run.only_deltas for run in found if isinstance(run, Run))
    assert {e.received_at for run in found if isinstance(run, Run) for e in run.events} == {2.0}


@given(
    st.lists(st.tuples(st.sampled_from(["u1", "u2", "u3"]), st.booleans()), max_size=40),
    st.integers(1, 400),
)
def test_nothing_but_deltas_of_other_turns_changes_places(
    wire: list[tuple[str, bool]], step: int
) -> None:
    data = b"".join(
        lines(delta(str(number), turn))
        if is_delta
        else lines({"method": "item/started", "params": {"turnId": turn, "number": number}})
        for number, (turn, is_delta) in enumerate(wire)
    )
    rpc = Rpc()
    numbers: list[int] = []
    for start in range(0, len(data), step):
        for run in rpc.receive(data[start : start + step], 0.0):
            assert isinstance(run, Run)
            assert run.only_deltas == all(event.is_delta for event in run.events)
            assert {event.turn_id for event in run.events} == {run.turn_id}
            numbers += [
                int(event.params.delta if event.is_delta else event.data["number"])
                for event in run.events
            ]
    assert sorted(numbers) == list(range(len(wire)))
    for turn in ("u1", "u2", "u3"):
        mine = [number for number in numbers if wire[number][0] == turn]
        assert mine == sorted(mine)
    for place, number in enumerate(numbers):
        if not wire[number][1]:
            assert set(numbers[:place]) == set(range(number))


def test_deltas_are_the_same_value_on_the_fast_and_the_general_path() -> None:
    rpc = Rpc()
    (run,) = rpc.receive(lines(delta("a"), delta("b")), 0.0)
    assert isinstance(run, Run)
    general, fast = run.events
    assert not isinstance(general, DeltaEvent)
    assert isinstance(fast, DeltaEvent)
    assert type(general.params) is type(fast.params)
    assert (general.method, general.thread_id, general.turn_id) == (
        fast.method,
        fast.thread_id,
        fast.turn_id,
    )
    for event in run.events:
        copy = with_delta(event, "xyz", 3)
        assert (copy.params.delta, copy.merged) == ("xyz", 3)
        assert json.loads(copy.raw)["params"]["delta"] == "xyz"
        assert event.params.delta in "ab"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"not json", "not JSON"),
        (b"null", "not an object"),
        (b"[]", "not an object"),
        (b"1", "not an object"),
        (b'"s"', "not an object"),
        (b"{}", "neither a method"),
        (b'{"id":1.5,"method":"m"}', "id is neither"),
        (b'{"id":true,"method":"m"}', "id is neither"),
        (b'{"method":5}', "method is not"),
        (b'{"id":3}', "neither a method"),
        (b"\xff\xfe{", "not JSON"),
        (b'{"method":"item/agentMessage/delta","params":{', "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_junk_is_a_value_and_what_follows_is_read(line: bytes, reason: str) -> None:
    rpc = Rpc()
    found = rpc.receive(lines(delta("a"), delta("b"), line, delta("c")), 0.0)
    events = [event for run in found if isinstance(run, Run) for event in run.events]
    junk = [event for event in events if isinstance(event, MalformedLine)]
    assert [event.params.delta for event in events if event.is_delta] == ["a", "b", "c"]
    assert len(junk) == rpc.malformed == 1
    assert reason in junk[0].reason
    assert junk[0].size == len(line)
    assert isinstance(junk[0].params, InvalidParams)


def test_deep_nesting_is_no_trap() -> None:
    deep = b"[" * 50_000 + b"]" * 50_000
    line = (
        b'{"method":"item/completed","params":{"threadId":"t","turnId":"u","item":' + deep + b"}}"
    )
    (run,) = Rpc().receive(line + b"\n", 0.0)
    assert isinstance(run, Run)
    assert run.events[0].data == {}
    assert run.events[0].params is not None


def test_an_overlong_line_is_a_value() -> None:
    rpc = Rpc(max_line_bytes=200)
    found = rpc.receive(lines({"method": "x" * 300}, {"method": "m", "params": {}}), 0.0)
    (run,) = found
    assert isinstance(run, Run)
    assert isinstance(run.events[0], MalformedLine)
    assert run.events[0].size > 300
    assert run.events[1].method == "m"


def test_blank_lines_and_carriage_returns_are_tolerated() -> None:
    rpc = Rpc()
    (run,) = rpc.receive(b'\r\n\n  \n{"method":"m","params":{}}\r\n', 0.0)
    assert isinstance(run, Run)
    assert [event.method for event in run.events] == ["m"]
    assert rpc.malformed == 0


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({"method": "brand/new", "params": {"a": 1}}, UnknownNotification),
        ({"method": "brand/new"}, UnknownNotification),
        ({"method": "item/completed", "params": [1]}, InvalidParams),
        ({"method": "item/completed", "params": {"threadId": 5, "turnId": []}}, InvalidParams),
        ({"method": "turn/completed", "params": {"turn": "x"}}, InvalidParams),
        ({"method": "item/agentMessage/delta", "params": {"threadId": "t"}}, InvalidParams),
    ],
)
def test_unknown_and_misshapen_params_are_values(message: dict[str, Any], kind: type) -> None:
    (run,) = Rpc().receive(lines(message), 0.0)
    assert isinstance(run, Run)
    assert type(run.events[0].params) is kind


def test_unknown_tags_enums_and_members_are_read() -> None:
    item = {"type": "holographicCall", "id": "x", "depth": 3}
    params = {"threadId": "t", "turnId": "u", "item": item, "novel": True}
    (run,) = Rpc().receive(lines({"method": "item/completed", "params": params}), 0.0)
    assert isinstance(run, Run)
    assert run.events[0].params.item.tag == "holographicCall"
    assert run.events[0].data["item"]["depth"] == 3


def test_lone_surrogates_are_refused_before_an_id_is_used() -> None:
    rpc = Rpc()
    with pytest.raises(InvalidArgument, match="U\\+D800"):
        rpc.request("turn/start", {"input": [{"text": "a\ud800b"}]})
    request_id, _ = rpc.request("a", {})
    assert request_id == 1


def test_what_json_cannot_carry_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="cannot be sent as JSON"):
        Rpc().request("a", {"x": object()})


def test_an_event_shows_no_content_when_printed() -> None:
    (run,) = Rpc().receive(lines(delta("secret")), 0.0)
    assert isinstance(run, Run)
    assert "secret" not in repr(run.events[0])


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(
                            ["id", "method", "params", "result", "error", "threadId", "turn"]
                        ),
                        inner,
                        max_size=4,
                    )
                ),
                max_leaves=8,
            ).map(lambda value: json.dumps(value).encode()),
        ),
        max_size=8,
    ),
    st.integers(1, 64),
)
def test_nothing_inbound_raises_however_it_is_cut(messages: list[bytes], step: int) -> None:
    data = b"\n".join(messages) + b"\n" + lines(delta("end"))
    rpc = Rpc()
    rpc.request("a", {})
    found: list[Any] = []
    for start in range(0, len(data), step):
        found += rpc.receive(data[start : start + step], 0.0)
    events = [event for run in found if isinstance(run, Run) for event in run.events]
    assert events[-1].params.delta == "end"
    for event in events:
        assert event.params is not NotImplemented
        assert isinstance(event.data, dict)
        assert repr(event)

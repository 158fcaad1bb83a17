"""Each request once to the real binary: its answer decodes, or its refusal is a known one.

``data/stable_requests.json`` and ``data/experimental_requests.json`` are reviewed tables: method ->
version -> ``ok`` or the refusal, with ids and paths replaced. To renew them after a change of the
pinned version, run

    UPDATE_TABLES=1 pytest client/tests/test_every_request.py

and read the difference. The model is scripted, the feedback service is off, and nothing here
needs a network: what would use one is refused before for want of a login.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from codex_app_server import ClientInfo, Connection, Thread, Transport
from codex_app_server.errors import (
    ExperimentalRequired,
    MethodUnavailable,
    RequestError,
    RequestTimeout,
)
from codex_app_server.protocol import types

from symphony.demo.script import Exec, Say, turn

pytestmark = pytest.mark.codex
DATA = Path(__file__).parent / "data"
FREE = {"approval_policy": "never", "sandbox": "danger-full-access"}
LIMIT_S = 10.0
STABLE = sorted(name for name, one in types.CLIENT_REQUESTS.items() if not one.experimental)
EXPERIMENTAL = sorted(types.CLIENT_REQUESTS.keys() - STABLE)
LAST = ("thread/archive", "thread/unarchive", "thread/unsubscribe", "thread/delete", "initialize")
"""Sent at the end, for what they do to the thread."""


def stable_params(folder: str, thread: str, turn_id: str) -> dict[str, Any]:
    """Method -> params; those that are not here get ``{}``."""
    on_thread = {"threadId": thread}
    plugin = {"pluginName": "none", "marketplacePath": f"{folder}/marketplace.json"}
    share = {"remotePluginId": "plugins~none"}
    say = [{"type": "text", "text": "Issue: A"}]
    sections = {"sectionId": "01a1fd25-e09e-74c1-943c-73e02be4ab8b"}
    login = {"loginId": "01a1fd25-e09e-74c1-943c-73e02be4ab8b"}
    return {
        "account/login/cancel": login,
        "account/login/start": {"type": "apiKey", "apiKey": "sk-of-a-test"},
        "account/rateLimitResetCredit/consume": {"idempotencyKey": "k"},
        "account/sendAddCreditsNudgeEmail": {"creditType": "credits"},
        "app/read": {"appIds": ["none"]},
        "command/exec": {"command": ["true"]},
        "command/exec/resize": {"processId": "none", "size": {"rows": 2, "cols": 20}},
        "command/exec/terminate": {"processId": "none"},
        "command/exec/write": {"processId": "none", "deltaBase64": ""},
        "config/batchWrite": {"edits": []},
        "config/value/write": {
            "keyPath": "hide_agent_reasoning", "value": True, "mergeStrategy": "replace",
        },
        "experimentalFeature/enablement/set": {"enablement": {}},
        "externalAgentConfig/import": {"migrationItems": []},
        "externalAgentConfig/import/recordHistory": {"itemTypeResults": [], "providerId": "none"},
        "feedback/save": {"classification": "bug", "savePath": f"{folder}/feedback"},
        "feedback/upload": {"classification": "bug", "includeLogs": False},
        "fs/copy": {"sourcePath": f"{folder}/a.txt", "destinationPath": f"{folder}/b.txt"},
        "fs/createDirectory": {"path": f"{folder}/made"},
        "fs/getMetadata": {"path": f"{folder}/a.txt"},
        "fs/readDirectory": {"path": folder},
        "fs/readFile": {"path": f"{folder}/a.txt"},
        "fs/remove": {"path": f"{folder}/gone.txt"},
        "fs/unwatch": {"watchId": "w"},
        "fs/watch": {"path": f"{folder}/a.txt", "watchId": "w"},
        "fs/writeFile": {"path": f"{folder}/c.txt", "dataBase64": "aGk="},
        "fuzzyFileSearch": {"query": "a.t", "roots": [folder]},
        "initialize": {"clientInfo": {"name": "n", "version": "1"}},
        "marketplace/add": {"source": f"{folder}/none"},
        "marketplace/remove": {"marketplaceName": "none"},
        "mcpServer/oauth/login": {"name": "none"},
        "mcpServer/resource/read": {**on_thread, "server": "none", "uri": "none://"},
        "mcpServer/tool/call": {**on_thread, "server": "none", "tool": "none"},
        "modelProvider/config/write": {"settings": {"type": "customGateway", "name": "g"}},
        "plugin/install": plugin,
        "plugin/read": plugin,
        "plugin/share/checkout": share,
        "plugin/share/delete": share,
        "plugin/share/save": {"pluginPath": f"{folder}/none"},
        "plugin/share/updateTargets": {
            **share, "discoverability": "PRIVATE", "shareTargets": [],
        },
        "plugin/skill/read": {
            **share, "remoteMarketplaceName": "none", "skillName": "none",
        },
        "plugin/uninstall": {"pluginId": "none@none"},
        "review/start": {**on_thread, "target": {"type": "commit", "sha": ""}},
        "skills/config/write": {"enabled": True, "name": "none"},
        "skills/extraRoots/set": {"extraRoots": [folder]},
        "thread/approveGuardianDeniedAction": {**on_thread, "event": {}},
        "thread/archive": on_thread,
        "thread/attachment/add": {
            **on_thread, "attachmentType": "note", "identityKey": "k", "payload": {},
        },
        "thread/attachment/list": on_thread,
        "thread/attachment/remove": {**on_thread, "attachmentType": "note", "identityKey": "k"},
        "thread/attachmentOwner/list": {"attachmentType": "note", "identityKey": "k"},
        "thread/compact/start": {"threadId": "none"},
        "thread/delete": on_thread,
        "thread/fork": {**on_thread, "excludeTurns": True, "ephemeral": True},
        "thread/goal/clear": on_thread,
        "thread/goal/get": on_thread,
        "thread/goal/set": {**on_thread, "objective": "be done", "status": "paused"},
        "thread/inject_items": {**on_thread, "items": []},
        "thread/items/list": on_thread,
        "thread/metadata/update": {**on_thread, "gitInfo": {"branch": "main"}},
        "thread/name/set": {**on_thread, "name": "named"},
        "thread/read": {**on_thread, "includeTurns": True},
        "thread/resume": {**on_thread, "excludeTurns": True},
        "thread/revert": {**on_thread, "beforeTurnId": "none"},
        "thread/section/move": {**on_thread, "sectionId": None},
        "thread/shellCommand": {"threadId": "none", "command": "true"},
        "thread/start": {"cwd": folder, "ephemeral": True},
        "thread/turns/list": on_thread,
        "thread/unarchive": on_thread,
        "thread/unsubscribe": on_thread,
        "threadSection/create": {"name": "later"},
        "threadSection/delete": sections,
        "threadSection/update": {**sections, "name": "sooner"},
        "turn/interrupt": {**on_thread, "turnId": turn_id},
        "turn/start": {"threadId": "none", "input": say},
        "turn/steer": {**on_thread, "expectedTurnId": turn_id, "input": say},
        "windowsSandbox/setupStart": {"mode": "elevated"},
    }  # fmt: skip


EXPERIMENTAL_FIRST = (
    "project/create", "project/import", "project/list", "project/read", "project/update",
    "project/move", "project/delete", "process/spawn", "process/resizePty", "process/writeStdin",
    "process/kill", "fuzzyFileSearch/sessionStart", "fuzzyFileSearch/sessionUpdate",
    "fuzzyFileSearch/sessionStop", "thread/increment_elicitation", "thread/decrement_elicitation",
    "thread/queue/add", "thread/queue/list", "thread/queue/update", "thread/queue/reorder",
    "thread/queue/delete", "thread/queue/start",
)  # fmt: skip
"""Sent at the start and in this order: what one makes, the next ones name."""
EXPERIMENTAL_LAST = ("thread/memoryMode/set", "memory/reset", "rollout/compress")


def experimental_params(
    folder: str, thread: str, turn_id: str, answers: dict[str, Any], busy: str
) -> dict[str, Any]:
    """Method -> params.

    ``answers`` are those of the methods that were sent before; the thread ``busy`` runs a turn, so
    that what is queued there stays queued.
    """
    on_thread = {"threadId": thread}
    on_busy = {"threadId": busy}
    say = [{"type": "text", "text": "Issue: A"}]
    nobody = "01a1fd25-e09e-74c1-943c-73e02be4ab8b"
    project = {"projectId": _id(answers, "project/create", "project", nobody)}
    queued = _id(answers, "thread/queue/add", "queuedSubmission", nobody)
    submission = {**on_busy, "queuedSubmissionId": queued}
    roots = [{"path": folder}]
    process = {"processHandle": "p"}
    size = {"rows": 2, "cols": 20}
    return {
        "account/bedrock/setup": {"type": "profile", "profile": "none", "region": "eu-west-1"},
        "account/gcp/setup": {"projectId": "none", "credentialFile": f"{folder}/none.json"},
        "accountSession/switch": {"accountId": "none", "sessionId": "none"},
        "environment/add": {
            "environmentId": "e", "execServerUrl": "ws://127.0.0.1:1", "connectTimeoutMs": 100,
        },
        "environment/info": {"environmentId": "none"},
        "environment/status": {"environmentId": "none"},
        "fuzzyFileSearch/sessionStart": {"sessionId": "s", "roots": [folder]},
        "fuzzyFileSearch/sessionStop": {"sessionId": "s"},
        "fuzzyFileSearch/sessionUpdate": {"sessionId": "s", "query": "a.t"},
        "mcpServer/event/stream/start": {
            **on_thread, "server": "none", "name": "none", "subscriptionId": "s", "arguments": {},
        },
        "mcpServer/event/stream/stop": {"subscriptionId": "s"},
        "plugin/search": {"searchTerm": "none"},
        "process/kill": process,
        "process/resizePty": {**process, "size": size},
        "process/spawn": {
            **process, "command": ["cat"], "cwd": folder, "tty": True, "size": size,
            "streamStdin": True, "streamStdoutStderr": True,
        },
        "process/writeStdin": {**process, "deltaBase64": "aGkK"},
        "project/create": {"idempotencyKey": "k", "name": "a project", "roots": roots},
        "project/delete": project,
        "project/import": {"idempotencyKey": "l", "name": "another", "roots": roots},
        "project/move": project,
        "project/read": project,
        "project/update": {**project, "name": "renamed"},
        "remoteControl/client/list": {"environmentId": "none"},
        "remoteControl/client/revoke": {"environmentId": "none", "clientId": "none"},
        "thread/backgroundTerminals/clean": on_thread,
        "thread/backgroundTerminals/list": on_thread,
        "thread/backgroundTerminals/terminate": {**on_thread, "processId": "1"},
        "thread/decrement_elicitation": on_thread,
        "thread/guardianReview": {"threadId": nobody},
        "thread/increment_elicitation": on_thread,
        "thread/items/read": {**on_thread, "turnId": turn_id, "itemIds": []},
        "thread/memory/read": on_thread,
        "thread/memoryMode/set": {**on_thread, "mode": "disabled"},
        "thread/prediction/request": {**on_thread, "sourceTurnId": turn_id},
        "thread/prepareApprovedPlan": {**on_thread, "markdown": "# A plan"},
        "thread/queue/add": {**on_busy, "clientUserMessageId": "m", "input": say},
        "thread/queue/delete": submission,
        "thread/queue/list": on_busy,
        "thread/queue/reorder": {**on_busy, "queuedSubmissionIds": [queued]},
        "thread/queue/start": {**on_busy, "queuedSubmissionId": nobody},
        "thread/queue/update": {**submission, "input": say},
        "thread/readState/update": {
            **on_thread, "expectedRevision": "0", "operation": {"type": "read"},
        },
        "thread/realtime/appendAudio": {
            **on_thread, "audio": {"data": "", "numChannels": 1, "sampleRate": 16000},
        },
        "thread/realtime/appendSpeech": {**on_thread, "text": "hi"},
        "thread/realtime/appendText": {**on_thread, "text": "hi"},
        "thread/realtime/start": {"threadId": nobody, "outputModality": "text"},
        "thread/realtime/stop": on_thread,
        "thread/sample": {**on_thread, "expectedTurnId": turn_id, "prompt": "Issue: A"},
        "thread/sample/cancel": {"requestId": "none"},
        "thread/search": {"searchTerm": "Issue"},
        "thread/searchOccurrences": {**on_thread, "searchTerm": "Issue"},
        "thread/settings/update": {**on_thread, "effort": "low"},
        "thread/timeline/list": on_thread,
        "turn/settings/update": {**on_thread, "turnId": turn_id, "effort": "low"},
        "userVerification/cancel": {"requestId": "none"},
        "userVerification/verify": {"challenge": "aGk=", "description": "d", "title": "t"},
    }  # fmt: skip


def _id(answers: dict[str, Any], method: str, member: str, missing: str) -> str:
    found = (answers.get(method) or {}).get(member) or {}
    return str(found.get("id") or missing)


async def outcome(
    connection: Connection, method: str, sent: Any, answers: dict[str, Any] | None = None
) -> str:
    """Send a request and say what came of it; an answer must be of its type."""
    known = types.CLIENT_REQUESTS[method]
    if known.params is None:
        sent = None
    else:
        msgspec.json.decode(msgspec.json.encode(sent), type=known.params)
    try:
        raw = await connection.call_raw(method, sent, timeout_s=LIMIT_S)
    except MethodUnavailable:
        return "unknown method"
    except RequestTimeout:
        return "no reply"
    except RequestError as refusal:
        return f"{refusal.code} {refusal.message}"
    msgspec.json.decode(raw, type=known.response)
    if answers is not None:
        answers[method] = msgspec.json.decode(raw)
    return "ok"


def plain(text: str, folder: str) -> str:
    """Return a refusal without what differs between runs."""
    text = text.replace(folder, "<folder>").split(", expected one of")[0]
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>", text)
    text = re.sub(r"(/[\w.@-]+){3,}", "<path>", text)
    return text.strip()[:300]


async def ran_thread(real: Any, connection: Connection) -> tuple[str, str, str]:
    """Return the workspace with some files, a thread that has run a turn, and the turn's id."""
    folder = str(real.workspace)
    for name in ("a.txt", "gone.txt"):
        (real.workspace / name).write_text("hello")
    thread: Thread = await connection.start_thread(cwd=folder, **FREE)
    ended = await thread.run("Issue: A")
    return folder, thread.id, ended.turn_id


async def quiet(codex: Any) -> Any:
    """Return a real Codex that offers no feedback to anybody."""
    real = await codex(A=turn(Say("ok")), B=turn(Exec("sleep 300"), Say("never")))
    with (real.home / "config.toml").open("a") as config:
        config.write("\n[feedback]\nenabled = false\n")
    return real


def compare(name: str, found: dict[str, str], version: str | None) -> None:
    """Hold what came of the requests against the table of that name, or renew the table."""
    assert version is not None
    path = DATA / name
    table = json.loads(path.read_text()) if path.is_file() else {}
    if os.environ.get("UPDATE_TABLES"):
        for method, text in found.items():
            table.setdefault(method, {})[version] = text
        path.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
    if not any(version in one for one in table.values()):
        pytest.skip(f"the table does not have {version}")
    assert found == {method: table[method].get(version) for method in found}


async def test_each_stable_request_is_answered_as_the_table_says(codex) -> None:
    real = await quiet(codex)
    connection = await real.open()
    folder, thread, turn_id = await ran_thread(real, connection)
    given = stable_params(folder, thread, turn_id)
    assert given.keys() <= set(STABLE)
    found = {}
    for method in [*(one for one in STABLE if one not in LAST), *LAST]:
        found[method] = plain(await outcome(connection, method, given.get(method, {})), folder)
    assert connection.malformed_lines == 0
    compare("stable_requests.json", found, connection.server.version)


async def test_each_experimental_request_is_answered_as_the_table_says(codex) -> None:
    real = await quiet(codex)
    connection = await real.open()
    folder, thread, turn_id = await ran_thread(real, connection)
    busy = await connection.start_thread(cwd=folder, **FREE)
    running = await busy.run("Issue: B").start()
    early, late = EXPERIMENTAL_FIRST, EXPERIMENTAL_LAST
    between = [one for one in EXPERIMENTAL if one not in (*early, *late)]
    found: dict[str, str] = {}
    answers: dict[str, Any] = {}
    for method in (*early, *between, *late):
        given = experimental_params(folder, thread, turn_id, answers, busy.id)
        assert given.keys() <= set(EXPERIMENTAL)
        said = await outcome(connection, method, given.get(method, {}), answers)
        found[method] = plain(said, folder)
    assert sorted(found) == EXPERIMENTAL
    assert not running.done
    await running.interrupt()
    assert connection.malformed_lines == 0
    compare("experimental_requests.json", found, connection.server.version)


class RefusesOptIn:
    """A transport before a real server that refuses whoever asks for experimental methods."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._refusals: list[bytes] = []
        self.refused = 0

    async def send(self, data: bytes) -> None:
        for line in data.splitlines(keepends=True):
            message = json.loads(line)
            capabilities = (message.get("params") or {}).get("capabilities") or {}
            if message.get("method") == "initialize" and "experimentalApi" in capabilities:
                self.refused += 1
                error = {"code": -32600, "message": "experimentalApi is not offered here"}
                reply = {"id": message["id"], "error": error}
                self._refusals.append(json.dumps(reply).encode() + b"\n")
            else:
                await self._inner.send(line)

    async def receive(self) -> bytes:
        return self._refusals.pop() if self._refusals else await self._inner.receive()

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_where_the_opt_in_is_refused_all_else_works_and_the_rest_says_what_it_needs(
    codex,
) -> None:
    real = await quiet(codex)
    transport = RefusesOptIn(await real.spawn("app-server"))
    async with await Connection.open(transport, ClientInfo("test", "1")) as connection:
        assert (transport.refused, connection.server.experimental) == (1, False)
        folder, thread, turn_id = await ran_thread(real, connection)
        known = (await connection.capabilities()).methods
        assert known is not None
        given = experimental_params(folder, thread, turn_id, {}, thread)
        for method in EXPERIMENTAL:
            sent = None
            if types.CLIENT_REQUESTS[method].params is not None:
                sent = given.get(method, {})
            kind = ExperimentalRequired if method in known else MethodUnavailable
            with pytest.raises(kind, match=re.escape(method)) as caught:
                await connection.call(method, sent, timeout_s=LIMIT_S)
            assert not isinstance(caught.value, ExperimentalRequired) or (
                caught.value.capability == method
            )


@pytest.mark.parametrize(
    ("name", "methods"),
    [("stable_requests.json", STABLE), ("experimental_requests.json", EXPERIMENTAL)],
)
def test_the_table_has_every_request(name: str, methods: list[str]) -> None:
    assert sorted(json.loads((DATA / name).read_text())) == methods

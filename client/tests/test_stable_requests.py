"""Each stable request once to the real binary: its answer decodes, or its refusal is a known one.

``data/stable_requests.json`` is the reviewed table: method -> version -> ``ok`` or the refusal,
with ids and paths replaced. To renew it after a change of the pinned version, run

    UPDATE_TABLES=1 pytest client/tests/test_stable_requests.py

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
from codex_app_server import Connection, Thread
from codex_app_server.errors import MethodUnavailable, RequestError, RequestTimeout
from codex_app_server.protocol import types

from symphony.demo.script import Say, turn

pytestmark = pytest.mark.codex
TABLE = Path(__file__).parent / "data" / "stable_requests.json"
FREE = {"approval_policy": "never", "sandbox": "danger-full-access"}
LIMIT_S = 10.0
STABLE = sorted(name for name, one in types.CLIENT_REQUESTS.items() if not one.experimental)
LAST = ("thread/archive", "thread/unarchive", "thread/unsubscribe", "thread/delete", "initialize")
"""Sent at the end, for what they do to the thread."""


def params(folder: str, thread: str, turn_id: str) -> dict[str, Any]:
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


async def outcome(connection: Connection, method: str, sent: Any) -> str:
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
    return "ok"


def plain(text: str, folder: str) -> str:
    """Return a refusal without what differs between runs."""
    text = text.replace(folder, "<folder>").split(", expected one of")[0]
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>", text)
    text = re.sub(r"(/[\w.@-]+){3,}", "<path>", text)
    return text.strip()[:300]


async def test_each_stable_request_is_answered_as_the_table_says(codex) -> None:
    real = await codex(A=turn(Say("ok")))
    with (real.home / "config.toml").open("a") as config:
        config.write("\n[feedback]\nenabled = false\n")
    folder = str(real.workspace)
    for name in ("a.txt", "gone.txt"):
        (real.workspace / name).write_text("hello")
    connection = await real.open()
    thread: Thread = await connection.start_thread(cwd=folder, **FREE)
    ended = await thread.run("Issue: A")
    given = params(folder, thread.id, ended.turn_id)
    assert given.keys() <= set(STABLE)
    found = {}
    for method in [*(one for one in STABLE if one not in LAST), *LAST]:
        found[method] = plain(await outcome(connection, method, given.get(method, {})), folder)
    assert connection.malformed_lines == 0
    version = connection.server.version
    assert version is not None
    table = json.loads(TABLE.read_text()) if TABLE.is_file() else {}
    if os.environ.get("UPDATE_TABLES"):
        for method, text in found.items():
            table.setdefault(method, {})[version] = text
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
    if not any(version in one for one in table.values()):
        pytest.skip(f"the table does not have {version}")
    assert found == {method: table[method].get(version) for method in STABLE}


def test_the_table_has_every_stable_request() -> None:
    assert sorted(json.loads(TABLE.read_text())) == STABLE

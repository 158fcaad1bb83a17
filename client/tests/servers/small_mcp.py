"""A small MCP server over stdio: one tool that changes something, one that asks the user."""

import json
import sys
from collections.abc import Iterator
from typing import Any

EMPTY = {"type": "object", "properties": {}}
NAME = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
TOOLS = [
    {"name": "mutate", "description": "changes something", "inputSchema": EMPTY},
    {"name": "ask", "description": "asks for a name", "inputSchema": EMPTY},
    {"name": "x" * 130, "description": "has a long name", "inputSchema": EMPTY},
]
for tool in TOOLS[1:]:
    tool["annotations"] = {"readOnlyHint": True}


def send(**message: Any) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def ask(messages: Iterator[Any]) -> Any:
    send(
        id="question",
        method="elicitation/create",
        params={"message": "your name?", "requestedSchema": NAME},
    )
    for message in messages:
        if message.get("id") == "question":
            return message.get("result")
    return None


def main() -> None:
    messages = map(json.loads, sys.stdin)
    for message in messages:
        match message.get("method"):
            case "initialize":
                version = message["params"]["protocolVersion"]
                about = {"name": "small", "version": "1"}
                result = {
                    "protocolVersion": version,
                    "capabilities": {"tools": {}},
                    "serverInfo": about,
                }
                send(id=message["id"], result=result)
            case "tools/list":
                send(id=message["id"], result={"tools": TOOLS})
            case "tools/call":
                name = message["params"]["name"]
                text = json.dumps(ask(messages)) if name == "ask" else f"did {name[:6]}"
                send(id=message["id"], result={"content": [{"type": "text", "text": text}]})
            case _ if "id" in message and "method" in message:
                send(id=message["id"], error={"code": -32601, "message": "unknown method"})


main()

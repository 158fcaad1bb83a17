"""Tools that the agent may call: functions, and methods of an object in a namespace."""

from __future__ import annotations

import tempfile
from typing import Literal

import readiness
from codex_app_server import Codex, ToolCallContext, tool, tools_of


@tool
def convert(value: float, unit: Literal["km", "miles"], context: ToolCallContext) -> str:
    """Convert a distance.

    Args:
        value: To be converted.
        unit: What the value is in.
        context: Filled in by the library; the agent does not see it.
    """
    print(f"(call {context.call_id})")
    return f"{value / 1.609:.1f} miles" if unit == "km" else f"{value * 1.609:.1f} km"


class Stock:
    """What is in the shop."""

    def __init__(self, **articles: int) -> None:
        self.articles = articles

    @tool
    async def count(self, article: str) -> int:
        """Tell how many of an article there are."""
        return self.articles[article]


async def main() -> None:
    tools = [convert, *tools_of(Stock(pen=3, ink=0))]
    with tempfile.TemporaryDirectory() as folder:
        async with await Codex.start() as codex:
            thread = await codex.start_thread(
                cwd=folder, sandbox="read-only", approval_policy="never", tools=tools
            )
            result = await thread.run("Convert 42 km to miles. And is there any ink in stock?")
    for item in result.items:
        print(item.type if hasattr(item, "type") else type(item).__name__)
    print(result.final_message)


readiness.run(main)

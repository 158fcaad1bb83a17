"""Two turns of one thread, streamed; the second is steered while it runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import readiness
from codex_app_server import Codex, RequestError, Turn


async def show(turn: Turn) -> None:
    async for event in turn:
        if event.is_delta:
            print(event.params.delta, end="", flush=True)
        elif event.method == "item/started":
            print(f"\n[{event.data['item']['type']}]", end=" ")
    print()


def write_notes(folder: Path) -> None:
    (folder / "notes.txt").write_text("Buy milk.\nCall Ada.\n")


async def main() -> None:
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder:
        write_notes(Path(folder))
        async with await Codex.start() as codex:
            thread = await codex.start_thread(
                cwd=folder, sandbox="read-only", approval_policy="never"
            )
            await show(thread.run("List the notes of notes.txt."))
            turn = await thread.run("Sort them.").start()
            try:
                await turn.steer("In descending order, please.")
            except RequestError as error:
                print(f"too late to steer: {error.message}")
            await show(turn)
            print((await turn).usage)


readiness.run(main)

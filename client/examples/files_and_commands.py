"""Files, commands, models and skills through the server; in a home of its own, without a login."""

from __future__ import annotations

import tempfile
from pathlib import Path

import readiness
from codex_app_server import Codex


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with await Codex.start(codex_home="private") as codex:
            connection = codex.connection
            path = str(Path(folder, "hello.txt"))
            await connection.fs.write_bytes(path, b"hello from the app-server\n")
            print(await connection.fs.read_text(path), end="")
            done = await connection.commands.exec(["cat", path], cwd=folder)
            print(done.exit_code, done.stdout, end="")
            models = await connection.models.list(limit=3)
            print([model.id for model in models.data])
            skills = await connection.skills.list(cwds=[folder])
            print(sum(len(entry.skills) for entry in skills.data), "skills")
            found = await connection.fuzzy_file_search("hello", roots=[folder])
            print([match.path for match in found])


readiness.run(main, login=False)

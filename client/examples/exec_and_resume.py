"""The same turns over ``codex exec --json``: one process a turn, resumed by its thread id."""

from __future__ import annotations

import tempfile

import readiness
from codex_app_server import ExecClient


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        client = ExecClient(cwd=folder)
        first = await client.run("Say 'one'.", sandbox="read-only", skip_git_repo_check=True)
        second = await client.run("Say 'two'.", resume=first.thread_id, skip_git_repo_check=True)
        print(first.final_message, second.final_message)
        print(first.usage.total_tokens, second.usage.total_tokens)


readiness.run(main)

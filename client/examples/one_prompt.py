"""One prompt in a folder: ``python one_prompt.py [FOLDER] [PROMPT]``."""

from __future__ import annotations

import sys

import readiness
from codex_app_server import TurnFailed, run


async def main() -> None:
    folder = sys.argv[1] if len(sys.argv) > 1 else "."
    prompt = sys.argv[2] if len(sys.argv) > 2 else "Say in one sentence what this folder is."
    try:
        result = await run(folder, prompt, sandbox="read-only", turn_timeout_s=300)
    except TurnFailed as failure:
        print(f"failed: {failure.code}; a retry makes sense: {failure.retryable}")
    else:
        print(result.final_message)
        print(f"{result.usage.total_tokens} tokens in {result.turn.duration_s:.1f} s")


readiness.run(main)

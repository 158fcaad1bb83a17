"""Records the sample transcripts of the tests from a real binary with a scripted model.

    python client/tools/record_transcripts.py --codex PATH

Writes ``client/tests/data/transcript_<version>_<name>.jsonl``: whole sessions, without anything of
the machine or its user in them. Run it for each version that the tests should know.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import tempfile
from pathlib import Path

from codex_app_server import (
    ClientInfo,
    CodexError,
    Connection,
    ServerRequestHandlers,
    SubprocessTransport,
)
from codex_app_server.home import prepare_home, provider_config, write_config
from codex_app_server.testing import SAMPLE_RECORDING, RecordingTransport, Scrubber
from codex_app_server.threads import Thread
from codex_app_server.versions import SCHEMA_VERSION

from symphony.demo.model_server import ModelServer
from symphony.demo.script import Exec, Fail, IssueScript, Patch, Reply, Say, Script, Think, turn

DATA = Path(__file__).resolve().parents[1] / "tests/data"
PATCH = "*** Begin Patch\n*** Add File: made.txt\n+made\n*** End Patch\n"
SCRIPTS = {
    "completed": turn(Reply((Think("Looking."), Exec("echo hi"))), Patch(PATCH), Say("All done.")),
    "approvals": turn(Exec("touch asked.txt"), Patch(PATCH), Say("ok")),
    "interrupted": turn(Exec("sleep 30"), Say("never")),
    "failed": turn(Fail(400, "invalid_request_error", times=None)),
}


async def _session(thread: Thread, name: str) -> None:
    running = thread.run(f"Issue: {name}")
    try:
        async for event in running:
            item = event.data.get("item")
            started = event.method == "item/started" and isinstance(item, dict)
            if name == "interrupted" and started and item.get("type") == "commandExecution":
                await running.interrupt()
        await running
    except CodexError as error:
        print(f"{name}: {error}")


async def _record(codex: str, name: str, base: Path) -> None:
    workspace = base / name / "workspace"
    workspace.mkdir(parents=True)
    model = ModelServer(Script({name: IssueScript((SCRIPTS[name],))}))
    async with model:
        url = await model.start()
        home = prepare_home(base / name / "home", seed=False)
        write_config(home, provider_config(url, model="gpt-5.5"))
        env = {"PATH": os.environ["PATH"], "HOME": str(base), "CODEX_HOME": str(home)}
        inner = await SubprocessTransport.spawn([codex, "app-server"], cwd=workspace, env=env)
        scrub = Scrubber(
            {
                str(workspace): "/workspace",
                str(home): "/codex-home",
                str(base): "/home/user",
                url: "http://127.0.0.1:8000/v1",
            }
        )
        part = base / f"{name}.jsonl"
        name_of_host = f'"serverName":"{platform.node()}"'
        transport = RecordingTransport(
            inner,
            part,
            transform=lambda line: scrub(line.replace(name_of_host, '"serverName":"host"')),
        )
        handlers = ServerRequestHandlers(command="accept")
        async with await Connection.open(
            transport, ClientInfo("sample", "1"), handlers=handlers
        ) as connection:
            version = connection.server.version
            policy = "untrusted" if name == "approvals" else "never"
            thread = await connection.start_thread(
                cwd=str(workspace), approval_policy=policy, sandbox="danger-full-access"
            )
            await _session(thread, name)
        target = DATA / f"transcript_{version}_{name}.jsonl"
        target.write_bytes(part.read_bytes())  # a tool; nothing else runs
        if (version, name) == (SCHEMA_VERSION, "completed"):
            SAMPLE_RECORDING.write_bytes(part.read_bytes())
        print(f"{target.name}: {transport.lines} lines")


async def _main(codex: str) -> None:
    cache = Path.home() / ".cache"  # as above
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        for name in SCRIPTS:
            await _record(codex, name, Path(folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codex", required=True, help="the native binary")
    asyncio.run(_main(parser.parse_args().codex))

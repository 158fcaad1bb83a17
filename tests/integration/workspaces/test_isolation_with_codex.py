"""The real Codex under the default policy: an agent can commit in its own workspace and no more."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import time
from pathlib import Path

import pytest
from codex_app_server.binary import resolve_binary
from codex_app_server.errors import BinaryNotFound
from codex_app_server.home import prepare_home, provider_config, write_config

from symphony.config.loading import load_workflow
from symphony.demo.model_server import ModelServer
from symphony.demo.script import Exec, IssueScript, Say, Script, turn
from symphony.demo.story import MODEL, PROVIDER
from symphony.ledger import Ledger
from symphony.model.clock import Instant
from symphony.model.run import OutcomeKind, RunId, RunProgress, RunSpec
from symphony.runner.attempt import Attempt, RunnerContext
from symphony.runner.session import HomeGate, SessionOptions
from symphony.service.view import describe
from symphony.trackers import registry
from symphony.trackers.memory import MemoryTracker
from symphony.workspaces.manager import Workspaces

pytestmark = [pytest.mark.codex, pytest.mark.timeout(120)]

BINARIES = Path(__file__).parents[3] / ".codex-binaries"

# Each line is tried by itself; what succeeds although it must not leaves something to be found.
ATTACK = """
exec 2>/dev/null
echo x > {other}/planted
echo x >> {other}/a.txt
unlink {other}/a.txt
echo x > {other}/.git/planted
git -C {other} config core.fsmonitor /bin/false
git -C {other} update-ref refs/heads/planted HEAD
mv {other} {other}-moved
ln -s {other} way && echo x > way/planted-by-link
ln {other}/a.txt hard && echo x >> hard
echo x > /tmp/{token}
echo x > /var/tmp/{token}
echo x > /dev/shm/{token}
echo x > ~/{token}
echo x > {root}/{token}
mkdir {root}/{token}-folder
mkdir -p {root}/.symphony/kept/{token}
echo x > {mirror}/{token}
git --git-dir={mirror} update-ref refs/heads/{token} HEAD
echo x > {mirror}/hooks/post-checkout
echo x > "$CODEX_HOME/{token}"
echo x > "$TMPDIR/mine"
test -e "$TMPDIR/mine" && echo own-temp-ok
echo agent > work.txt
git -c user.name=a -c user.email=a@b add work.txt
git -c user.name=a -c user.email=a@b commit -q -m "Work of {own}" && echo commit-ok
git log -1 --format=%s
git fetch -q origin && echo offline-fetch-ok
"""


def _clock() -> Instant:
    return Instant(time.monotonic(), time.time())


def _codex(name: str) -> Path:
    if name == "wheel":
        try:
            return resolve_binary(environment={"PATH": ""}).path
        except BinaryNotFound as error:
            pytest.skip(str(error))
    if not (BINARIES / name).is_dir():
        pytest.skip(f"codex {name} is not in .codex-binaries (make codex)")
    return resolve_binary(BINARIES / name).path


def _spec(issue) -> RunSpec:
    return RunSpec(run_id=RunId(f"run-{issue.id}"), issue=issue, attempt=None, retry_kind=None)


def _attempt(issue, context) -> Attempt:
    spec, now = _spec(issue), _clock()
    progress = RunProgress(
        run_id=spec.run_id,
        issue=issue,
        attempt=None,
        host="local",
        started_mono=now.mono,
        started_wall=now.wall,
        last_activity_mono=now.mono,
    )
    return Attempt(spec, progress, context)


@pytest.mark.parametrize("version", ["wheel", "0.169.0"])
async def test_an_agent_commits_in_its_own_workspace_and_writes_nowhere_else(
    version, place, host, issue, upstream, git, tmp_path
):
    codex, cache, token = _codex(version), place.cache, f"planted-{tmp_path.parent.name}"
    issues = [issue("A-1"), issue("A-2")]
    front = {
        "tracker": {"kind": "memory", "active_states": ["Todo"], "terminal_states": ["Done"]},
        "workspace": {"root": str(place.root), "repository": str(upstream)},
        "agent": {"max_turns": 1},
        "codex": {"command": f"{shlex.quote(str(codex))} app-server"},
    }
    path = tmp_path / "WORKFLOW.md"
    path.write_text(f"---\n{json.dumps(front)}\n---\nIssue: {{{{ issue.identifier }}}}\n")
    environ = {**place.environ, "CODEX_PATH": str(codex)}
    workflow = load_workflow(path, environ=environ, profiles=registry.PROFILES)
    workspaces = Workspaces(
        settings=lambda: workflow.settings,
        host=host,
        environ=environ,
        secret_names=lambda: (),
        cache=cache,
    )
    first, second = [await workspaces.prepare(_spec(one)) for one in issues]
    (mirror,) = (cache / "mirrors").glob("*.git")
    before = git(mirror, "for-each-ref")

    def attack(own: str, other: str) -> IssueScript:
        command = ATTACK.format(own=own, other=other, token=token, root=place.root, mirror=mirror)
        return IssueScript((turn(Exec(command), Say("Done.")),))

    script = Script({"A-1": attack("A-1", second.path), "A-2": attack("A-2", first.path)})
    ledger = await Ledger.open(tmp_path / "ledger.sqlite3", workflow_id="w", clock=_clock)
    async with ModelServer(script) as model:
        home = prepare_home(cache / "codex", seed=False)
        write_config(home, provider_config(await model.start(), provider=PROVIDER, model=MODEL))
        tracker = MemoryTracker(issues)
        context = RunnerContext(
            workflow=lambda: workflow,
            tracker=lambda: tracker,
            host=host,
            workspaces=workspaces,
            ledger=ledger,
            clock=_clock,
            post=lambda event: None,
            session_options=SessionOptions(
                environ=environ,
                codex_home=home,
                temp_root=cache / "tmp",
                codex_first=None,
                codex_last=None,
                instance="test",
                home_gate=HomeGate(),
            ),
            describe=describe,
        )
        outcomes = await asyncio.gather(*(_attempt(one, context).run() for one in issues))
    await ledger.aclose()
    assert [outcome.kind for outcome in outcomes] == [OutcomeKind.COMPLETED] * 2, outcomes
    said = [request.conversation.outputs for request in model.requests if request.place == 1]
    assert len(said) == 2
    for outputs in said:
        for word in ("own-temp-ok", "commit-ok", "offline-fetch-ok"):
            assert word in outputs[0]
    for workspace, name in ((first, "A-1"), (second, "A-2")):
        folder = Path(workspace.path)
        found = set(os.listdir(folder)) - {".codex", ".agents", ".aws"}
        assert found <= {".git", "a.txt", "work.txt", "way", "hard"}
        assert (folder / "a.txt").read_text() == "one\n"
        assert "fsmonitor" not in (folder / ".git" / "config").read_text()
        assert not (folder / ".git" / "planted").exists()
        # Its own work, and nobody else's, has come back to the mirror.
        subject = git(mirror, "log", "-1", "--format=%s", f"refs/symphony/symphony/{name}")
        assert subject == f"Work of {name}"
    assert git(mirror, "for-each-ref", "refs/heads", "refs/tags") == before
    planted = [
        found
        for top in (tmp_path, cache, Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))
        for found in top.glob(f"**/{token}*" if top in (tmp_path, cache) else f"{token}*")
    ]
    assert planted == []
    assert set(place.names) == {"A-1", "A-2"}

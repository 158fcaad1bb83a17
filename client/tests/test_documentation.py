"""What the documentation shows works: its code runs, its links lead somewhere, it is current."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import codex_app_server
import pytest
from codex_app_server import BinaryNotFound
from codex_app_server.binary import resolve_binary
from codex_app_server.home import prepare_home, provider_config, write_config
from codex_app_server.testing import SAMPLE_RECORDING

from symphony.demo.model_server import ModelServer
from symphony.demo.script import Exec, IssueScript, Reply, Say, Script, turn
from symphony.demo.script import Tool as Call

CLIENT = Path(__file__).resolve().parents[1]
README = CLIENT / "README.md"
DOCS = CLIENT.parent / "docs/client"
PAGES = [README, *sorted(path for path in DOCS.glob("*.md") if path.name != "reference.md")]
EXAMPLES = sorted(path for path in (CLIENT / "examples").glob("*.py") if path.stem != "readiness")
LIMIT_S = 50


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def pages_and_blocks() -> list[Any]:
    return [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(blocks(page))
    ]


def examples() -> list[Any]:
    """All examples; a few of them in every run of the tests."""
    often = {"offline", "one_prompt", "tools"}
    return [
        pytest.param(path, id=path.stem, marks=() if path.stem in often else pytest.mark.slow)
        for path in EXAMPLES
    ]


async def execute(*arguments: str, env: dict[str, str], cwd: Path) -> str:
    """Run Python; return what it prints. Warnings count as faults."""

    def call() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", *arguments],
            env=env,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    done = await asyncio.to_thread(call)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def one_codex() -> Path:
    """The binary of the Python package: one version is enough here."""
    try:
        return resolve_binary(environment={"PATH": ""}).path
    except BinaryNotFound as error:
        pytest.skip(str(error))


@pytest.fixture
async def with_codex(one_codex: Path, cache_dir: Path) -> AsyncIterator[dict[str, str]]:
    """An environment in which Codex is found and a scripted model answers."""
    calls = (Call("convert", {"value": 42, "unit": "km"}), Call("look_up", {"word": "turn"}))
    issues = {
        "tools": IssueScript((turn(Reply(calls[:1]), Say("26.1 miles.")),)),
        "words": IssueScript((turn(Reply(calls[1:]), Say("It says a lot.")),)),
        "hello": IssueScript((turn(Exec("echo hello > hello.txt"), Say("There it is.")),)),
    }
    words = {"Convert": "tools", "glossary": "words", "hello.txt": "hello"}

    def issue_of(prompt: str) -> str | None:
        return next((issue for word, issue in words.items() if word in prompt), None)

    async with ModelServer(Script(issues, issue_of=issue_of)) as model:
        home = prepare_home(cache_dir / "codex", seed=False)
        write_config(home, provider_config(await model.start(), model="gpt-5.5"))
        yield {
            "PATH": os.environ["PATH"],
            "HOME": str(cache_dir),
            "CODEX_HOME": str(home),
            "CODEX_PATH": str(one_codex),
        }


async def test_the_first_program_of_the_readme_runs_offline(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "PATH": ""}
    printed = await execute("-c", blocks(README)[0], env=env, cwd=tmp_path)
    *events, items, result = printed.splitlines()
    assert "item/completed" in events
    assert events[-1] == "turn/completed"
    assert items == "['userMessage', 'reasoning', 'commandExecution', 'fileChange', 'agentMessage']"
    assert result.startswith("All done. ")


def test_the_recording_of_the_package_is_that_of_the_newest_codex() -> None:
    recorded = CLIENT / "tests/data/transcript_0.169.0_completed.jsonl"
    assert SAMPLE_RECORDING.read_bytes() == recorded.read_bytes()


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in PAGES[1:]
        for number, block in enumerate(blocks(page))
        if "asyncio.run(" in block
    ],
)
async def test_the_whole_programs_of_the_pages_run_offline(tmp_path: Path, block: str) -> None:
    await execute("-c", block, env={"HOME": str(tmp_path), "PATH": ""}, cwd=tmp_path)


@pytest.mark.codex
@pytest.mark.parametrize(
    ("number", "text"), [(1, "There is nothing left to do."), (2, "It says a lot.")]
)
async def test_the_other_programs_of_the_readme_run_with_codex(
    with_codex: dict[str, str], cache_dir: Path, number: int, text: str
) -> None:
    workspace = cache_dir / "workspace"
    workspace.mkdir()
    printed = await execute("-c", blocks(README)[number], env=with_codex, cwd=workspace)
    assert text in printed


@pytest.mark.codex
@pytest.mark.parametrize("example", examples())
async def test_each_example_runs(
    with_codex: dict[str, str], cache_dir: Path, example: Path
) -> None:
    workspace = cache_dir / "workspace"
    workspace.mkdir()
    printed = await execute(str(example), env=with_codex, cwd=workspace)
    assert printed
    assert "skipped" not in printed


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
async def test_each_example_says_why_it_skips_itself(tmp_path: Path, example: Path) -> None:
    env = {"HOME": str(tmp_path), "PATH": "", "CODEX_PATH": str(tmp_path / "none")}
    printed = await execute(str(example), env=env, cwd=tmp_path)
    assert example.stem == "offline" or "skipped: the codex binary" in printed


@pytest.mark.parametrize("example", ["one_prompt", "tools"])
async def test_an_example_names_a_home_that_is_not_there(tmp_path: Path, example: str) -> None:
    path = next(path for path in EXAMPLES if path.stem == example)
    env = {"HOME": str(tmp_path), "CODEX_HOME": str(tmp_path / "none"), "CODEX_PATH": "/bin/true"}
    printed = await execute(str(path), env={**env, "PATH": os.environ["PATH"]}, cwd=tmp_path)
    assert printed.startswith("skipped: the variable CODEX_HOME names")
    assert len(printed.splitlines()) == 1


@pytest.mark.codex
async def test_an_example_without_a_login_says_so(one_codex: Path, cache_dir: Path) -> None:
    home = prepare_home(cache_dir / "codex", seed=False)
    env = {"HOME": str(cache_dir), "CODEX_HOME": str(home), "CODEX_PATH": str(one_codex)}
    example = next(path for path in EXAMPLES if path.stem == "one_prompt")
    printed = await execute(str(example), env={**env, "PATH": os.environ["PATH"]}, cwd=cache_dir)
    assert printed.startswith("skipped: there is no login")


@pytest.mark.parametrize("block", pages_and_blocks())
def test_each_block_of_code_is_valid_and_imports_what_exists(block: str) -> None:
    tree = ast.parse(block)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = {
        (node.module, one.name)
        for node in imports
        if (node.module or "").startswith("codex_app_server")
        for one in node.names
    }
    program = "\n".join(f"from {module} import {name}" for module, name in sorted(names))
    exec(program, {})
    unknown = (
        {
            node.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Name) and node.id in codex_app_server.__all__
        }
        - {name for _, name in names}
        - {"run"}
    )
    assert unknown == set() or not imports


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_each_page_is_listed_in_the_readme() -> None:
    text = README.read_text("utf-8")
    assert [path.name for path in DOCS.glob("*.md") if path.name not in text] == []


def test_each_option_and_message_of_a_session_is_documented() -> None:
    page = (DOCS / "sessions.md").read_text("utf-8")
    options = {
        name
        for kind in (codex_app_server.SessionOptions, codex_app_server.TurnOptions)
        for name in kind.__annotations__
    } - set(codex_app_server.LaunchOptions.__annotations__)
    events = set(codex_app_server.messages.EVENTS)
    assert [name for name in sorted(options | events) if f"`{name}`" not in page] == []


def test_each_option_of_a_start_is_documented() -> None:
    page = (DOCS / "launching.md").read_text("utf-8")
    options = codex_app_server.StartOptions.__annotations__
    assert [name for name in options if f"`{name}`" not in page] == []


def test_the_reference_is_current(commands_with: Callable[..., Any]) -> None:
    generator = CLIENT / "tools/generate_reference.py"
    done = subprocess.run(
        [sys.executable, str(generator), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

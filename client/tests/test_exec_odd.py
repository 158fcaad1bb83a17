"""What a program in the place of ``codex exec`` may write, and how its turn then ends."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from codex_app_server import ExecClient, ExecFailed, TurnFailed

THREAD = {"type": "thread.started", "thread_id": "t"}
BEGUN = {"type": "turn.started"}
SAID = {"type": "item.completed", "item": {"id": "i", "type": "agent_message", "text": "hi"}}
DONE = {"type": "turn.completed", "usage": {"input_tokens": 5, "output_tokens": 1}}
QUOTA = {"type": "turn.failed", "error": {"message": "You've hit your usage limit."}}


def odd_item(**members: Any) -> dict[str, Any]:
    return {"type": "item.completed", "item": members}


@pytest.fixture
def program(tmp_path: Path) -> Any:
    """Returns a client whose Codex writes these lines and ends with this status."""

    def write(*lines: dict[str, Any] | bytes, status: int = 0) -> ExecClient:
        output = b"".join(
            line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines
        )
        (tmp_path / "output").write_bytes(output)
        path = tmp_path / "codex"
        path.write_text(
            f"#!{sys.executable}\nimport pathlib,sys\n"
            f"sys.stdout.buffer.write(pathlib.Path({str(tmp_path / 'output')!r}).read_bytes())\n"
            "sys.stdout.flush()\n"
            f"sys.exit({status})\n"
        )
        path.chmod(0o755)
        return ExecClient(path, cwd=tmp_path, env={"HOME": str(tmp_path)})

    return write


@pytest.mark.parametrize(
    "lines",
    [
        (THREAD, BEGUN, SAID, DONE),
        (BEGUN, SAID, DONE),
        ({"type": "thread.started", "thread_id": None}, SAID, DONE),
        (SAID, THREAD, DONE),
        (THREAD, SAID, DONE, DONE),
        (b"\xef\xbb\xbf", THREAD, SAID, json.dumps(DONE).encode()),
        (THREAD, b'junk\n[]\n{}\n\xff\n{"type":5}\n', {"type": "later"}, SAID, DONE),
        (
            THREAD,
            {"type": "item.completed", "item": None},
            odd_item(id="c", type="file_change", changes=5),
            odd_item(id="d", type="file_change", changes=[5, {"kind": None}]),
            odd_item(id="e", type="todo_list", items=5),
            odd_item(id=5, type=None),
            SAID,
            DONE,
        ),
    ],
)
async def test_a_run_that_says_it_is_done_is_done_whatever_else_it_says(program, lines) -> None:
    run = program(*lines).run("go")
    events = [event async for event in run]
    assert all(event.params is not None for event in events)
    assert events[-1].method == "turn/completed"
    result = await run
    assert (result.final_message, result.usage.total_tokens) == ("hi", 6)


@pytest.mark.parametrize("lines", [(THREAD, BEGUN, QUOTA), (QUOTA,)])
async def test_a_failure_before_the_thread_is_told_of_is_a_failure(program, lines) -> None:
    with pytest.raises(TurnFailed, match="usage limit"):
        await program(*lines, status=1).run("go")


@pytest.mark.parametrize("lines", [(), (THREAD, BEGUN, SAID)])
async def test_a_run_without_an_end_says_its_status(program, lines) -> None:
    with pytest.raises(ExecFailed, match="status 3 and no result") as failure:
        await program(*lines, status=3).run("go")
    assert failure.value.returncode == 3

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from symphony.config.files import settled_stamp
from symphony.config.loading import Workflow, WorkflowSource, build_workflow, read_workflow
from symphony.config.store import (
    Broken,
    Changed,
    Repaired,
    WorkflowChange,
    WorkflowStore,
)
from symphony.errors import (
    ConfigError,
    RefusedForNow,
    SettingFault,
    SettingsError,
    WorkflowFileError,
)

if TYPE_CHECKING:
    from .conftest import Loader

LONG_S = 60.0
"""A re-check interval that no test lives to see: what it notices came from the watch."""


def text(interval_ms: object = 1000, prompt: str = "Do it.") -> str:
    return (
        f"---\ntracker: {{kind: local}}\npolling: {{interval_ms: {interval_ms}}}\n---\n{prompt}\n"
    )


class Board:
    """A store over a real file, and all that its subscriber heard."""

    def __init__(self, load: Loader) -> None:
        self.path = load.write(text())
        self.load = load
        self.builds = 0
        self.refused = ""
        self.meanwhile: Callable[[], object] = lambda: None
        self.store = WorkflowStore(self.path, self._build)
        self.changes: asyncio.Queue[WorkflowChange] = asyncio.Queue()
        self.unsubscribe = self.store.subscribe(self.changes.put_nowait)

    def _build(self, source: WorkflowSource) -> Workflow:
        self.builds += 1
        self.meanwhile()
        refused = self.refused
        return build_workflow(
            source,
            environ=self.load.environ,
            profiles=self.load.profiles,
            validate_tracker=lambda _: (
                [SettingFault("tracker.provider", refused)] if refused else []
            ),
        )

    def recheck(self) -> list[WorkflowChange]:
        self.store.recheck()
        heard = []
        while not self.changes.empty():
            heard.append(self.changes.get_nowait())
        return heard

    def edit(self, content: str) -> list[WorkflowChange]:
        self.path.write_text(content, encoding="utf-8")
        return self.recheck()

    def age(self) -> None:
        """Let the file look as if it had not been touched for long."""
        while (time.time_ns() - os.stat(self.path).st_ctime_ns) < 60_000_000:
            os.stat(self.path)
        self.recheck()


@pytest.fixture
def board(load: Loader) -> Board:
    return Board(load)


def replace(path: Path, content: str) -> None:
    """Write as editors do: a new file under a temporary name, then a rename."""
    other = path.with_name(".WORKFLOW.md.tmp")
    other.write_text(content, encoding="utf-8")
    other.replace(path)


def write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")


def recreate(path: Path, content: str) -> None:
    path.unlink()
    write(path, content)


class TestStart:
    def test_a_missing_file_is_fatal(self, tmp_path: Path) -> None:
        with pytest.raises(WorkflowFileError) as caught:
            WorkflowStore(
                tmp_path / "WORKFLOW.md", partial(build_workflow, environ={}, profiles={})
            )
        assert caught.value.category == "missing_workflow_file"

    def test_an_invalid_file_is_fatal(self, load: Loader) -> None:
        with pytest.raises(SettingsError):
            WorkflowStore(
                load.write("No tracker."), partial(build_workflow, environ={}, profiles={})
            )

    def test_a_valid_file_is_in_force(self, board: Board) -> None:
        assert board.store.current.settings.polling.interval_ms == 1000
        assert board.store.problem is None


class TestRecheck:
    @pytest.mark.parametrize("write_it", [write, replace, recreate])
    def test_settings_and_prompt_swap_together(
        self, board: Board, write_it: Callable[[Path, str], None]
    ) -> None:
        write_it(board.path, text(2000, "Do more."))
        changes = board.recheck()
        assert changes == [Changed(board.store.current)]
        assert board.store.current.settings.polling.interval_ms == 2000
        assert board.store.current.prompt_template == "Do more."

    def test_an_edit_of_the_same_size_within_the_same_second_is_seen(self, board: Board) -> None:
        status = os.stat(board.path)
        board.path.write_text(text(1001), encoding="utf-8")
        os.utime(board.path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert [type(change) for change in board.recheck()] == [Changed]
        assert board.store.current.settings.polling.interval_ms == 1001

    def test_an_edit_while_the_one_before_is_parsed_is_not_lost(self, board: Board) -> None:
        # Same size, same inode and most likely the same tick of the file system's clock.
        board.meanwhile = lambda: board.path.write_text(text(2002), encoding="utf-8")
        board.edit(text(2001))
        board.meanwhile = lambda: None
        assert board.store.current.settings.polling.interval_ms == 2001
        assert [type(change) for change in board.recheck()] == [Changed]
        assert board.store.current.settings.polling.interval_ms == 2002

    def test_an_untouched_file_is_not_read_again(self, board: Board) -> None:
        board.age()
        board.path.chmod(0o600)
        board.age()
        assert board.recheck() == []
        assert board.builds == 1

    def test_a_touched_file_with_the_same_content_changes_nothing(self, board: Board) -> None:
        before = board.store.current
        assert board.edit(text()) == []
        assert board.store.current is before
        assert board.builds == 1

    def test_a_changed_environment_without_an_edit_changes_nothing(self, board: Board) -> None:
        board.load.environ["TMPDIR"] = "/elsewhere"
        assert board.edit(text()) == []
        assert board.store.current.settings.workspace.path.startswith("/var/tmp/")

    @pytest.mark.parametrize(
        ("content", "category"),
        [
            ("---\na: b: c\n---\n", "workflow_parse_error"),
            ("---\n- a\n---\n", "workflow_front_matter_not_a_map"),
            (text("soon"), "invalid_workflow_config"),
            ("", "missing_tracker_kind"),
        ],
    )
    def test_a_broken_edit_keeps_the_last_good_one(
        self, board: Board, content: str, category: str
    ) -> None:
        before = board.store.current
        changes = board.edit(content)
        assert board.store.current is before
        assert board.store.problem is not None
        assert board.store.problem.category == category
        assert changes == [Broken(board.store.problem)]

    def test_a_fault_that_only_the_adapter_sees_keeps_the_last_good_one(self, board: Board) -> None:
        board.refused = "the scope does not exist"
        [change] = board.edit(text(2000))
        assert isinstance(change, Broken)
        assert change.error.category == "invalid_tracker_config"
        assert board.store.current.settings.polling.interval_ms == 1000

    def test_a_broken_file_is_parsed_and_reported_once_per_content(self, board: Board) -> None:
        assert len(board.edit(text("soon"))) == 1
        builds = board.builds
        assert [board.recheck() for _ in range(20)] == [[]] * 20
        assert board.edit(text("soon")) == []
        assert board.builds == builds
        assert [type(change) for change in board.edit(text("later"))] == [Broken]

    def test_the_same_broken_content_is_reported_again_after_a_good_one(self, board: Board) -> None:
        board.edit(text("soon"))
        board.edit(text())
        assert [type(change) for change in board.edit(text("soon"))] == [Broken]

    def test_going_back_to_the_good_content_repairs_without_a_change(self, board: Board) -> None:
        before = board.store.current
        board.edit(text("soon"))
        assert board.edit(text()) == [Repaired()]
        assert board.store.current is before
        assert board.store.problem is None

    def test_a_mended_file_is_in_force_before_it_counts_as_repaired(self, board: Board) -> None:
        board.edit(text("soon"))
        changes = board.edit(text(3000))
        assert changes == [Changed(board.store.current), Repaired()]
        assert board.store.current.settings.polling.interval_ms == 3000
        assert board.store.problem is None

    def test_a_deleted_file_keeps_the_last_good_one_and_is_reported_once(
        self, board: Board
    ) -> None:
        before = board.store.current
        board.path.unlink()
        [change] = board.recheck()
        assert isinstance(change, Broken)
        assert change.error.category == "missing_workflow_file"
        assert board.recheck() == []
        assert board.store.current is before
        assert board.edit(text()) == [Repaired()]

    def test_what_keeps_the_file_from_being_read_is_told_anew_where_it_changes(
        self, board: Board
    ) -> None:
        board.path.unlink()
        [gone] = board.recheck()
        board.path.mkdir()
        [folder] = board.recheck()
        assert isinstance(gone, Broken)
        assert isinstance(folder, Broken)
        assert "No such file" in str(gone.error)
        assert "Is a directory" in str(board.store.problem)
        assert board.recheck() == []

    def test_a_file_that_comes_back_broken_is_reported_as_that(self, board: Board) -> None:
        board.path.unlink()
        board.recheck()
        [change] = board.edit("---\na: b: c\n---\n")
        assert isinstance(change, Broken)
        assert change.error.category == "workflow_parse_error"

    def test_who_unsubscribed_hears_no_more(self, board: Board) -> None:
        board.unsubscribe()
        assert board.edit(text(2000)) == []
        assert board.store.current.settings.polling.interval_ms == 2000

    def test_a_subscriber_finds_the_new_state_in_force(self, board: Board) -> None:
        seen: list[tuple[str, ConfigError | None]] = []
        board.store.subscribe(
            lambda _: seen.append((board.store.current.prompt_template, board.store.problem))
        )
        board.edit(text("soon"))
        board.edit(text(prompt="Mended."))
        assert [prompt for prompt, _ in seen] == ["Do it.", "Mended.", "Mended."]
        assert [problem is None for _, problem in seen] == [False, True, True]


@pytest.mark.parametrize(
    ("age_ms", "trusted"), [(0, False), (49, False), (-20, False), (51, True), (3_600_000, True)]
)
def test_a_stamp_is_trusted_once_the_file_has_rested(
    load: Loader, age_ms: int, trusted: bool
) -> None:
    source = read_workflow(load.write(text()))
    stamp = settled_stamp(source.stamp, source.stamp.changed_ns + age_ms * 1_000_000)
    assert stamp == (source.stamp if trusted else None)


@asynccontextmanager
async def watching(board: Board, interval_s: float = LONG_S) -> AsyncIterator[None]:
    task = asyncio.create_task(board.store.watch(interval_s), name="watch")
    try:
        yield
        assert not task.done(), "the watch ended"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def heard_after(board: Board, act: Callable[[int], object]) -> WorkflowChange:
    """Act until the watch, which takes a moment to be in place, has seen it."""
    for number in range(100):
        act(number)
        with suppress(TimeoutError):
            return await asyncio.wait_for(board.changes.get(), 0.3)
    raise AssertionError("the watch saw nothing")


class TestWatch:
    @pytest.mark.parametrize("write_it", [write, replace, recreate])
    async def test_each_way_of_writing_is_seen(
        self, board: Board, write_it: Callable[[Path, str], None]
    ) -> None:
        async with watching(board):
            change = await heard_after(
                board, lambda number: write_it(board.path, text(prompt=f"Version {number}."))
            )
            while not isinstance(change, Changed):
                change = await asyncio.wait_for(board.changes.get(), 10)
        assert change.workflow.prompt_template.startswith("Version ")

    async def test_breaking_deleting_and_mending_are_seen_in_turn(self, board: Board) -> None:
        async with watching(board):
            broken = await heard_after(board, lambda n: replace(board.path, text(f"soon{n}")))
            board.path.unlink()
            missing = await asyncio.wait_for(board.changes.get(), 10)
            replace(board.path, text(4000))
            changed = await asyncio.wait_for(board.changes.get(), 10)
            repaired = await asyncio.wait_for(board.changes.get(), 10)
        assert isinstance(broken, Broken)
        assert isinstance(missing, Broken)
        assert missing.error.category == "missing_workflow_file"
        assert isinstance(changed, Changed)
        assert changed.workflow.settings.polling.interval_ms == 4000
        assert repaired == Repaired()

    async def test_a_change_behind_a_link_is_seen_by_the_re_check(self, load: Loader) -> None:
        target = load.path.parent.parent / "target.md"
        target.write_text(text(), encoding="utf-8")
        load.path.symlink_to(target)
        board = Board(load)
        async with watching(board, 0.05):
            change = await heard_after(board, lambda n: replace(target, text(prompt=f"V{n}.")))
        assert isinstance(change, Changed)

    async def test_it_survives_the_loss_of_the_directory(self, board: Board) -> None:
        directory = board.path.parent
        moved = directory.with_name("moved")
        async with watching(board, 0.05):
            directory.rename(moved)
            missing = await asyncio.wait_for(board.changes.get(), 10)
            moved.rename(directory)
            assert await asyncio.wait_for(board.changes.get(), 10) == Repaired()
            change = await heard_after(board, lambda n: replace(board.path, text(prompt=f"V{n}.")))
        assert isinstance(missing, Broken)
        assert isinstance(change, Changed)


def test_a_version_that_is_refused_for_now_is_tried_again_and_told_once(load: Loader) -> None:
    refusals = ["held by pid 7", "held by pid 7", "held by pid 8"]

    def build(source: WorkflowSource) -> Workflow:
        workflow = build_workflow(source, environ=load.environ, profiles=load.profiles)
        if workflow.settings.polling.interval_ms == 2000 and refusals:
            raise RefusedForNow("workspace_locked", refusals.pop(0))
        return workflow

    path = load.write(text())
    store = WorkflowStore(path, build, refused_retry_s=0.0)
    told: list[WorkflowChange] = []
    store.subscribe(told.append)
    load.write(text(2000))

    for _ in range(5):
        store.recheck()

    first, second, changed, repaired = told
    assert isinstance(first, Broken)
    assert isinstance(second, Broken)
    assert [first.error.message, second.error.message] == ["held by pid 7", "held by pid 8"]
    assert isinstance(changed, Changed)
    assert isinstance(repaired, Repaired)
    assert store.current.settings.polling.interval_ms == 2000

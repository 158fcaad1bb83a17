"""The tracker ``local``: a folder of Markdown files as the issue tracker, no account needed.

Wraps the blocking ``Board`` for the daemon: reads run in threads, documents become issues, a
watch of the folder wakes the poll, and the agent gets the tool ``local_board``. The profile page
is docs/trackers/local.md. Invariant: one bad file never hides another issue, and never passes for
an issue that is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from symphony.errors import SettingFault, TrackerError
from symphony.model.issue import (
    BlockerRef,
    Issue,
    IssueId,
    blocked_sentence,
    normalize_state,
)

from . import local_tool
from .base import ToolContext, ToolResult, ToolSpec
from .local_board import Board, board_folder, check_prefix, malformed_error, open_board
from .local_document import IssueDocument
from .local_view import BoardView, FileFault
from .rest_settings import ProviderReader

if TYPE_CHECKING:
    from symphony.config.settings import TrackerSettings

_WATCH_STEP_MS: Final = 50
_WATCH_DEBOUNCE_MS: Final = 200
_FOLDER_ABSENT_PAUSE_S: Final = 0.5
_FOLDER_LOOK_MS: Final = 2000  # of a deletion of the watched folder itself nothing is told

log = structlog.get_logger(__name__)


class LocalTracker:
    """A board as a ``Tracker`` (SPEC 11).

    Args:
        board: The folder of issues.
        active_states: The first one is where blockers hold an issue back, as ``Todo`` always does.
        terminal_states: A blocker in one of them blocks no more.
    """

    def __init__(
        self, board: Board, *, active_states: Sequence[str], terminal_states: Sequence[str]
    ) -> None:
        self.board = board
        self._gated = {"todo", *(normalize_state(state) for state in active_states[:1])}
        self._terminal = frozenset(normalize_state(state) for state in terminal_states)
        self._warned: dict[Path, str] = {}
        self._normalised: tuple[BoardView, Mapping[IssueId, Issue]] | None = None

    @property
    def kind(self) -> str:
        """The value of ``tracker.kind``."""
        return "local"

    @property
    def secret_environment_names(self) -> Sequence[str]:
        """A board has no secrets."""
        return ()

    async def fetch_issues_by_states(self, states: Sequence[str]) -> list[Issue]:
        """Return the issues in these states in the board's order; malformed files are left out."""
        wanted = {normalize_state(state) for state in states}
        if not wanted:
            return []
        _, issues = await self._read()
        return [issue for issue in issues.values() if issue.state_key in wanted]

    async def fetch_issues_by_ids(self, ids: Sequence[IssueId]) -> list[Issue]:
        """Return the issues of these ids; one whose file is malformed fails the read."""
        if not ids:
            return []
        view, issues = await self._read()
        found = []
        for issue_id in dict.fromkeys(ids):
            if issue_id in issues:
                found.append(issues[issue_id])
            elif (fault := view.malformed_ids.get(issue_id)) is not None:
                raise malformed_error(fault)
        return found

    async def fetch_issue(self, name: str) -> Issue | None:
        """Return the issue of this identifier or id; one whose file is malformed fails the read."""
        view, issues = await self._read()
        wanted = name.casefold()
        by_name = (one for one in issues.values() if one.identifier.casefold() == wanted)
        found = issues.get(IssueId(name)) or next(by_name, None)
        if found is None:
            claims = {claimed.casefold(): fault for claimed, fault in view.malformed_ids.items()}
            if (fault := claims.get(wanted)) is not None:
                raise malformed_error(fault)
        return found

    def agent_tools(self) -> Sequence[ToolSpec]:
        """The tool ``local_board``."""
        return (local_tool.SPEC,)

    async def call_tool(self, name: str, arguments: Any, context: ToolContext) -> ToolResult:
        """Execute ``local_board`` on this board, in a thread."""
        return await asyncio.to_thread(local_tool.call, self.board, name, arguments, context)

    def changes(self) -> AsyncIterator[None]:
        """Yield when an issue file was changed, added or removed; never ends by itself."""
        return self._watch()

    async def aclose(self) -> None:
        """Nothing stays open between calls."""

    async def faults_at_start(self) -> Sequence[str]:
        """Name every malformed file: whoever starts the daemon is there to mend it."""
        view = await asyncio.to_thread(self.board.read)
        return [str(fault) for fault in view.malformed]

    async def _read(self) -> tuple[BoardView, Mapping[IssueId, Issue]]:
        view = await asyncio.to_thread(self.board.read)
        if self._normalised is None or self._normalised[0] is not view:
            self._warn(view)
            issues = (self._to_issue(document, view) for document in view.issues)
            self._normalised = view, {issue.id: issue for issue in issues}
        return self._normalised

    def _warn(self, view: BoardView) -> None:
        """Say once for each content of a file what is wrong with it."""
        current = {fault.path: fault.digest for fault in (*view.malformed, *view.notices)}
        for fault in view.malformed:
            self._warn_of(fault, "Dropping malformed board file", count=len(view.malformed))
        for fault in view.notices:
            self._warn_of(fault, "Leaving out unusable values of board file")
        self._warned = current

    def _warn_of(self, fault: FileFault, message: str, **fields: Any) -> None:
        if self._warned.get(fault.path) != fault.digest:
            problems = "; ".join(str(entry) for entry in fault.faults)
            log.warning(message, file=fault.file, problems=problems, **fields)

    def _to_issue(self, document: IssueDocument, view: BoardView) -> Issue:
        blockers = tuple(_blocker(name, view) for name in document.blocked_by or ())
        withheld = self._withheld(document, blockers)
        return Issue(
            id=IssueId(document.id),
            identifier=document.identifier,
            title=document.title,
            state=document.state,
            dispatchable=withheld is None,
            withheld=withheld,
            description=document.description,
            priority=document.priority,
            branch_name=document.branch_name,
            url=document.url,
            assignee_id=document.assignee,
            labels=document.labels,
            blocked_by=blockers,
            native_ref={"file": f"{document.identifier}.md"},
            created_at=document.created_at,
            updated_at=document.updated_at,
        )

    def _withheld(self, document: IssueDocument, blockers: Sequence[BlockerRef]) -> str | None:
        """What an issue must wait for in the state in which it would start."""
        if normalize_state(document.state) not in self._gated:
            return None
        if document.blocked_by is None:
            return "its `blocked_by` can't be read"
        waits_for = [
            blocker
            for blocker in blockers
            if blocker.state is None or normalize_state(blocker.state) not in self._terminal
        ]
        return blocked_sentence(waits_for) if waits_for else None

    async def _watch(self) -> AsyncIterator[None]:
        from watchfiles import Change, awatch

        from .local_files import is_issue_file

        def concerns_issues(change: Change, path: str) -> bool:
            return is_issue_file(Path(path).name)

        lost = False
        while True:
            with contextlib.suppress(FileNotFoundError), _held(self.board.path) as folder:
                if lost:
                    yield None
                watch = awatch(
                    self.board.path,
                    watch_filter=concerns_issues,
                    debounce=_WATCH_DEBOUNCE_MS,
                    step=_WATCH_STEP_MS,
                    recursive=False,
                    rust_timeout=_FOLDER_LOOK_MS,
                    yield_on_timeout=True,
                )
                async with contextlib.aclosing(watch):
                    async for changed in watch:
                        if changed:
                            yield None
                        if not _leads_to(self.board.path, folder):
                            break
            # The folder is absent, or another one (a checkout makes it anew) that no watch sees.
            lost = True
            await asyncio.sleep(_FOLDER_ABSENT_PAUSE_S)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[int]:
    """Hold a folder open: the number of its inode is then not given to another."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _leads_to(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _blocker(name: str, view: BoardView) -> BlockerRef:
    """Resolve a name in ``blocked_by``; an unknown or malformed one keeps blocking, by name."""
    document = view.by_identifier.get(name) or view.by_id.get(name)
    if document is None:
        return BlockerRef(identifier=name)
    return BlockerRef(id=document.id, identifier=document.identifier, state=document.state)


def validate(
    settings: TrackerSettings, environ: Mapping[str, str], base_dir: Path
) -> list[SettingFault]:
    """Return everything that is wrong with ``tracker`` for this adapter."""
    faults: list[SettingFault] = []
    path = settings.provider.get("path")
    if path is not None and (not isinstance(path, str) or not path.strip()):
        problem = "must be the path of a folder, relative to the workflow file, or absolute"
        faults.append(SettingFault("tracker.provider.path", problem, str(path)))
    else:
        folder = board_folder(settings.provider, base_dir)
        if not folder.is_dir():
            there = "is not a folder" if folder.exists() else "does not exist"
            problem = f"the board's folder {there}: create it with `mkdir -p {folder}`"
            faults.append(SettingFault("tracker.provider.path", problem, str(folder)))
    prefix = settings.provider.get("prefix")
    if prefix is not None:
        try:
            check_prefix(prefix if isinstance(prefix, str) else "")
        except TrackerError:
            problem = "must be a letter and then letters, digits or `_`, such as `DEMO`"
            faults.append(SettingFault("tracker.provider.prefix", problem, str(prefix)))
    reader = ProviderReader(settings.provider, environ, faults)
    reader.known_keys(("path", "prefix"))
    return faults


def build(settings: TrackerSettings, environ: Mapping[str, str], base_dir: Path) -> LocalTracker:
    """Build the tracker; call ``validate`` first for all faults at once."""
    return LocalTracker(
        open_board(settings.provider, base_dir),
        active_states=settings.active_states,
        terminal_states=settings.terminal_states,
    )

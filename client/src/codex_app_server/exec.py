"""``codex exec --json``: a turn in a process of its own, with the events and results of all others.

    client = ExecClient(codex_home="private")
    first = await client.run("Find the bug", cwd="/repo", sandbox="read-only")
    second = await client.run("Fix it", resume=first.thread_id, sandbox="workspace-write")

For versions that have no app-server, or to keep turns apart by processes; approvals, tools, deltas
and steering it has not. Invariants: the prompt goes through stdin, which then ends, so Codex never
waits for more; the usage of a result is what its turn added, although exec reports the thread's
total; when a run is done its process and all that it started are gone.

`codex_app_server.protocol.exec_events` translates the lines, `codex_app_server.launch` starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from codex_app_server import values
from codex_app_server.checks import PATH, check_arguments, check_options, check_values, optional
from codex_app_server.errors import (
    InvalidArgument,
)
from codex_app_server.exec_command import (
    RUN_CHECKS,
    ExecOrder,
    approval_config,
    encoded_prompt,
    flag_words,
    translated_arguments,
)
from codex_app_server.exec_run import ExecRun
from codex_app_server.home import config_arguments
from codex_app_server.launch_plan import LAUNCH_CHECKS, LaunchOptions, LaunchPlan, plan_launch
from codex_app_server.protocol.turn import TokenUsage
from codex_app_server.sink import DEFAULT_LIMIT, Overflow, Sink
from codex_app_server.turns import TurnTimeouts

__all__ = ["ExecClient", "ExecRun"]


class ExecClient:
    """Runs turns as ``codex exec`` processes, one process a turn.

    Args:
        codex: The binary; found as by `Codex.start` where it is None.
        options: How each process is started, see `LaunchOptions`.

    Attributes:
        usage_totals: Last known token total of each thread, by id; what a resumed turn's usage is
            measured from.

    Raises:
        InvalidArgument: A shell command instead of a binary.
    """

    def __init__(
        self, codex: str | os.PathLike[str] | None = None, **options: Unpack[LaunchOptions]
    ) -> None:
        check_values(codex=(codex, optional(PATH)))
        check_options(options, LAUNCH_CHECKS)
        if isinstance(codex, str) and len(codex.split()) > 1 and not os.path.exists(codex):
            raise InvalidArgument(f"codex={codex!r}: exec needs a binary, not a shell command")
        if options.get("codex_home") == "private":
            raise InvalidArgument("codex_home='private' lasts one run, so nothing could be resumed")
        self.usage_totals: dict[str, TokenUsage] = {}
        self._codex = codex
        self._options = options

    def run(
        self,
        prompt: str,
        *,
        resume: str | None = None,
        cwd: str | os.PathLike[str] | None = None,
        model: str | None = None,
        sandbox: str | None = None,
        approval_policy: Any = None,
        output_schema: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        images: Sequence[str | os.PathLike[str]] = (),
        skip_git_repo_check: bool = False,
        ephemeral: bool = False,
        arguments: Sequence[str] = (),
        timeouts: TurnTimeouts | None = None,
        overflow: Overflow = "coalesce",
        queue_limit: int = DEFAULT_LIMIT,
        keep_items: bool = True,
    ) -> ExecRun:
        """Make a run; nothing is started until it is awaited, iterated or started.

        Args:
            prompt: Given through stdin.
            resume: Id or name of a thread, or ``"last"`` for the newest one of ``cwd``.
            cwd: Of the agent; that of the process by default.
            model: Codex's default if None.
            sandbox: ``read-only``, ``workspace-write`` or ``danger-full-access``.
            approval_policy: Exec cannot ask anybody, so all but ``never`` costs a warning.
            output_schema: JSON Schema of the final message.
            config: Overrides of config.toml, dotted or nested.
            images: Files to show with the prompt.
            skip_git_repo_check: Allow a directory outside of a git repository.
            ephemeral: Leave no record on disk; such a thread cannot be resumed.
            arguments: More of ``codex exec``; what it refuses by now is translated, with a warning.
            timeouts: Limits; by default an hour of silence.
            overflow: What happens to events over ``queue_limit`` that nobody reads.
            queue_limit: Events that may wait for the iterator.
            keep_items: Keep completed items for the result.

        Raises:
            InvalidArgument: An empty prompt, a wrong type, or a value that no version knows.
        """
        check_arguments(locals(), RUN_CHECKS)
        warnings: list[str] = []
        flags, overrides = translated_arguments(arguments, warnings)
        overrides |= {**(config or {}), **approval_config(approval_policy, warnings)}
        mode = values.sandbox_mode(sandbox, warnings)
        words = ["--json", *flags, *config_arguments(overrides)]
        words += ["--skip-git-repo-check"] * skip_git_repo_check + ["--ephemeral"] * ephemeral
        words += flag_words({"--model": model, "--sandbox": mode, "--cd": cwd})
        words += [f"--image={os.fspath(image)}" for image in images]
        return ExecRun(
            self,
            ExecOrder(encoded_prompt(prompt), tuple(words), resume, output_schema),
            timeouts=TurnTimeouts() if timeouts is None else timeouts,
            warnings=warnings,
            sink=Sink(overflow, queue_limit),
            keep_items=keep_items,
        )

    def plan(self, words: Sequence[str]) -> LaunchPlan:
        """Decide how to start ``codex`` with these words."""
        return plan_launch(self._codex, self._options, words)

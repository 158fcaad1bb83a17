"""The story of the demo: what stands on the board, and what the scripted model does about it.

Five issues: two of one priority of which one waits for the other, one whose first attempt fails,
one that needs two turns, one that is plain; and a sixth that a person adds meanwhile. Invariant:
every command may run again on a workspace where it ran before, so an attempt that was cut off is
made good by the next one. Pure data; ``board`` and ``repository`` put it on disk.
"""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass

from symphony.demo.project import branch_of
from symphony.demo.script import (
    Answer,
    Exec,
    Fail,
    IssueScript,
    Item,
    Patch,
    RateLimits,
    Reply,
    Say,
    Script,
    Think,
    Tool,
    Turn,
    Usage,
)

DONE = "Done"
PREFIX = "DEMO"

PROVIDER = "scripted"
"""Key of the model server among Codex's ``model_providers``."""

MODEL = "gpt-5.5"
"""The model to configure: Codex 0.125 to 0.169 know it, and they offer ``apply_patch`` to models
that they know."""


@dataclass(frozen=True, slots=True)
class StoryIssue:
    """An issue of the story.

    Attributes:
        identifier: ``DEMO-1`` and so on.
        title: For the board and the commit.
        description: What is asked for.
        priority: 1 is the most urgent.
        labels: For the board.
        blocked_by: Identifiers; the work builds on their branches.
        edits: What changes the files.
        comment: What the model reports at the end.
        second_turn: Edits of a second turn.
        fails_first: The provider refuses the first attempt.
    """

    identifier: str
    title: str
    description: str
    priority: int
    labels: tuple[str, ...]
    edits: tuple[Item, ...]
    comment: str
    blocked_by: tuple[str, ...] = ()
    second_turn: tuple[Item, ...] = ()
    fails_first: bool = False


def _new_file(path: str, text: str) -> str:
    lines = "\n".join(f"+{line}" for line in text.strip("\n").split("\n"))
    return f"*** Add File: {path}\n{lines}\n"


def _patch(*files: tuple[str, str]) -> Patch:
    """Return a patch that adds files; a file that is there already is written anew."""
    body = "".join(_new_file(path, text) for path, text in files)
    return Patch(f"*** Begin Patch\n{body}*** End Patch\n")


COUNTING = '''
"""Counts words."""

from collections import Counter


def count_words(text: str) -> Counter[str]:
    """Return how often each word occurs, in lower case."""
    return Counter(text.lower().split())
'''

COUNTING_TEST = """
import unittest

from textkit.counting import count_words


class CountingTest(unittest.TestCase):
    def test_words_count_whatever_their_case(self) -> None:
        self.assertEqual(count_words("To be or not to be"), dict(to=2, be=2, **{"or": 1, "not": 1}))

    def test_an_empty_text_has_no_words(self) -> None:
        self.assertEqual(count_words(""), {})
"""

RANKING = '''
"""Ranks words."""

from textkit.counting import count_words


def top_words(text: str, limit: int = 10) -> list[str]:
    """Return the most frequent words, most frequent first."""
    return [word for word, _ in count_words(text).most_common(limit)]
'''

RANKING_TEST = """
import unittest

from textkit.ranking import top_words


class RankingTest(unittest.TestCase):
    def test_the_most_frequent_word_is_first(self) -> None:
        self.assertEqual(top_words("b a b a b c", limit=2), ["b", "a"])
"""

SHOUTING = """
cat > textkit/greeting.py <<'EOF'
\"\"\"Greets people.\"\"\"


def greet(name: str, loud: bool = False) -> str:
    \"\"\"Return a greeting, in capital letters if it is to be loud.\"\"\"
    text = f"Hello, {name}!"
    return text.upper() if loud else text
EOF
"""

SHOUTING_TEST = """
import unittest

from textkit.greeting import greet


class LoudGreetingTest(unittest.TestCase):
    def test_a_loud_greeting_is_in_capital_letters(self) -> None:
        self.assertEqual(greet("Ada", loud=True), "HELLO, ADA!")
"""

OUTLINE = """
mkdir -p docs && cat > docs/manual.md <<'EOF'
# Manual of textkit

## Greeting

To be written.
EOF
"""

MANUAL = """
cat > docs/manual.md <<'EOF'
# Manual of textkit

## Greeting

`textkit.greeting.greet("Ada")` returns `Hello, Ada!`.
EOF
"""

TRIMMING = '''
"""Trims text."""


def trim(text: str, width: int) -> str:
    """Return a text that is at most so wide, cut at a word where that is possible.

    Raises:
        ValueError: The width is below 1.
    """
    if width < 1:
        raise ValueError(f"the width must be at least 1, got {width}")
    if len(text) <= width:
        return text
    head = text[: width + 1].rpartition(" ")[0]
    return head or text[:width]
'''

TRIMMING_TEST = """
cat > tests/test_trimming.py <<'EOF'
import unittest

from textkit.trimming import trim


class TrimmingTest(unittest.TestCase):
    def test_a_text_is_cut_between_words(self) -> None:
        self.assertEqual(trim("one two three", 8), "one two")

    def test_a_width_below_one_is_refused(self) -> None:
        with self.assertRaises(ValueError):
            trim("one", 0)
EOF
"""

CONTRIBUTING = """
printf '%s\\n' '# How to contribute' '' 'Make a branch, run `./check`, open a request.' \\
    > CONTRIBUTING.md
"""

STORY = (
    StoryIssue(
        identifier="DEMO-1",
        title="Count the words of a text",
        description="A function `count_words` in `textkit/counting.py`, whatever the case.",
        priority=1,
        labels=("feature",),
        edits=(
            _patch(
                ("textkit/counting.py", COUNTING),
                ("tests/test_counting.py", COUNTING_TEST),
            ),
        ),
        comment="`count_words` counts words in lower case. Two tests cover it.",
    ),
    StoryIssue(
        identifier="DEMO-2",
        title="Greet loudly on request",
        description="`greet` takes `loud=True` and then answers in capital letters.",
        priority=2,
        labels=("feature",),
        edits=(Exec(SHOUTING.strip()), _patch(("tests/test_loud_greeting.py", SHOUTING_TEST))),
        comment="`greet` has the parameter `loud`. The old behaviour is the default.",
        fails_first=True,
    ),
    StoryIssue(
        identifier="DEMO-3",
        title="List the most frequent words",
        description="A function `top_words`; it builds on `count_words` of DEMO-1.",
        priority=1,
        labels=("feature",),
        blocked_by=("DEMO-1",),
        edits=(_patch(("textkit/ranking.py", RANKING), ("tests/test_ranking.py", RANKING_TEST)),),
        comment="`top_words` ranks what `count_words` finds. The branch builds on DEMO-1.",
    ),
    StoryIssue(
        identifier="DEMO-4",
        title="Write a manual",
        description="A page `docs/manual.md`: first an outline, then the text.",
        priority=3,
        labels=("docs",),
        edits=(Exec(OUTLINE.strip()),),
        second_turn=(Exec(MANUAL.strip()),),
        comment="The manual has a chapter on greeting. It took an outline and a second pass.",
    ),
    StoryIssue(
        identifier="DEMO-5",
        title="Cut long texts between words",
        description="A function `trim` in `textkit/trimming.py`; a width below 1 is an error.",
        priority=4,
        labels=("feature",),
        edits=(_patch(("textkit/trimming.py", TRIMMING)), Exec(TRIMMING_TEST.strip())),
        comment="`trim` cuts between words and refuses a width below 1. Two tests cover it.",
    ),
)
"""What stands on the board when the demo begins."""

SIXTH = StoryIssue(
    identifier="DEMO-6",
    title="Say how to contribute",
    description="A short `CONTRIBUTING.md`. (Added by a person while the demo runs.)",
    priority=2,
    labels=("docs",),
    edits=(Exec(CONTRIBUTING.strip()),),
    comment="`CONTRIBUTING.md` says how to bring a change. It is three lines long.",
)


def demo_script(
    *, pause_s: float = 0.1, python: str = sys.executable, now: float | None = None
) -> Script:
    """Return the script of the model for all six issues.

    Args:
        pause_s: Seconds that the model "thinks" before each answer.
        python: Interpreter for the project's tests; a login shell may not have one on its PATH.
        now: Unix seconds, from which the rate limits' reset times are counted.
    """
    start = int(time.time() if now is None else now)
    return Script(
        issues={issue.identifier: issue_script(issue, python) for issue in (*STORY, SIXTH)},
        rate_limits=lambda requests: RateLimits(
            primary_percent=min(12 + requests / 2, 100),
            secondary_percent=min(4 + requests / 10, 100),
            primary_resets_at=start + 3 * 3600,
            secondary_resets_at=start + 5 * 86400,
        ),
        pause_s=pause_s,
    )


def issue_script(issue: StoryIssue, python: str) -> IssueScript:
    """Return what the model does for one issue."""
    opening = _opening(issue)
    if issue.second_turn:
        half = (*opening, *issue.edits, _commit(issue, "Begin"), Say("The outline is there."))
        rest = (*issue.second_turn, *_closing(issue, python))
        return IssueScript((_turn(*half), _turn(*rest)))
    whole = _turn(*opening, *issue.edits, *_closing(issue, python))
    if not issue.fails_first:
        return IssueScript((whole,))
    refusal = Fail(429, "rate_limit_exceeded", "the scripted provider refuses", times=None)
    return IssueScript((whole,), first_attempt=((*_turn(*opening), refusal),))


def _opening(issue: StoryIssue) -> tuple[Item, ...]:
    branch = branch_of(issue.identifier)
    steps: list[Item] = [
        Think(f"I begin with {issue.identifier}: {issue.title.lower()}."),
        Tool("local_board", {"action": "move", "state": "In Progress"}),
        Exec(f"git switch -q {branch} 2>/dev/null || git switch -q -c {branch}; git status -sb"),
    ]
    # The branch of the issue that this one waited for is published right after its last turn.
    for blocker in issue.blocked_by:
        base = f"origin/{branch_of(blocker)}"
        wait = f"for n in $(seq 40); do git fetch -q && git rev-parse -q --verify {base} && break"
        steps.append(Exec(f"{wait}; sleep 0.2; done; git merge -q --no-edit {base}"))
    return tuple(steps)


def _closing(issue: StoryIssue, python: str) -> tuple[Item, ...]:
    return (
        Exec(f"PYTHON={shlex.quote(python)} ./check"),
        _commit(issue, issue.title),
        Tool("local_board", {"action": "comment", "text": issue.comment}),
        Tool("local_board", {"action": "move", "state": DONE}),
        Say(f"{issue.identifier} is done: {issue.comment}"),
    )


def _commit(issue: StoryIssue, subject: str) -> Exec:
    message = shlex.quote(f"{issue.identifier}: {subject}")
    commit = f"git diff --cached --quiet || git commit -q -m {message}"
    return Exec(f"git add -A && {{ {commit}; }} && git log --oneline -1")


def _turn(*items: Item) -> Turn:
    """Return a turn of one item a reply, but a thought goes with what follows it."""
    answers: list[Answer] = []
    waiting: tuple[Item, ...] = ()
    for item in items:
        if isinstance(item, Think):
            waiting = (*waiting, item)
            continue
        place = len(answers)
        usage = Usage(1400 + 350 * place, 60 + 15 * place, cached=900 * min(place, 1), reasoning=20)
        answers.append(Reply((*waiting, item), usage=usage))
        waiting = ()
    return tuple(answers)

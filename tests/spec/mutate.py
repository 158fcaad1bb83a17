"""Make each mutation of the matrix in a copy of the repository and expect its tests to fail.

Use: ``python tests/spec/mutate.py [--unproved] [WORD...]``; words choose lines by section or text.
The working tree is only read. ``killed`` is what should be; ``SURVIVED``: the line's first test
does not see the mutation; ``BROKEN``: its tests fail without it; ``STALE``: the code has changed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from matrix import ROOT, Line, read_lines

_COPIED = ("pyproject.toml", "conftest.py", "src", "client", "tests", "docs", "examples")


def copy_repository(target: Path) -> None:
    """Copy what tests need; binaries and caches stay where they are."""
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignored)
        elif source.exists():
            shutil.copy2(source, target / name)
    if (ROOT / ".codex-binaries").exists():
        (target / ".codex-binaries").symlink_to(ROOT / ".codex-binaries")


def make_python(copy: Path) -> None:
    """Make an interpreter that finds the copy's packages, in child processes too, and ours not.

    It sees what is installed beside us by path alone, so that an editable install is not followed.
    """
    home = copy / ".python"
    venv.create(home, symlinks=True)
    paths = (copy / "src", copy / "client" / "src", sysconfig.get_path("purelib"))
    found = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    Path(found, "copy.pth").write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")


def passes(copy: Path, tests: Sequence[str]) -> bool:
    """Run tests in the copy, on the copy's sources."""
    options = ("-q", "-x", "-n0", "--timeout=25", "-p", "no:cacheprovider")
    done = subprocess.run(
        [str(copy / ".python" / "bin" / "python"), "-m", "pytest", *options, *tests],
        cwd=copy,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        print(done.stdout[-2000:])
    return done.returncode == 0


def judge(copy: Path, line: Line) -> str:
    """Return what became of one mutation."""
    if not passes(copy, line.tests):
        return "BROKEN"
    path = copy / line.file
    sound = path.read_text(encoding="utf-8")
    if sound.count(line.old) != 1:
        return "STALE"
    path.write_text(sound.replace(line.old, line.new), encoding="utf-8")
    try:
        survived = passes(copy, line.tests[:1])
    finally:
        path.write_text(sound, encoding="utf-8")
    return "SURVIVED" if survived else "killed"


def chosen(arguments: Sequence[str]) -> list[Line]:
    """Return the lines that the arguments name; all without any."""
    words = [word for word in arguments if not word.startswith("--")]
    lines = [x for x in read_lines() if not ("--unproved" in arguments and x.executed)]
    return [x for x in lines if not words or any(w in f"{x.section} {x.says}" for w in words)]


def main() -> int:
    """Judge the chosen lines; return 1 where a mutation was not killed."""
    bad = 0
    with tempfile.TemporaryDirectory(prefix="matrix-") as directory:
        copy = Path(directory)
        copy_repository(copy)
        make_python(copy)
        for line in chosen(sys.argv[1:]):
            verdict = judge(copy, line)
            bad += verdict != "killed"
            print(f"{line.section} {line.says}: {verdict}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

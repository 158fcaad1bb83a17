"""Finds the native Codex binary, never the node wrapper around it.

The npm package puts a node script named ``codex`` on PATH that starts the real program as its
child: that costs 43 MiB and a process that a SIGKILL of the wrapper leaves alive. Invariant: the
answer is a file that exists and may be executed, and no choice that the user made (argument,
``CODEX_PATH``) is replaced in silence by another one. Neighbours: the stdio transport starts what
is found here.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from codex_app_server.checks import FLAG, TABLE, check_values, is_path, optional
from codex_app_server.errors import BinaryNotFound

__all__ = ["BinarySource", "CodexBinary", "resolve_binary"]

BinarySource = Literal["argument", "CODEX_PATH", "PATH", "npm", "wheel"]
"""Where a binary was found; ``npm`` is the program behind a wrapper on PATH."""

INSTALL_HINT = (
    "install it with `pip install openai-codex-cli-bin` or `npm install -g @openai/codex`, "
    "or set CODEX_PATH to the binary"
)
_WHEEL = "codex_cli_bin"
_VENDOR_LAYOUTS = ("bin/codex", "codex/codex")  # 0.169 and 0.125
_HELPER_FOLDERS = ("codex-path", "path")  # in the same order


@dataclass(frozen=True, slots=True)
class CodexBinary:
    """A Codex program that can be started.

    Attributes:
        path: Absolute path of the executable.
        source: Where it was found.
        path_dir: Folder with the programs that this release brings along (``rg``), to be put at
            the front of PATH; None where there is none.
    """

    path: Path
    source: BinarySource
    path_dir: Path | None = None

    @property
    def native(self) -> bool:
        """Whether it is a program itself and not a script that starts one."""
        return not _is_script(self.path)


def resolve_binary(
    codex: str | os.PathLike[str] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    wheel: bool = True,
) -> CodexBinary:
    """Find the binary: argument, ``CODEX_PATH``, PATH, the wheel ``openai-codex-cli-bin``.

    A script on PATH that no npm package explains (a version manager's shim) is taken only if
    nothing else is found.

    Args:
        codex: A file, a folder of an unpacked npm package, or a bare name to look up on PATH.
        environment: Read for ``CODEX_PATH`` and ``PATH`` (absent: no folder); the process's own by
            default.
        wheel: Whether the Python package counts.

    Raises:
        BinaryNotFound: There is none, or the given one does not exist or may not be executed.
    """
    check_values(
        codex=(codex, ("a path, a name or None", lambda one: one in (None, "") or is_path(one))),
        environment=(environment, optional(TABLE)),
        wheel=(wheel, FLAG),
    )
    environment = os.environ if environment is None else environment
    named = os.fspath(codex) if codex is not None else ""
    if named:
        return _chosen(named, "argument", environment)
    if environment.get("CODEX_PATH"):
        return _chosen(environment["CODEX_PATH"], "CODEX_PATH", environment)
    shims: list[Path] = []
    for candidate in _on_path("codex", environment):
        if not _is_script(candidate):
            return _found(candidate, "PATH")
        if (behind := _behind_wrapper(candidate)) is not None:
            return _found(behind, "npm")
        shims.append(candidate)
    if wheel and (bundled := _from_wheel()) is not None:
        return _found(bundled, "wheel")
    if shims:
        return _found(shims[0], "PATH")
    raise BinaryNotFound(f"no codex binary on PATH: {INSTALL_HINT}")


def _chosen(named: str, source: BinarySource, environment: Mapping[str, str]) -> CodexBinary:
    """Resolve what the user named; a wrapper is followed, any other script is respected."""
    what = f"the codex binary {named!r}" + (" of CODEX_PATH" if source == "CODEX_PATH" else "")
    if os.sep not in named:
        path = next(_on_path(named, environment), None)
        if path is None:
            raise BinaryNotFound(f"{what} is not on PATH: {INSTALL_HINT}")
    else:
        path = Path(named).expanduser().absolute()
    if path.is_dir():
        inside = next(_in_package(path), None)
        if inside is None:
            raise BinaryNotFound(f"{what} is a folder without vendor/*/bin/codex: {INSTALL_HINT}")
        return _found(inside, source)
    if not path.exists():
        raise BinaryNotFound(f"{what} does not exist: {INSTALL_HINT}")
    if not _executable(path):
        raise BinaryNotFound(f"{what} may not be executed: run `chmod +x {path}`")
    behind = _behind_wrapper(path) if _is_script(path) else None
    return _found(behind or path, source)


def _found(path: Path, source: BinarySource) -> CodexBinary:
    real = path.resolve()
    folders = (real.parent.parent / name for name in _HELPER_FOLDERS)
    layouts = {("bin", "codex-path"), ("codex", "path")}
    helpers = next(
        (one for one in folders if (real.parent.name, one.name) in layouts and one.is_dir()), None
    )
    return CodexBinary(path.absolute(), source, helpers)


def _on_path(name: str, environment: Mapping[str, str]) -> Iterator[Path]:
    """Yield the executables of a name; an empty entry, which means the cwd, is passed over."""
    for folder in environment.get("PATH", "").split(os.pathsep):
        candidate = Path(folder, name).absolute()
        if folder and _executable(candidate):
            yield candidate


def _executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def _behind_wrapper(script: Path) -> Path | None:
    """Return the program that npm's ``<package>/bin/codex.js`` starts, or None."""
    package = script.resolve().parent.parent
    return next(_in_package(package), None)


def _in_package(package: Path) -> Iterator[Path]:
    """Yield the executables of this platform in an npm package, its parts and its neighbours.

    The binary lies in the package itself, as in an unpacked archive, or in a package of the
    platform, which npm puts inside of it or beside it.
    """
    triple, platform_name = _platform()
    part = f"codex-{platform_name}"
    homes = (package, package / "node_modules/@openai" / part, package.parent / part)
    for home in homes:
        for layout in _VENDOR_LAYOUTS:
            candidate = home / "vendor" / triple / layout
            if _executable(candidate):
                yield candidate


def _platform() -> tuple[str, str]:
    """Return the platform as the folder below ``vendor`` and as npm's package name has it."""
    machine = platform.machine().lower()
    arm = machine in ("arm64", "aarch64")
    processor = "aarch64" if arm else "x86_64"
    short = "arm64" if arm else "x64"
    if sys.platform == "darwin":
        return f"{processor}-apple-darwin", f"darwin-{short}"
    return f"{processor}-unknown-linux-musl", f"linux-{short}"


def _from_wheel() -> Path | None:
    import importlib.util  # late: costly, and not always needed

    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "bin" / "codex"
    return path if _executable(path) else None

"""Where one daemon keeps its things, and the lock that makes it the only one there.

``locate`` works out the paths of an instance and touches nothing; ``StateDir.prepare`` makes the
directories, private to their owner; ``StateDir.lock`` takes the instance for this process. Commands
such as ``symphony status`` find a daemon by its workflow's path with ``find_instance``.

Invariant: the lock file is never deleted, so two daemons can't hold locks on two files of one name;
the kernel drops the lock with its holder, however that dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from symphony.errors import StateDirError
from symphony.model.clock import iso

SOCKET_PATH_LIMIT = 107
"""Bytes of a unix socket's path on Linux, without its closing zero."""

_LOCK_FILE = "lock"
_INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds an instance, as it wrote itself into the lock file.

    Attributes:
        start_ticks: Field 22 of ``/proc/<pid>/stat``; tells it from a later process of this pid.
        workflow: Absolute path of its workflow file.
        socket: Path of its control socket.
    """

    pid: int
    start_ticks: int
    boot_id: str
    started_wall: float
    workflow: str
    socket: str

    def is_alive(self) -> bool:
        """Tell whether exactly this process still runs on this machine."""
        return (
            self.boot_id == _boot_id()
            and self.start_ticks != 0
            and _start_ticks(self.pid) == self.start_ticks
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDir:
    """The paths of one instance.

    Attributes:
        instance: Its name: given, or made of the workflow's directory and path.
        workflow_path: Absolute path of its workflow file.
        root: The state directory; everything else but the caches lies in it.
        logs_root: Logs go to ``log/symphony.log`` below it.
        cache: For what can be made again.
        codex_home: Base of the private CODEX_HOME folders, never below the temp directory.
        warnings: Sentences for the operator about places that had to be chosen differently.
    """

    instance: str
    workflow_path: Path
    root: Path
    logs_root: Path
    socket: Path
    cache: Path
    codex_home: Path
    warnings: tuple[str, ...] = ()

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.root / "ledger.sqlite3"

    @property
    def transcripts(self) -> Path:
        """Directory of the recorded sessions."""
        return self.root / "transcripts"

    @property
    def lock_file(self) -> Path:
        """The file whose lock is the instance."""
        return self.root / _LOCK_FILE

    def prepare(self) -> None:
        """Make the directories, mode 0700, and check that they can be written.

        Raises:
            StateDirError: ``state_dir_unusable``, naming the path and the mend.
        """
        state, cache = "set XDG_STATE_HOME", "set XDG_CACHE_HOME"
        for directory, mend in (
            (self.root.parent, state),
            (self.root, state),
            (self.transcripts, state),
            (self.cache.parent, cache),
            (self.cache, cache),
            (self.codex_home, cache),
        ):
            _make_private(directory, f"{mend} to a directory of yours that can be written")
        if self.socket.parent != self.root:
            _make_private(
                self.socket.parent,
                "set XDG_RUNTIME_DIR to a directory of yours, or XDG_STATE_HOME to a shorter path",
                links=False,
            )

    def lock(self) -> InstanceLock:
        """Take the instance for this process; ``prepare`` comes first.

        Raises:
            StateDirError: ``already_running``, naming the holder.
        """
        return InstanceLock.acquire(
            self.lock_file,
            self._holder(),
            held="already runs this instance",
            mend="stop it, or give this one an instance name of its own",
        )

    def lock_workspaces(self, root: Path, scope: str) -> InstanceLock:
        """Take the issues of one tracker scope in one workspace root for this process.

        Two daemons with state directories of their own would otherwise work on the same issues in
        the same folders. Daemons of different scopes share a root without harm.

        Args:
            root: An existing directory.
            scope: Names the tracker and what is read of it; only its hash is written.

        Raises:
            StateDirError: ``already_running``, naming the holder; ``state_dir_unusable``.
        """
        digest = hashlib.sha256(scope.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        return InstanceLock.acquire(
            root / f".symphony-{digest}.lock",
            self._holder(),
            held=f"already works on these issues in the workspace root {root}",
            mend="stop it, or give this one another workspace.root and other issues",
        )

    def _holder(self) -> Holder:
        return Holder(
            pid=os.getpid(),
            start_ticks=_start_ticks(os.getpid()),
            boot_id=_boot_id(),
            started_wall=time.time(),
            workflow=str(self.workflow_path),
            socket=str(self.socket),
        )


class InstanceLock:
    """An exclusive lock on a file, held until ``release`` or the end of the process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, path: Path, holder: Holder, *, held: str, mend: str) -> Self:
        """Lock the file for ``holder``.

        Args:
            path: The lock file; made where it is missing.
            holder: Who asks, to be written into the file.
            held: What another holder does, for the error: "already runs this instance".
            mend: What the operator can do about it.

        Raises:
            StateDirError: ``already_running``, or ``state_dir_unusable`` where it can't be opened.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _unusable(path, error, "make its directory writable") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)
        except BlockingIOError as error:
            os.close(descriptor)
            raise _already_running(path, f"{held} for {holder.workflow}", mend) from error
        except OSError as error:
            os.close(descriptor)
            raise _unusable(path, error, "make room on its disk, or use a local disk") from error
        return cls(path, descriptor)

    def release(self) -> None:
        """Give the instance back. Safe to call twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def locate(
    workflow_path: Path,
    *,
    instance: str | None = None,
    logs_root: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> StateDir:
    """Work out where the daemon of this workflow file keeps its things; nothing is touched.

    Args:
        workflow_path: The workflow file; it need not exist.
        instance: A name to use instead of the one made of the path.
        logs_root: Where logs go instead of the state directory.
        env: Environment, the process's own by default.

    Raises:
        StateDirError: ``state_dir_unusable``: a bad name, no home directory, no usable cache.
    """
    env = os.environ if env is None else env
    workflow_path = absolute_workflow(workflow_path)
    name, root = _instance_root(workflow_path, instance, env)
    warnings: list[str] = []
    cache = _base(env, "XDG_CACHE_HOME", ".cache") / "symphony" / name
    codex_home = _codex_home(cache, env, warnings)
    return StateDir(
        instance=name,
        workflow_path=workflow_path,
        root=root,
        logs_root=root if logs_root is None else Path(os.path.abspath(logs_root)),
        socket=_socket_path(root, env),
        cache=cache,
        codex_home=codex_home,
        warnings=tuple(warnings),
    )


def find_instance(
    workflow_path: Path, *, instance: str | None = None, env: Mapping[str, str] | None = None
) -> Holder | None:
    """Return the live daemon of this workflow (its pid and control socket), or None.

    The socket is the one that the daemon wrote down, which may lie elsewhere than this process's
    environment would put it. The lock itself isn't tried: that could fail a daemon's start.
    """
    _name, root = _instance_root(absolute_workflow(workflow_path), instance, env or os.environ)
    holder = _read_holder(root / _LOCK_FILE)
    return holder if holder is not None and holder.is_alive() else None


def absolute_workflow(path: Path) -> Path:
    """Return the absolute path that names a workflow.

    Links in its directory are resolved. The file's own link is not: where a deployment swaps the
    file by changing a link, it stays the same workflow.
    """
    plain = Path(os.path.abspath(path))
    return Path(os.path.realpath(plain.parent)) / plain.name


def instance_name(workflow_path: Path) -> str:
    """Return ``<directory>-<12 hex digits of the path's hash>``."""
    path = absolute_workflow(workflow_path)
    slug = re.sub(r"[^a-z0-9]+", "-", path.parent.name.lower()).strip("-")[:24].strip("-")
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    return f"{slug or 'workflow'}-{digest}"


def _instance_root(
    workflow_path: Path, instance: str | None, env: Mapping[str, str]
) -> tuple[str, Path]:
    name = instance_name(workflow_path) if instance is None else _checked_name(instance)
    return name, _base(env, "XDG_STATE_HOME", ".local/state") / "symphony" / name


def _checked_name(name: str) -> str:
    if _INSTANCE.fullmatch(name) is None:
        raise StateDirError(
            "state_dir_unusable",
            f"the instance name {name!r} can't be a directory name; use up to 64 letters, digits, "
            "'.', '_' and '-', starting with a letter or digit",
        )
    return name


def _base(env: Mapping[str, str], variable: str, below_home: str) -> Path:
    """Return an XDG base directory; a relative value doesn't count (XDG base directory rules)."""
    value = env.get(variable, "")
    if os.path.isabs(value):
        return Path(value)
    home = env.get("HOME", "")
    if os.path.isabs(home):
        return Path(home) / below_home
    own = _password_home()
    if own is None:
        raise StateDirError(
            "state_dir_unusable",
            f"there is no home directory; set {variable} (or HOME) to an absolute path",
        )
    return own / below_home


def _password_home() -> Path | None:
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None
    return Path(home) if os.path.isabs(home) else None


def _codex_home(cache: Path, env: Mapping[str, str], warnings: list[str]) -> Path:
    """Choose the base of private CODEX_HOME folders.

    Codex refuses to put its sandbox helper below a temp directory, and then every sandboxed
    command fails, so such a place is never chosen.
    """
    wanted = cache / "codex-home"
    temp_dirs = _temp_dirs(env)
    if not _is_below(wanted, temp_dirs):
        return wanted
    own = _password_home()
    if own is not None:
        instead = own / ".cache" / "symphony" / cache.name / "codex-home"
        if not _is_below(instead, temp_dirs):
            warnings.append(
                f"the cache directory {cache} is below a temp directory, where Codex's sandbox "
                f"does not work; {instead} is used for its homes; set XDG_CACHE_HOME to choose"
            )
            return instead
    raise StateDirError(
        "state_dir_unusable",
        f"the cache directory {cache} is below a temp directory, where Codex's sandbox does not "
        "work; set XDG_CACHE_HOME to a directory outside of the temp directory",
    )


def _temp_dirs(env: Mapping[str, str]) -> tuple[Path, ...]:
    places = {"/tmp", env.get("TMPDIR") or "/tmp", tempfile.gettempdir()}
    return tuple(Path(os.path.realpath(place)) for place in places if os.path.isabs(place))


def _is_below(path: Path, directories: tuple[Path, ...]) -> bool:
    real = Path(os.path.realpath(path))
    return any(real.is_relative_to(directory) for directory in directories)


def _socket_path(root: Path, env: Mapping[str, str]) -> Path:
    """Return a control socket's path that fits into a socket address."""
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    candidates = [root / "control.sock"]
    runtime = env.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and os.path.isdir(runtime):
        candidates.append(Path(runtime) / "symphony" / f"{digest}.sock")
    candidates.append(Path("/tmp") / f"symphony-{os.getuid()}" / f"{digest}.sock")
    return next(path for path in candidates if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT)


def _make_private(directory: Path, mend: str, *, links: bool = True) -> None:
    """Make a directory of mode 0700 that is ours and can be written.

    Args:
        directory: It and its parents are made where they are missing.
        mend: What the operator can do where it can't be used.
        links: False where others can write beside it: a link there may be a trap.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not links and directory.is_symlink():
            raise PermissionError("it is a link, which another user may have planted")
        found = directory.stat()
        if found.st_uid != os.getuid():
            raise PermissionError(f"it belongs to user {found.st_uid}")
        if found.st_mode & 0o077:
            directory.chmod(0o700)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise _unusable(directory, error, mend) from error


def _unusable(path: Path, error: OSError, mend: str) -> StateDirError:
    reason = error.strerror or str(error)
    return StateDirError("state_dir_unusable", f"can't use {path}: {reason}; {mend}")


def _already_running(path: Path, held: str, mend: str) -> StateDirError:
    holder = _read_holder(path)
    if holder is None:
        who = "another process"
    else:
        who = (
            f"another symphony (pid {holder.pid}, started {iso(holder.started_wall)}, "
            f"workflow {holder.workflow})"
        )
    return StateDirError(
        "already_running",
        f"{who} {held} and holds {path}; {mend}",
    )


def _read_holder(path: Path) -> Holder | None:
    """Read who wrote the lock file; None where it is missing, empty or not ours."""
    try:
        return _holder(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _holder(fields: Mapping[str, object]) -> Holder:
    return Holder(
        pid=int(str(fields["pid"])),
        start_ticks=int(str(fields["start_ticks"])),
        boot_id=str(fields["boot_id"]),
        started_wall=float(str(fields["started_wall"])),
        workflow=str(fields["workflow"]),
        socket=str(fields["socket"]),
    )


def _start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 where it does not run."""
    try:
        # The name in parentheses may itself hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == b"Z" else int(fields[19])


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""

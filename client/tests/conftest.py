"""A scripted app-server in memory, the real binaries, and a watch on leftover processes."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import runpy
import select
import shutil
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from codex_app_server import BinaryNotFound, ClientInfo, Connection, SubprocessTransport
from codex_app_server.binary import resolve_binary
from codex_app_server.cleanup import MARK, sweep
from codex_app_server.home import prepare_home, provider_config, write_config

from symphony.demo.model_server import ModelServer
from symphony.demo.script import IssueScript, Script, Turn

# looptime asks for a loop in plain tests too, which makes one that nobody closes before 3.12.
asyncio.set_event_loop(None)

ROOT = Path(__file__).resolve().parents[2]
THREAD = "01a1fd25-e09e-74c1-943c-73e02be4ab8b"
TURN = "01a1fd25-e0b6-7742-9de8-d610c8205536"
MODEL = "gpt-5.5"
Message = dict[str, Any]


class FakeServer:
    """A transport whose other end is a table of answers, and what the test feeds.

    ``answers`` maps a method to a function of the request that returns messages; they arrive
    as one chunk. A method without an entry is never answered.
    """

    thread_id = THREAD
    turn_id = TURN

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.closed = False
        self.returncode: int | None = None
        self.answers: dict[str, Callable[[Message], list[Any]]] = {
            "initialize": lambda m: [self.reply(m, {"userAgent": "demo x/y/0.169.0 (Debian)"})],
            "initialized": lambda m: [],
            "thread/start": lambda m: [self.reply(m, {"thread": {"id": THREAD}, "model": "m"})],
            "thread/resume": lambda m: [self.reply(m, {"thread": {"id": m["params"]["threadId"]}})],
            "turn/start": lambda m: [self.reply(m, {"turn": {"id": TURN, "status": "inProgress"}})],
            "turn/interrupt": lambda m: [self.reply(m, {}), self.ended("interrupted")],
            "thread/backgroundTerminals/clean": lambda m: [self.reply(m, {})],
        }
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._changed = asyncio.Condition()

    @staticmethod
    def reply(request: Message, result: Any) -> Message:
        return {"id": request["id"], "result": result}

    @staticmethod
    def event(method: str, **params: Any) -> Message:
        ids = {"threadId": THREAD, "turnId": TURN}
        return {"method": method, "params": {**ids, **params}, "emittedAtMs": 1}

    def delta(self, text: str, item: str = "msg_1", **ids: Any) -> Message:
        return self.event("item/agentMessage/delta", itemId=item, delta=text, **ids)

    def message(self, text: str, item: str = "msg_1", turn: str = TURN, **extra: Any) -> Message:
        value = {"type": "agentMessage", "id": item, "text": text, **extra}
        return self.event("item/completed", item=value, turnId=turn)

    def ended(
        self, status: str = "completed", *, turn: str = TURN, thread: str = THREAD, **members: Any
    ) -> Message:
        value = {"id": turn, "status": status, "items": [], "durationMs": 7, **members}
        return {"method": "turn/completed", "params": {"threadId": thread, "turn": value}}

    def feed(self, *messages: Any) -> None:
        """Let messages (or bytes, as they are) arrive in one chunk."""
        self._chunks.put_nowait(b"".join(map(_line, messages)))

    def feed_bytes(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self._chunks.put_nowait(chunk)

    def end(self) -> None:
        self._chunks.put_nowait(b"")

    def requests(self, method: str) -> list[Message]:
        return [message for message in self.sent if message.get("method") == method]

    async def until(self, condition: Callable[[], Any]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)

    async def replied(self, request_id: Any) -> Message:
        """Wait for our answer to a server request."""

        def found() -> list[Message]:
            return [m for m in self.sent if "method" not in m and m.get("id") == request_id]

        await self.until(found)
        return found()[0]

    async def send(self, data: bytes) -> None:
        for line in data.splitlines():
            message = json.loads(line)
            async with self._changed:
                self.sent.append(message)
                self._changed.notify_all()
            answer = self.answers.get(message.get("method", ""))
            if answer is not None and (messages := answer(message)):
                self.feed(*messages)

    async def receive(self) -> bytes:
        return await self._chunks.get()

    async def exit_status(self, timeout_s: float) -> int | None:
        return self.returncode

    async def aclose(self) -> None:
        self.closed = True


def _line(message: Any) -> bytes:
    return message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n"


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


Connect = Callable[..., Awaitable[Connection]]


@pytest.fixture
async def connect(server: FakeServer) -> AsyncIterator[Connect]:
    """Opens connections to ``server`` that are closed after the test."""
    opened: list[Connection] = []

    async def connect(**options: Any) -> Connection:
        connection = await Connection.open(server, ClientInfo("test", "1"), **options)
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        await connection.aclose()


def _binary(version: str) -> Path:
    try:
        if version == "wheel":
            return resolve_binary(environment={"PATH": ""}).path
        return resolve_binary(ROOT / ".codex-binaries" / version).path
    except (BinaryNotFound, OSError) as error:
        pytest.skip(f"codex {version} is not there ({error})")


@pytest.fixture(
    params=["0.169.0", "wheel", pytest.param("0.125.0", marks=pytest.mark.slow)],
)
def codex_binary(request: pytest.FixtureRequest) -> Path:
    """One native binary of each version that is at hand; the wheel's is 0.163.0."""
    return _binary(str(request.param))


def _cache() -> Path:
    base = Path(os.environ.get("SYMPHONY_TEST_CACHE", "~/.cache/symphony-tests")).expanduser()
    base.mkdir(parents=True, exist_ok=True)
    return base


@pytest.fixture
def cache_dir() -> Iterator[Path]:
    """A directory outside the temp directory, where a CODEX_HOME may lie."""
    directory = Path(tempfile.mkdtemp(dir=_cache()))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def callback_port() -> Iterator[None]:
    """Holds the port that browsers come back to, which all Codex processes of a machine share."""
    with (_cache() / "login-port.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _commands_with(marker: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker in (entry / "cmdline").read_bytes().decode("utf-8", "replace"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return [pid for pid in found if pid != os.getpid()]


@pytest.fixture
def commands_with() -> Callable[[str], list[int]]:
    """Returns the pids whose command line contains a text."""
    return _commands_with


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Awaitable[None]]:
    """Returns ``await eventually(condition)``: gives way until it holds, 10 s at most."""

    async def wait(condition: Callable[[], Any]) -> None:
        for pause in (*[0.0] * 1000, *[0.01] * 1000):
            if condition():
                return
            await asyncio.sleep(pause)
        pytest.fail("the condition never held")

    return wait


@pytest.fixture
def pass_time() -> Callable[[float], Awaitable[None]]:
    """Returns ``await pass_time(seconds)`` for tests under virtual time."""
    return asyncio.sleep


_tls: dict[str, Any] = runpy.run_path(str(Path(__file__).parent / "servers/tls_front.py"))


@pytest.fixture
def front() -> type[Any]:
    """Returns `Front` of ``servers/tls_front.py``."""
    kind: type[Any] = _tls["Front"]
    return kind


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Returns an `Authority` of ``servers/tls_front.py``."""
    if shutil.which("openssl") is None:
        pytest.skip("certificates for TLS need the program openssl")
    return _tls["Authority"](tmp_path_factory.mktemp("authority"))


class RealCodex:
    """A real app-server with a scripted model: opens connections, each to a process of its own.

    ``workspace`` is the directory of the agents; prompts name a script as ``Issue: <name>``.
    """

    def __init__(self, binary: Path, folder: Path, base_url: str, model: ModelServer) -> None:
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        self.home = prepare_home(folder / "codex", seed=False)
        write_config(self.home, provider_config(base_url, model=MODEL))
        self.model = model
        self.transports: list[SubprocessTransport] = []
        self.binary = binary
        self._connections: list[Connection] = []
        user = folder / "home"
        user.mkdir()
        self.env = {"PATH": os.environ["PATH"], "HOME": str(user), "CODEX_HOME": str(self.home)}
        self._run = uuid.uuid4().hex
        self.env[MARK] = self._run

    async def open(self, *arguments: str, **options: Any) -> Connection:
        transport = await SubprocessTransport.spawn(
            [str(self.binary), *arguments, "app-server"], cwd=self.workspace, env=self.env
        )
        self.transports.append(transport)
        connection = await Connection.open(transport, ClientInfo("test", "1"), **options)
        self._connections.append(connection)
        return connection

    async def spawn(self, *words: str) -> SubprocessTransport:
        """Start ``codex`` with these words, in the workspace."""
        argv = [str(self.binary), *words]
        transport = await SubprocessTransport.spawn(argv, cwd=self.workspace, env=self.env)
        self.transports.append(transport)
        return transport

    async def free_url(self) -> str:
        """An address of the WebSocket kind that nobody listens on."""
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return f"ws://127.0.0.1:{port}"

    async def aclose(self) -> None:
        for connection in self._connections:
            await connection.aclose()
        for transport in self.transports:
            await transport.aclose()
        # What a killed server leaves running is ended here, as `Codex.aclose` does it.
        await asyncio.to_thread(sweep, self._run)


@pytest.fixture
async def codex(codex_binary: Path, cache_dir: Path) -> AsyncIterator[Callable[..., Any]]:
    """Returns ``await codex(name=turn, ...)``: a `RealCodex` whose model follows these turns."""
    async with _real_codex(lambda: codex_binary, cache_dir) as start:
        yield start


@pytest.fixture
async def newest_codex(cache_dir: Path) -> AsyncIterator[Callable[..., Any]]:
    """As `codex`, with the newest binary only; skips not before it is called."""
    async with _real_codex(lambda: _binary("0.169.0"), cache_dir) as start:
        yield start


@pytest.fixture
async def wheel_codex(cache_dir: Path) -> AsyncIterator[Callable[..., Any]]:
    """As `newest_codex`, with the binary of the Python package."""
    async with _real_codex(lambda: _binary("wheel"), cache_dir) as start:
        yield start


@asynccontextmanager
async def _real_codex(
    binary: Callable[[], Path], folder: Path
) -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def start(**turns: Turn) -> RealCodex:
            issues = {name: IssueScript((one,)) for name, one in turns.items()}
            model = await stack.enter_async_context(ModelServer(Script(issues)))
            real = RealCodex(binary(), folder, await model.start(), model)
            stack.push_async_callback(real.aclose)
            return real

        yield start


PR_SET_CHILD_SUBREAPER = 36
GONE_S = 10.0


def _adopt_orphans(wanted: bool) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Fails a test after which a process that it started is alive, however it was forked.

    Processes that lose their parent become ours for so long: no leak escapes by a double fork. The
    daemon's tests share this process, and their orphans must be nobody's.
    """
    before = _children()
    _adopt_orphans(True)
    try:
        yield
        assert _left_since(before, GONE_S) == {}
    finally:
        _adopt_orphans(False)


@pytest.fixture
def processes_left() -> Callable[[], dict[int, str]]:
    """Returns what says which processes of this test are alive now, with their commands."""
    before = _children()
    return lambda: _left_since(before, 0.0)


def _left_since(before: set[int], limit_s: float) -> dict[int, str]:
    """Return the new processes below us that still run; those that are ending have some time.

    Children of children are named by their ancestor, or are ours once that has ended.
    """
    end = time.monotonic() + limit_s
    while living := _living(_children() - before):
        pid = next(iter(living))
        left_s = end - time.monotonic()
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if left_s <= 0 or not select.select([handle], [], [], left_s)[0]:
                return living
        finally:
            os.close(handle)
    return {}


def _living(pids: set[int]) -> dict[int, str]:
    """Return those that run, with their commands; those that have ended are reaped."""
    found = {}
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                found[pid] = _command(pid)
    return found


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return "?"
    return words.decode("utf-8", "replace").strip()


def _children() -> set[int]:
    found: set[int] = set()
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        try:
            found |= set(map(int, (task / "children").read_text().split()))
        except OSError:
            continue
    return found

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from codex_app_server.binary import CodexBinary, resolve_binary
from codex_app_server.errors import BinaryNotFound, CodexError

VENDOR = {"x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}
TRIPLE = f"{VENDOR[os.uname().machine]}-unknown-linux-musl"
PLATFORM = "linux-x64" if TRIPLE.startswith("x86") else "linux-arm64"

pytestmark = pytest.mark.skipif(os.uname().sysname != "Linux", reason="the trees are Linux ones")


def program(path: Path, content: bytes = b"\x7fELF") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def script(path: Path) -> Path:
    return program(path, b"#!/usr/bin/env node\n")


def npm_wrapper(prefix: Path) -> Path:
    """What npm installs: a link in bin/ to the script of the package."""
    package = prefix / "lib/node_modules/@openai/codex"
    script(package / "bin/codex.js")
    (prefix / "bin").mkdir()
    (prefix / "bin/codex").symlink_to("../lib/node_modules/@openai/codex/bin/codex.js")
    return package


def on_path(*folders: Path) -> dict[str, str]:
    return {"PATH": os.pathsep.join(map(str, folders))}


def find(environment: dict[str, str]) -> CodexBinary:
    return resolve_binary(environment=environment, wheel=False)


def test_an_argument_comes_before_the_environment(tmp_path: Path):
    given, other = program(tmp_path / "given"), program(tmp_path / "other")
    environment = {"CODEX_PATH": str(other)}
    assert resolve_binary(given, environment=environment) == CodexBinary(given, "argument")
    assert resolve_binary(environment=environment) == CodexBinary(other, "CODEX_PATH")


def test_codex_path_comes_before_path(tmp_path: Path):
    chosen, other = program(tmp_path / "a/codex"), program(tmp_path / "b/codex")
    found = find({"CODEX_PATH": str(chosen), **on_path(other.parent)})
    assert (found.path, found.source) == (chosen, "CODEX_PATH")


def test_a_native_binary_on_path_is_taken_as_it_is(tmp_path: Path):
    native = program(tmp_path / "codex")
    found = find(on_path(tmp_path / "absent", tmp_path))
    assert found == CodexBinary(native, "PATH")
    assert found.native


def test_a_bare_name_is_looked_up_on_path(tmp_path: Path):
    nightly = program(tmp_path / "codex-nightly")
    assert resolve_binary("codex-nightly", environment=on_path(tmp_path)).path == nightly


@pytest.mark.parametrize(
    "vendor",
    [
        "vendor",
        f"node_modules/@openai/codex-{PLATFORM}/vendor",
        f"../codex-{PLATFORM}/vendor",
    ],
)
@pytest.mark.parametrize(
    ("layout", "helpers"), [("bin/codex", "codex-path"), ("codex/codex", "path")]
)
def test_the_program_behind_the_npm_wrapper_is_found(
    tmp_path: Path, vendor: str, layout: str, helpers: str
):
    package = npm_wrapper(tmp_path)
    native = program(package / vendor / TRIPLE / layout)
    rg = program(package / vendor / TRIPLE / helpers / "rg")
    found = find(on_path(tmp_path / "bin"))
    assert found.source == "npm"
    assert found.path.samefile(native)
    assert found.path_dir is not None
    assert found.path_dir.samefile(rg.parent)


def test_an_argument_that_is_the_wrapper_gives_the_program_behind_it(tmp_path: Path):
    package = npm_wrapper(tmp_path)
    native = program(package / "vendor" / TRIPLE / "bin/codex")
    found = resolve_binary(tmp_path / "bin/codex", environment={})
    assert (found.path.resolve(), found.source) == (native.resolve(), "argument")


def test_an_argument_may_be_the_folder_of_an_unpacked_package(tmp_path: Path):
    native = program(tmp_path / "vendor" / TRIPLE / "bin/codex")
    assert resolve_binary(tmp_path, environment={}).path == native


def test_a_script_that_the_user_names_is_respected(tmp_path: Path):
    own = script(tmp_path / "my-codex")
    found = resolve_binary(str(own), environment={})
    assert found.path == own
    assert not found.native


def test_a_script_on_path_is_only_the_last_resort(tmp_path: Path):
    shim, native = script(tmp_path / "a/codex"), program(tmp_path / "b/codex")
    assert find(on_path(shim.parent, native.parent)).path == native
    assert find(on_path(shim.parent)).path == shim


@pytest.mark.parametrize("source", ["argument", "CODEX_PATH"])
def test_a_named_binary_that_is_absent_is_an_error_even_if_path_has_one(
    tmp_path: Path, source: str
):
    program(tmp_path / "codex")
    gone = str(tmp_path / "gone/codex")
    environment = on_path(tmp_path) | ({"CODEX_PATH": gone} if source == "CODEX_PATH" else {})
    with pytest.raises(BinaryNotFound, match=r"gone/codex.* does not exist") as caught:
        resolve_binary(gone if source == "argument" else None, environment=environment)
    assert ("CODEX_PATH" in str(caught.value).split(":")[0]) == (source == "CODEX_PATH")


def test_a_file_that_may_not_be_executed_says_so(tmp_path: Path):
    path = program(tmp_path / "codex")
    path.chmod(0o644)
    with pytest.raises(BinaryNotFound, match=f"chmod \\+x {path}"):
        resolve_binary(path, environment={})


def test_a_folder_without_a_binary_says_so(tmp_path: Path):
    with pytest.raises(BinaryNotFound, match="is a folder without vendor"):
        resolve_binary(tmp_path, environment={})


def test_nothing_anywhere_names_what_to_install(tmp_path: Path):
    with pytest.raises(CodexError, match=r"pip install openai-codex-cli-bin.*npm install"):
        find(on_path(tmp_path))


def test_a_binary_in_the_current_directory_is_not_on_an_empty_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    program(tmp_path / "codex")
    monkeypatch.chdir(tmp_path)
    for environment in ({}, {"PATH": ""}, {"PATH": ":"}):
        with pytest.raises(BinaryNotFound):
            find(environment)


@pytest.mark.codex
def test_the_wheel_is_found_when_path_has_none(tmp_path: Path):
    pytest.importorskip("codex_cli_bin", reason="openai-codex-cli-bin is not installed")
    found = resolve_binary(environment=on_path(tmp_path))
    assert found.source == "wheel"
    assert found.native
    assert found.path_dir is not None
    assert (found.path_dir / "rg").exists()
    version = subprocess.run([found.path, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("codex-cli ")

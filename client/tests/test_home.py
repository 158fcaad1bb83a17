from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from codex_app_server.errors import CodexError
from codex_app_server.home import (
    HomeError,
    login_home,
    prepare_home,
    provider_config,
    write_config,
)

CACHE = Path(os.environ.get("SYMPHONY_TEST_CACHE", "~/.cache/symphony-tests")).expanduser()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that is not below the temp directory."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=CACHE) as folder:
        yield Path(folder)


@pytest.fixture
def login(place: Path) -> Path:
    home = place / "user/.codex"
    home.mkdir(parents=True)
    (home / "auth.json").write_text('{"token": 1}')
    (home / "config.toml").write_text('model = "m"\n')
    return home


def test_a_home_is_private_and_shares_the_login(place: Path, login: Path):
    home = prepare_home(place / "deep/home", environment={"HOME": str(login.parent)})
    assert home == place / "deep/home"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert (home / "auth.json").readlink() == login / "auth.json"
    assert (home / "config.toml").read_text() == 'model = "m"\n'
    assert not (home / "config.toml").is_symlink()


def test_a_home_that_others_may_read_is_closed(place: Path):
    (place / "home").mkdir(mode=0o755)
    home = prepare_home(place / "home", seed=False)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_login_that_is_renewed_is_seen_through_the_link(place: Path, login: Path):
    home = prepare_home(place / "home", source=login)
    (login / "auth.json").write_text('{"token": 2}')
    assert (home / "auth.json").read_text() == '{"token": 2}'


def test_preparing_again_follows_the_source_and_keeps_the_rest(place: Path, login: Path):
    home = prepare_home(place / "home", source=login)
    (home / "sessions").mkdir()
    (login / "config.toml").write_text('model = "n"\n')
    (login / "auth.json").unlink()
    prepare_home(home, source=login)
    assert (home / "config.toml").read_text() == 'model = "n"\n'
    assert not (home / "auth.json").is_symlink()
    assert (home / "sessions").is_dir()


def test_a_separate_login_of_the_home_is_kept(place: Path, login: Path):
    home = prepare_home(place / "home", seed=False)
    (home / "auth.json").write_text("own")
    prepare_home(home, source=login)
    assert (home / "auth.json").read_text() == "own"


def test_a_home_is_not_seeded_from_itself(login: Path):
    prepare_home(login, source=login)
    assert (login / "auth.json").read_text() == '{"token": 1}'
    assert not (login / "auth.json").is_symlink()


def test_a_source_without_login_gives_an_empty_home(place: Path):
    home = prepare_home(place / "home", source=place / "nobody")
    assert list(home.iterdir()) == []


def test_the_login_home_is_codex_home_or_the_users():
    assert login_home({"CODEX_HOME": "/c", "HOME": "/u"}) == Path("/c")
    assert login_home({"HOME": "/u"}) == Path("/u/.codex")


def test_a_home_below_the_temp_directory_is_refused(tmp_path: Path, place: Path):
    with TemporaryDirectory() as folder, pytest.raises(HomeError, match="temp directory"):
        prepare_home(Path(folder, "home"), seed=False)
    with pytest.raises(CodexError, match=f"temp directory {place}"):
        prepare_home(place / "home", seed=False, environment={"TMPDIR": str(place)})


def test_a_link_into_the_temp_directory_is_refused(place: Path):
    with TemporaryDirectory() as folder:
        (place / "link").symlink_to(folder)
        with pytest.raises(HomeError, match="temp directory"):
            prepare_home(place / "link/home", seed=False)


def test_a_file_in_the_way_is_named(place: Path):
    (place / "home").write_text("")
    with pytest.raises(HomeError, match=f"cannot use {place}/home as CODEX_HOME"):
        prepare_home(place / "home", seed=False)


def test_a_configuration_survives_its_way_through_toml(place: Path):
    config = provider_config(
        "http://127.0.0.1:1/v1",
        model="scripted",
        provider="a provider",
        provider_options={"request_max_retries": 0, "stream_idle_timeout_ms": 1.5},
        settings={
            "features": {"shell_snapshot": False},
            "note": 'tab\t "quoted" \\ \x7f é 🎻\n',
            "roots": ["/a", "/b c"],
        },
    )
    path = write_config(place, config)
    assert tomllib.loads(path.read_text()) == config
    assert config["model_providers"]["a provider"]["wire_api"] == "responses"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(place.iterdir()) == [path]


@pytest.mark.parametrize("value", [None, float("nan"), {1}, "\ud800"])
def test_a_value_that_toml_cannot_hold_is_named(place: Path, value: object):
    with pytest.raises(HomeError, match=r"config\.toml: a\.b"):
        write_config(place, {"a": {"b": value}})
    assert list(place.iterdir()) == []

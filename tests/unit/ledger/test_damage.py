import sqlite3
from contextlib import closing

import pytest

from symphony.errors import LedgerError
from symphony.ledger import schema
from symphony.scheduler.commands import SaveClaim

ONE_VERSION_MORE = (*schema.MIGRATIONS, "ALTER TABLE runs ADD COLUMN later TEXT;")


async def fill(ledger, make_issue, count=200):
    for number in range(count):
        issue = make_issue(number, description="y" * 500)
        await ledger.save(
            SaveClaim(kind="blocked", issue=issue, attempt=None, retry_kind=None, error="e")
        )


async def assert_works(ledger, make_issue):
    await fill(ledger, make_issue, 1)
    assert len((await ledger.load()).restored.claims) == 1


@pytest.mark.parametrize(
    "content",
    [b"this is not a database " * 100, b"SQLite format 3\x00" + b"\xff" * 4096, b"\x00" * 8192],
    ids=["text", "broken header", "zeros"],
)
async def test_a_garbage_file_is_set_aside_and_said_so(path, open_ledger, make_issue, content):
    path.write_bytes(content)
    ledger = await open_ledger()
    [aside] = path.parent.glob("ledger.sqlite3.damaged-2027*Z")
    assert aside.read_bytes() == content
    assert str(aside) in ledger.notice
    await assert_works(ledger, make_issue)


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.02])
async def test_a_truncated_file_is_set_aside(path, open_ledger, make_issue, keep):
    first = await open_ledger()
    await fill(first, make_issue)
    await first.aclose()
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    ledger = await open_ledger()
    assert "damaged" in ledger.notice
    await assert_works(ledger, make_issue)


async def test_a_broken_page_in_the_middle_is_found_at_the_start(path, open_ledger, make_issue):
    first = await open_ledger()
    await fill(first, make_issue)
    await first.aclose()
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = b"\xaa" * 4096
    path.write_bytes(content)
    assert "damaged" in (await open_ledger()).notice


async def test_a_database_of_something_else_is_set_aside(path, open_ledger, make_issue):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name)")
    assert "damaged" in (await open_ledger()).notice


async def test_an_empty_file_is_filled_with_a_notice(path, open_ledger, make_issue):
    path.touch()
    ledger = await open_ledger()
    assert "empty" in ledger.notice
    await assert_works(ledger, make_issue)


async def test_a_write_ahead_log_without_its_ledger_is_kept(path, open_ledger):
    wal = path.with_name("ledger.sqlite3-wal")
    wal.write_bytes(b"frames of a lost file")
    ledger = await open_ledger()
    assert "missing" in ledger.notice
    [aside] = path.parent.glob("*.damaged-*-wal")
    assert aside.read_bytes() == b"frames of a lost file"


async def test_a_second_damage_in_the_same_second_keeps_both_files(path, open_ledger):
    for content in (b"first " * 1000, b"second " * 1000):
        path.write_bytes(content)
        await (await open_ledger()).aclose()
    assert len(list(path.parent.glob("ledger.sqlite3.damaged-*"))) == 2


async def test_a_newer_ledger_is_refused_and_left_alone(path, open_ledger, make_issue):
    await fill(first := await open_ledger(), make_issue, 1)
    await first.aclose()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")
    before = path.read_bytes()
    with pytest.raises(LedgerError) as caught:
        await open_ledger()
    assert caught.value.category == "ledger_too_new"
    assert "99" in caught.value.message
    assert "upgrade" in caught.value.message
    assert path.read_bytes() == before


async def test_a_path_that_cannot_be_opened_is_named_with_its_mend(path, open_ledger):
    path.mkdir()
    with pytest.raises(LedgerError, match="make its directory writable") as caught:
        await open_ledger()
    assert str(path) in caught.value.message


async def test_a_migration_keeps_the_rows_and_makes_a_backup(path, open_ledger, make_issue):
    await fill(first := await open_ledger(), make_issue, 3)
    await first.aclose()
    opened = schema.open_file(path, now_wall=1.8e9, migrations=ONE_VERSION_MORE)
    with closing(opened.connection) as connection:
        assert connection.execute("SELECT count(*) FROM claims").fetchone() == (3,)
        assert connection.execute("PRAGMA user_version").fetchone() == (len(ONE_VERSION_MORE),)
        connection.execute("SELECT later FROM runs")
    [backup] = path.parent.glob(f"*.before-v{len(ONE_VERSION_MORE)}-*")
    assert str(backup) in opened.notice
    with closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)
        assert connection.execute("SELECT count(*) FROM claims").fetchone() == (3,)


async def test_a_migration_that_fails_leaves_the_earlier_version_whole(
    path, open_ledger, make_issue
):
    await fill(first := await open_ledger(), make_issue, 1)
    await first.aclose()
    broken = (*ONE_VERSION_MORE, "CREATE TABLE fine (x);\nINSERT INTO missing VALUES (1);")
    with pytest.raises(LedgerError, match="missing"):
        schema.open_file(path, now_wall=1.8e9, migrations=broken)
    again = await open_ledger()
    assert again.notice is None
    assert len((await again.load()).restored.claims) == 1


@pytest.mark.parametrize(
    ("statements", "fault"),
    [
        ("", "it is empty"),
        ("CREATE TABLE notes (text);", "it holds tables but no version"),
        (
            f"CREATE TABLE notes (text); PRAGMA user_version={len(schema.MIGRATIONS)};",
            "it has no table ",
        ),
        ("CREATE TABLE notes (text); PRAGMA user_version=1;", None),
    ],
    ids=["empty", "another program's", "tables lost", "of an older Symphony"],
)
def test_what_a_start_would_set_aside_is_told_without_a_change(path, statements, fault):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)
        for whole in (True, False):
            faults = schema.faults_of(connection, whole=whole)
            assert faults == [] if fault is None else faults[0].startswith(fault)

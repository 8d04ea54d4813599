"""What only the embedded store can meet: kill -9, a second process, and files that are not ours."""

from __future__ import annotations

import pathlib
import signal
import sqlite3
import subprocess
import sys

import pytest

from controlplane.store import sqlite
from controlplane.store.embedded import EmbeddedStore
from controlplane.store.protocol import CompactedError, Put, StoreError
from tests.fakes.clock import FakeClock

WRITER = """
import asyncio, pathlib, sys
from controlplane.store.embedded import EmbeddedStore
from controlplane.store.protocol import Put

async def main():
    store = await EmbeddedStore.open(pathlib.Path(sys.argv[1]), lambda: 0.0)
    number = 0
    while True:
        await store.txn([], [Put(f"a/{number}", b"x" * 1000), Put(f"b/{number}", b"")])
        print(number, flush=True)
        number += 1

asyncio.run(main())
"""


def start_writer(path: pathlib.Path) -> subprocess.Popen[str]:
    """A process that writes pairs of keys and says the number of each pair that is committed."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )


async def open_store(path: pathlib.Path) -> EmbeddedStore:
    return await EmbeddedStore.open(path, FakeClock())


async def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "store.db"
    for _ in range(3):
        with start_writer(path) as writer:
            assert writer.stdout is not None
            said = [writer.stdout.readline() for _ in range(20)]
            writer.send_signal(signal.SIGKILL)
            said += writer.stdout.readlines()
        store = await open_store(path)
        written = {entry.key for entry in (await store.range("")).entries}
        await store.close()

        numbers = [int(line) for line in said if line.endswith("\n")]
        assert {f"a/{number}" for number in numbers} <= written
        assert {key[2:] for key in written if key.startswith("a/")} == {
            key[2:] for key in written if key.startswith("b/")
        }


async def test_a_second_process_gets_one_sentence(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "store.db"
    with start_writer(path) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(StoreError, match="in use by another process"):
            await open_store(path)
        writer.kill()


async def test_a_foreign_database_is_left_alone(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE people (name TEXT)")
    other.close()
    before = path.read_bytes()

    with pytest.raises(StoreError, match="belongs to another program"):
        await open_store(path)

    assert path.read_bytes() == before


async def test_a_newer_format_is_not_touched(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "store.db"
    await (await open_store(path)).close()
    with sqlite3.connect(path) as newer:
        newer.execute(f"PRAGMA user_version = {sqlite.SCHEMA_VERSION + 1}")
    newer.close()
    with pytest.raises(StoreError, match="newer Trimtab"):
        await open_store(path)


@pytest.mark.parametrize(
    ("start", "junk"), [(0, b"not a database at all" * 100), (4096, b"\xa5" * 8192)]
)
async def test_a_broken_file_is_named(tmp_path: pathlib.Path, start: int, junk: bytes) -> None:
    path = tmp_path / "store.db"
    store = await open_store(path)
    for number in range(200):
        await store.txn([], [Put(f"k{number}", b"v" * 100)])
    await store.close()
    content = path.read_bytes()
    path.write_bytes(content[:start] + junk + content[start + len(junk) :])

    with pytest.raises(StoreError, match=r"store\.db can't be read \(.*\); move it away"):
        await open_store(path)


async def test_a_place_where_no_file_can_be(tmp_path: pathlib.Path) -> None:
    with pytest.raises(StoreError, match=r"cannot open the store .*No such file"):
        await open_store(tmp_path / "nowhere" / "store.db")


async def test_the_file_is_private(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "store.db"
    await (await open_store(path)).close()
    assert path.stat().st_mode & 0o777 == 0o600


async def test_history_is_bounded_by_itself(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "HISTORY_REVISIONS", 20)
    monkeypatch.setattr(sqlite, "COMPACT_EVERY_REVISIONS", 5)
    store = await open_store(tmp_path / "store.db")
    for number in range(100):
        await store.txn([], [Put("k", b"%d" % number)])

    with pytest.raises(CompactedError):
        await anext(store.watch("k", 75))
    assert (await anext(store.watch("k", 81))).revision == 81

    await store.close()
    with sqlite3.connect(tmp_path / "store.db") as file:
        (rows,) = file.execute("SELECT count(*) FROM history").fetchone()
    file.close()
    assert rows <= 25


async def test_a_watcher_is_told_when_the_store_closes(tmp_path: pathlib.Path) -> None:
    store = await open_store(tmp_path / "store.db")
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await anext(store.watch("", 1))

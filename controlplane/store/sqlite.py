"""The embedded store's file: blocking calls, for one thread of one process.

Rules: a change is one SQLite transaction, on disk when the call returns (WAL, synchronous=FULL);
the file is held exclusively for as long as it is open, so a second process gets an error and a
killed one leaves no lock. History for watches is kept for the newest HISTORY_REVISIONS and
compacted as the store moves on. A lease's clock starts anew when the file is opened.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence

from controlplane.store.protocol import (
    Absent,
    Change,
    CompactedError,
    Compare,
    Entry,
    Event,
    LeaseLostError,
    Listing,
    Op,
    Put,
    RevisionIs,
    StoreError,
    TxnResult,
    ValueIs,
    prefix_end,
)

APPLICATION_ID = 0x54524D54  # "TRMT": tells our files from other programs'
SCHEMA_VERSION = 1
HISTORY_REVISIONS = 10_000  # at a few changes a minute, days for a watcher to come back
COMPACT_EVERY_REVISIONS = 1_000  # so that trimming costs nothing on average
CHANGES_PER_READ = 256
LOCK_WAIT_S = 1.0  # a predecessor that is just ending

SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('revision', 0), ('compacted', 0);
CREATE TABLE entries (
  key BLOB PRIMARY KEY, value BLOB NOT NULL, mod_revision INTEGER NOT NULL, lease INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX leased ON entries (lease) WHERE lease != 0;
CREATE TABLE history (
  revision INTEGER, ordinal INTEGER, key BLOB NOT NULL, value BLOB, PRIMARY KEY (revision, ordinal)
) WITHOUT ROWID;
CREATE TABLE leases (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_s REAL NOT NULL);
"""


class Database:
    """One open file; every method blocks."""

    def __init__(
        self, path: pathlib.Path, now_s: Callable[[], float], on_change: Callable[[], None]
    ) -> None:
        self._path = path
        self._now_s = now_s
        self._on_change = on_change
        self._db = _open(path)
        with self._errors():
            numbers: dict[str, int] = dict(self._db.execute("SELECT name, number FROM meta"))
            leases = self._db.execute("SELECT id, ttl_s FROM leases").fetchall()
        self.revision = numbers["revision"]
        self._compacted = numbers["compacted"]
        self._ttl_s: dict[int, float] = dict(leases)
        self._deadline_s = {lease: now_s() + ttl_s for lease, ttl_s in leases}

    def close(self) -> None:
        """Release the file."""
        with self._errors():
            self._db.close()

    def get(self, key: str) -> Entry | None:
        """One entry."""
        self.expire()
        with self._errors():
            row = self._db.execute(
                "SELECT key, value, mod_revision, lease FROM entries WHERE key = ?", (key.encode(),)
            ).fetchone()
        return _entry(row) if row else None

    def range(self, prefix: str) -> Listing:
        """The entries under a prefix."""
        self.expire()
        where, values = _under(prefix)
        query = f"SELECT key, value, mod_revision, lease FROM entries WHERE {where} ORDER BY key"  # noqa: S608 - no outside text
        with self._errors():
            rows = self._db.execute(query, values).fetchall()
        return Listing(tuple(_entry(row) for row in rows), self.revision)

    def txn(
        self, compares: Sequence[Compare], successes: Sequence[Op], failures: Sequence[Op]
    ) -> TxnResult:
        """Compare, then apply one branch."""
        self.expire()
        with self._change():
            succeeded = all(self._holds(compare) for compare in compares)
            self._apply(successes if succeeded else failures)
        return TxnResult(succeeded, self.revision)

    def changes(self, prefix: str, from_revision: int) -> tuple[list[Change], int]:
        """Some of the changes from a revision on, and where to read on."""
        self.expire()
        if from_revision <= self._compacted:
            raise CompactedError(
                f"{self._path}: history before revision {self._compacted + 1} is gone"
            )
        where, values = _under(prefix)
        query = (
            f"SELECT revision, key, value FROM history WHERE revision >= ? AND {where} "  # noqa: S608 - no outside text
            "ORDER BY revision, ordinal"
        )
        found: dict[int, list[Event]] = {}
        with self._errors():
            for revision, key, value in self._db.execute(query, (from_revision, *values)):
                if revision not in found and len(found) == CHANGES_PER_READ:
                    break
                found.setdefault(revision, []).append(Event(key.decode(), value))
        changes = [Change(revision, tuple(events)) for revision, events in found.items()]
        full = len(changes) == CHANGES_PER_READ
        return changes, (changes[-1].revision if full else self.revision) + 1

    def grant(self, ttl_s: float) -> int:
        """A new lease."""
        with self._change():
            lease = self._db.execute("INSERT INTO leases (ttl_s) VALUES (?)", (ttl_s,)).lastrowid
        if lease is None:
            raise StoreError(f"{self._path}: no lease was made")
        self._ttl_s[lease] = ttl_s
        self._deadline_s[lease] = self._now_s() + ttl_s
        return lease

    def keepalive(self, lease: int) -> None:
        """Start a lease's time anew."""
        self.expire()
        self._check_lease(lease)
        self._deadline_s[lease] = self._now_s() + self._ttl_s[lease]

    def revoke(self, lease: int) -> None:
        """End a lease and its keys."""
        self._check_lease(lease)
        with self._change():
            rows = self._db.execute(
                "SELECT key FROM entries WHERE lease = ? ORDER BY key", (lease,)
            )
            self._write([(key, None, 0) for (key,) in rows.fetchall()])
            self._db.execute("DELETE FROM leases WHERE id = ?", (lease,))
        del self._ttl_s[lease], self._deadline_s[lease]

    def expire(self) -> None:
        """End every lease whose time is over."""
        now_s = self._now_s()
        for lease in [lease for lease, at_s in self._deadline_s.items() if at_s <= now_s]:
            self.revoke(lease)

    def compact(self, revision: int) -> None:
        """Forget the history up to and with a revision."""
        upto = min(revision, self.revision)
        with self._change():
            self._db.execute("DELETE FROM history WHERE revision <= ?", (upto,))
            self._db.execute("UPDATE meta SET number = ? WHERE name = 'compacted'", (upto,))
        self._compacted = max(self._compacted, upto)

    def _check_lease(self, lease: int) -> None:
        if lease not in self._ttl_s:
            raise LeaseLostError(f"{self._path}: lease {lease} is over")

    def _holds(self, compare: Compare) -> bool:
        row = self._db.execute(
            "SELECT value, mod_revision FROM entries WHERE key = ?", (compare.key.encode(),)
        ).fetchone()
        match compare:
            case Absent():
                return row is None
            case ValueIs():
                return row is not None and row[0] == compare.value
            case RevisionIs():
                return row is not None and row[1] == compare.mod_revision

    def _apply(self, ops: Sequence[Op]) -> None:
        writes: list[tuple[bytes, bytes | None, int]] = []
        for op in ops:
            key = op.key.encode()
            if isinstance(op, Put):
                if op.lease:
                    self._check_lease(op.lease)
                writes.append((key, op.value, op.lease))
            elif self._db.execute("SELECT 1 FROM entries WHERE key = ?", (key,)).fetchone():
                writes.append((key, None, 0))
        self._write(writes)

    def _write(self, writes: Sequence[tuple[bytes, bytes | None, int]]) -> None:
        """One revision with these (key, value or None, lease); call inside `_change`."""
        if not writes:
            return
        revision = self.revision + 1
        for ordinal, (key, value, lease) in enumerate(writes):
            if value is None:
                self._db.execute("DELETE FROM entries WHERE key = ?", (key,))
            else:
                row = (key, value, revision, lease)
                self._db.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", row)
            row_of_history = (revision, ordinal, key, value)
            self._db.execute("INSERT INTO history VALUES (?, ?, ?, ?)", row_of_history)
        self._db.execute("UPDATE meta SET number = ? WHERE name = 'revision'", (revision,))

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        """A transaction on disk; afterwards the revision is known and watchers are told."""
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                found = self._db.execute("SELECT number FROM meta WHERE name = 'revision'")
                (revision,) = found.fetchone()
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        if revision == self.revision:
            return
        self.revision = revision
        self._on_change()
        if revision - self._compacted >= HISTORY_REVISIONS + COMPACT_EVERY_REVISIONS:
            self.compact(revision - HISTORY_REVISIONS)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"the store {self._path} fails: {error}") from error


def _open(path: pathlib.Path) -> sqlite3.Connection:
    """Open or make the file, exclusively; every way it can be wrong is one sentence."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(
            path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False
        )
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"cannot open the store {path}: {error}") from error
    try:
        _prepare(db, path)
    except sqlite3.Error as error:
        db.close()
        raise StoreError(_explain(path, error)) from error
    except StoreError:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: pathlib.Path) -> None:
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("PRAGMA synchronous = FULL")
    (application_id,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application_id != APPLICATION_ID and (tables or application_id):
        raise StoreError(f"{path} belongs to another program; choose another file for the store")
    if version > SCHEMA_VERSION:
        raise StoreError(f"the store {path} was written by a newer Trimtab (format {version})")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("BEGIN IMMEDIATE")  # takes the lock for good: locking_mode is EXCLUSIVE
    if not tables:
        for statement in SCHEMA.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute("COMMIT")
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(" ".join(verdict.split()))


def _explain(path: pathlib.Path, error: sqlite3.Error) -> str:
    if "locked" in str(error):
        return f"the store {path} is in use by another process; is another control plane running?"
    return f"the store {path} can't be read ({error}); move it away to start afresh"


def _under(prefix: str) -> tuple[str, tuple[bytes, ...]]:
    """The SQL for "keys with this prefix", and its values."""
    start = prefix.encode()
    end = prefix_end(start)
    return ("key >= ?", (start,)) if end is None else ("key >= ? AND key < ?", (start, end))


def _entry(row: tuple[bytes, bytes, int, int]) -> Entry:
    key, value, mod_revision, lease = row
    return Entry(key.decode(), value, mod_revision, lease)

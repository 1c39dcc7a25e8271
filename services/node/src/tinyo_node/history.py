"""What makes the node's table a revisioned store: each change of a key has a number, and is kept for a while.

The table is watched by triggers of SQLite, so that its history is whole whoever writes. tinyo_node.sqlitestore
reads it.
"""

import asyncio
import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinyo_node.sqlite import Table

#: Changes that watchers can go back.
CHANGES_KEPT = 10_000

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS changes (revision INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT, value BLOB);
CREATE TRIGGER IF NOT EXISTS put AFTER INSERT ON entries BEGIN
    INSERT INTO changes (key, value) VALUES (new.key, new.value);
    UPDATE entries SET revision = last_insert_rowid() WHERE key = new.key;
    DELETE FROM changes WHERE revision <= last_insert_rowid() - {CHANGES_KEPT};
END;
CREATE TRIGGER IF NOT EXISTS deleted AFTER DELETE ON entries BEGIN
    INSERT INTO changes (key) VALUES (old.key);
    DELETE FROM changes WHERE revision <= last_insert_rowid() - {CHANGES_KEPT};
END;
"""


def keep(writer: sqlite3.Connection) -> None:
    """Keeps the history of the table from now on."""
    writer.executescript(SCHEMA)


def newest(connection: sqlite3.Connection) -> int:
    """The revision of the latest change; 0 in an empty store."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'").fetchone()
    return row[0] if row else 0


async def close(table: "Table") -> None:
    """Finishes what was begun."""
    await asyncio.sleep(0)  # what was asked for before takes its turn before
    async with table.turn:
        table.reader.close()
        table.writer.close()

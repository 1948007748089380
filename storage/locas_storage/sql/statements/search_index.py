"""Owns the index of the journal's words: putting turns into it, and finding the turns that share a word.

Every function works within the caller's transaction.

An append leaves the index alone: users append far more often than they search, and the index would cost more than the
turn. A search first puts in what was said since the last one. `lm_search` holds one row of words for each turn up to
the newest that is in it, and refuses by its foreign key that a turn is deleted before `remove` has taken it out. A turn
whose text is kept encrypted is simply never added. On SQLite the FTS5 index `lm_search_fts` stands beside it, kept in
step here and not by triggers: those may not touch FTS5 while the schema of a file is not trusted. On PostgreSQL there
is no index over the words of all users: GIN keeps words for ever that no row holds any more, so a search looks at the
rows of its user.

No text of a user reaches a query's syntax: `rules/ranking.py` leaves letters, digits and symbols such as emoji, no
quotes and no operators.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BindParameter,
    Connection,
    Select,
    Text,
    bindparam,
    cast,
    column,
    delete,
    func,
    insert,
    literal,
    select,
    table,
)
from sqlalchemy.dialects.postgresql import TSQUERY

from locas_storage.encryption.envelope import Cipher
from locas_storage.records.turns import Turn, UserKey
from locas_storage.rules.ranking import MAX_CANDIDATES, indexed_words
from locas_storage.sql.tables import rows
from locas_storage.sql.tables.parameters import VALUES_PER_STATEMENT, chunks, one_or_many
from locas_storage.sql.tables.schema import FTS_TABLE, search, turn

_FTS = table(FTS_TABLE, column("rowid"), column("words"), column(FTS_TABLE))
"""Its column of its own name takes commands."""
_ADD = insert(search)
_ADDED = select(search.c.id, search.c.words).where(
    rows.belongs_to_param(search), search.c.seq.between(bindparam("first"), bindparam("last"))
)
_INDEX_ADDED = insert(_FTS).from_select(["rowid", "words"], _ADDED)
_ADD_LISTED = insert(search).values(words=func.array_to_tsvector(bindparam("listed", type_=ARRAY(Text))))


def is_behind(connection: Connection, key: UserKey) -> bool:
    """Tell whether something was said since the user's index was last brought up to date."""
    return connection.scalar(select(_waiting(key).exists())) is True


def catch_up(connection: Connection, key: UserKey, cipher: Cipher) -> None:
    """Put into the index what a locked user has said since this was last done, in the order it was said."""
    while said := connection.execute(_waiting(key).order_by(turn.c.seq).limit(VALUES_PER_STATEMENT)).all():
        add(connection, key, [rows.turn(row, cipher) for row in said])


def _waiting(key: UserKey) -> Select[Any]:
    """Select the turns that are not in the index yet.

    One whose time is over is put in too: it stays until it is forgotten.
    """
    newest = select(func.coalesce(func.max(search.c.seq), 0)).where(rows.belongs_to(search, key)).scalar_subquery()
    return select(turn).where(rows.belongs_to(turn, key), turn.c.forgotten_at.is_(None), turn.c.seq > newest)


def add(connection: Connection, key: UserKey, turns: Iterable[Turn]) -> None:
    """Put turns into the index, given in ascending order."""
    found = [(one.seq, indexed_words(one.content)) for one in turns]
    if connection.dialect.name == "sqlite":
        values = [rows.key_columns(key) | {"seq": seq, "words": " ".join([mark(key), *words])} for seq, words in found]
        connection.execute(_ADD, one_or_many(values))
        connection.execute(_INDEX_ADDED, rows.key_params(key) | {"first": found[0][0], "last": found[-1][0]})
    else:
        connection.execute(
            _ADD_LISTED, one_or_many([rows.key_columns(key) | {"seq": seq, "listed": words} for seq, words in found])
        )


def candidates(connection: Connection, key: UserKey, wanted: Sequence[str], cipher: Cipher) -> list[Turn]:
    """Return the newest of the user's turns that share one of the words, oldest first."""
    query = (
        select(turn)
        .join(search, rows.belongs_to(search, key) & (search.c.seq == turn.c.seq))
        .where(rows.belongs_to(turn, key), rows.shown())
    )
    if connection.dialect.name == "sqlite":
        any_of = " OR ".join(f'"{word}"' for word in wanted)
        match: BindParameter[str] = bindparam("match", f'"{mark(key)}" AND ({any_of})')
        # Of one user the rows stand in the order of the turns. A limit keeps SQLite from asking FTS5 once for each
        # turn.
        newest = (
            select(_FTS.c.rowid)
            .where(_FTS.c[FTS_TABLE].op("MATCH")(match))
            .order_by(_FTS.c.rowid.desc())
            .limit(MAX_CANDIDATES)
            .subquery()
        )
        query = query.join(newest, newest.c.rowid == search.c.id)
    else:
        query = query.where(search.c.words.op("@@")(cast(" | ".join(f"'{word}'" for word in wanted), TSQUERY)))
    found = connection.execute(query.order_by(turn.c.seq.desc()).limit(MAX_CANDIDATES)).all()
    return [rows.turn(row, cipher) for row in reversed(found)]


def remove(connection: Connection, key: UserKey, seqs: Iterable[int] | None = None) -> None:
    """Make turns of a locked user unfindable and leave no byte of their words; to be called before they are deleted.

    Args:
        connection: within a transaction.
        key: whose.
        seqs: numbers of the turns; None means all of them.
    """
    take_out(connection, key, seqs)
    merge(connection)


def take_out(connection: Connection, key: UserKey, seqs: Iterable[int] | None = None) -> None:
    """Make turns of a locked user unfindable, but leave it to a later `merge` to leave no byte of their words.

    Args:
        connection: within a transaction.
        key: whose.
        seqs: numbers of the turns; None means all of them.
    """
    for chunk in [None] if seqs is None else chunks(seqs):
        gone = rows.belongs_to(search, key) if chunk is None else rows.belongs_to(search, key) & search.c.seq.in_(chunk)
        if connection.dialect.name == "sqlite":
            marked = select(literal("delete"), search.c.id, search.c.words).where(gone)
            connection.execute(insert(_FTS).from_select([FTS_TABLE, "rowid", "words"], marked))
        connection.execute(delete(search).where(gone))


def merge(connection: Connection) -> None:
    """Drop the words of rows that were taken out.

    FTS5 does so only when it merges; all at once takes time in proportion to the whole index.
    """
    if connection.dialect.name == "sqlite":
        connection.execute(insert(_FTS).values({FTS_TABLE: "optimize"}))


def mark(key: UserKey) -> str:
    """Return a word that stands in every row of this user and in no other's, so that FTS5 skips the others."""
    return f"owner{key.digest}"

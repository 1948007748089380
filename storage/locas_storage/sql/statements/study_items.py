"""Owns the statements over study items, and which of them are in force.

Every function works within the caller's transaction.
"""

from collections.abc import Iterable

from sqlalchemy import Connection, func, insert, select, update

from locas_storage.encryption.envelope import Cipher
from locas_storage.records.revisions import RevisionDraft, StudyItem
from locas_storage.records.turns import UserKey
from locas_storage.rules import commit
from locas_storage.sql.tables import rows
from locas_storage.sql.tables.parameters import chunks
from locas_storage.sql.tables.schema import study_event, study_item


def all_of(connection: Connection, key: UserKey, cipher: Cipher, *, with_retired: bool) -> list[StudyItem]:
    """Return the study items in force, and if asked the retired ones too, in the order they were added."""
    query = (
        select(study_item)
        .where(rows.belongs_to(study_item, key))
        .order_by(study_item.c.added_rev, study_item.c.position)
    )
    if not with_retired:
        query = query.where(study_item.c.retired_rev.is_(None))
    return [rows.item(row, cipher) for row in connection.execute(query)]


def change(connection: Connection, key: UserKey, draft: RevisionDraft, number: int, cipher: Cipher) -> None:
    """Add and retire the study items that a draft names, as revision `number`.

    Raises:
        RevisionConflict: they do not fit the kept ones.
    """
    added = [item.item_id for item in draft.new_items]
    taken = 0
    for chunk in chunks(added):
        taken += (
            connection.scalar(
                select(func.count()).where(rows.belongs_to(study_item, key), study_item.c.item_id.in_(chunk))
            )
            or 0
        )
    if taken:
        raise commit.stale_items(taken, "new under an id that is in use")
    retired = _mark(connection, key, draft.retired_items, number, "retired")
    if retired != len(draft.retired_items):
        raise commit.stale_items(len(draft.retired_items) - retired, "to be retired but not in force")
    if added:
        values = [
            rows.item_values(key, item, cipher, number=number, position=place)
            for place, item in enumerate(draft.new_items)
        ]
        connection.execute(insert(study_item), values)


def restore(connection: Connection, key: UserKey, restored: int, number: int) -> None:
    """Put study items in and out of force as they were at revision `restored`; the events of it carry `number`."""
    in_force_then = set(
        connection.scalars(
            select(study_item.c.item_id).where(rows.belongs_to(study_item, key), study_item.c.added_rev <= restored)
        )
    )
    events = (
        select(study_event)
        .where(rows.belongs_to(study_event, key), study_event.c.rev <= restored)
        .order_by(study_event.c.rev)
    )
    for row in connection.execute(events):
        if row.event == "retired":
            in_force_then.discard(row.item_id)
        else:
            in_force_then.add(row.item_id)
    in_force_now = set(
        connection.scalars(
            select(study_item.c.item_id).where(rows.belongs_to(study_item, key), study_item.c.retired_rev.is_(None))
        )
    )
    _mark(connection, key, in_force_now - in_force_then, number, "retired")
    _mark(connection, key, in_force_then - in_force_now, number, "restored")


def _mark(connection: Connection, key: UserKey, item_ids: Iterable[str], number: int, event: str) -> int:
    """Put study items out of force or back into it; return how many were not so already."""
    changed = 0
    in_force = study_item.c.retired_rev.is_(None)
    was, after = (in_force, number) if event == "retired" else (~in_force, None)
    for chunk in chunks(sorted(item_ids)):
        changing = update(study_item).where(rows.belongs_to(study_item, key), study_item.c.item_id.in_(chunk), was)
        ids = connection.scalars(changing.values(retired_rev=after).returning(study_item.c.item_id)).all()
        if ids:
            connection.execute(
                insert(study_event),
                [rows.key_columns(key) | {"item_id": one, "rev": number, "event": event} for one in ids],
            )
        changed += len(ids)
    return changed

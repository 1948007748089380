"""Owns `SqlForgetting`: forgetting, erasing and expiring in an SQL database, one transaction for each user."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from sqlalchemy import Connection, select

from locas_storage.records.receipts import CorrectedTurn, Receipt
from locas_storage.records.turns import Turn, TurnDraft, UserKey, UserState
from locas_storage.rules import lineage
from locas_storage.sql.queue import Transaction
from locas_storage.sql.statements import forgetting, jobs, payloads, revisions, users
from locas_storage.sql.tables.columns import DbNow

Append = Callable[[Connection, UserKey, Sequence[TurnDraft]], list[Turn]]
"""Appends turns within a transaction."""

logger = logging.getLogger(__name__)


class SqlForgetting:
    """What a store does to take away.

    Args:
        read: begins a transaction that reads.
        write: begins one that writes.
        overwrite: called after a removal is committed, tells whether no byte of it is left.
        check_reach: refuses when files of payloads that are given up cannot be deleted.
        remove_files: deletes files of a user's payloads that no row names.
        fault_point: called with the name of each step of a change.
    """

    def __init__(
        self,
        read: Transaction,
        write: Transaction,
        *,
        overwrite: Callable[[], bool],
        check_reach: Callable[[Sequence[str]], None],
        remove_files: Callable[[UserKey, list[str]], object],
        fault_point: Callable[[str], None],
    ) -> None:
        self._read = read
        self._write = write
        self._overwrite = overwrite
        self._check_reach = check_reach
        self._remove_files = remove_files
        self._fault_point = fault_point

    def forget(self, key: UserKey, turns: Iterable[int]) -> Receipt:
        """See `MemoryStore.forget`."""
        with self._write() as connection:
            state = users.locked(connection, key)
            made, files = self._forget(connection, state, lineage.check_forgettable(key, turns, state), "asked")
            self._fault_point("forget.before_commit")
        self._fault_point("forget.after_commit")
        return self._finish(key, made, files)

    def correct(self, key: UserKey, seq: int, draft: TurnDraft, *, append: Append) -> CorrectedTurn:
        """See `MemoryStore.correct`; `append` adds the new turn within the transaction."""
        with self._write() as connection:
            state = users.locked(connection, key)
            lineage.check_forgettable(key, [seq], state)
            idem_key = forgetting.take_key(connection, key, seq)
            self._fault_point("correct.key")
            made, files = self._forget(connection, state, [seq], "corrected")
            (added,) = append(connection, key, [replace(draft, idempotency_key=idem_key)])
            self._fault_point("correct.before_commit")
        self._fault_point("correct.after_commit")
        return CorrectedTurn.of(added, self._finish(key, made, files))

    def erase(self, key: UserKey) -> Receipt:
        """See `MemoryStore.erase`."""
        with self._write() as connection:
            state, was_erased = users.locked_tombstone(connection, key)
            sizes = forgetting.payload_sizes(connection, key)
            found = revisions.all_of(connection, key)
            items_gone = forgetting.delete_rows(connection, key)
            self._fault_point("erase.rows")
            files = payloads.drop_unused(connection, key)
            self._check_reach(files)
            self._fault_point("erase.payloads")
            forgetting.leave_tombstone(connection, state, connection.scalars(select(DbNow())).one())
            made = forgetting.receipt(
                connection,
                key,
                "erase",
                why="again" if was_erased else "asked",
                turns=range(1, state.next_seq),
                purged=[one.number for one in found],
                items_gone=items_gone,
                payloads_gone=sizes,
            )
            self._fault_point("erase.before_commit")
        self._fault_point("erase.after_commit")
        return self._finish(key, made, files)

    def expire(self, key: UserKey | None = None) -> dict[UserKey, Receipt]:
        """See `MemoryStore.expire`."""
        with self._read() as connection:
            found = forgetting.expired(connection, key)
        receipts = {}
        for whose in found:
            with self._write() as connection:
                state = users.locked_if_there(connection, whose, skip_locked=False)
                # Looked at again under the lock: another may have done it meanwhile.
                seqs = forgetting.expired(connection, whose).get(whose)
                if state is None or not seqs:
                    continue
                made, files = self._forget(connection, state, seqs, "expired")
            receipts[whose] = self._finish(whose, made, files)
        return receipts

    def reinstate(self, key: UserKey) -> None:
        """See `MemoryStore.reinstate`."""
        with self._write() as connection:
            _, is_erased = users.locked_tombstone(connection, key)
            if is_erased:
                forgetting.revive(connection, key)

    def _finish(self, key: UserKey, made: Receipt, files: list[str]) -> Receipt:
        self._remove_files(key, files)
        logger.info(
            "removed",
            extra={
                "action": made.action,
                "user": key.short_hash,
                "turns": len(made.turns),
                "revisions": len(made.revisions),
            },
        )
        return replace(made, is_overwritten=self._overwrite())

    def _forget(
        self, connection: Connection, state: UserState, seqs: Sequence[int], why: str
    ) -> tuple[Receipt, list[str]]:
        key = state.key
        now = connection.scalars(select(DbNow())).one()
        removed = forgetting.remove_turns(connection, key, seqs, now)
        self._fault_point("forget.turns")
        waiting = jobs.open_job(connection, key)
        plan = lineage.plan(
            revisions.all_of(connection, key), state.head, removed, (waiting.stops if waiting else None) or ()
        )
        sizes = forgetting.payload_sizes(connection, key)
        items_gone = forgetting.purge_items(connection, key, plan.purged)
        self._fault_point("forget.items")
        after = forgetting.detach(connection, state, plan, now) if removed else state
        self._fault_point("forget.revisions")
        files = payloads.drop_unused(connection, key)
        self._check_reach(files)
        left = forgetting.payload_sizes(connection, key)
        self._fault_point("forget.payloads")
        rebuild = (
            forgetting.queue_rebuild(connection, after, plan.stops, waiting.to_seq if waiting else 0) if removed else 0
        )
        self._fault_point("forget.job")
        gone = {digest: size for digest, size in sizes.items() if digest not in left}
        made = forgetting.receipt(
            connection,
            key,
            "forget",
            why=why,
            turns=removed,
            purged=plan.purged,
            items_gone=items_gone,
            payloads_gone=gone,
            head=after.head,
            rebuild_to_seq=rebuild,
        )
        return made, files

"""Sample records, and the check of the invariants that every database of ours keeps."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

from locas_storage.conformance.samples import ADA, BEN, draft, item, say

__all__ = ["ADA", "BEN", "broken_invariants", "draft", "item", "say"]


def broken_invariants(path: Path) -> list[str]:
    """Return what is broken, an empty list when all holds.

    I1 turns are numbered 1..n without a gap; I2 revisions form one chain; I3 each begins where its parent ended, or
    repeats what it restores; I4 payloads match digest and size, none is left over; I5 digests of turns recompute; I6
    head and watermark are the last revision's; I7 the fence rises along the chain; I10 study items in force agree with
    their events; I11 of what was forgotten only numbers are left; I12 open jobs ask for turns that are there, under a
    fence that was given out.
    """
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row

        def read(query: str, *values: object) -> list[sqlite3.Row]:
            return connection.execute(query, values).fetchall()

        broken = [row[0] for row in read("PRAGMA integrity_check") if row[0] != "ok"]
        broken += [f"foreign key of {row[0]}" for row in read("PRAGMA foreign_key_check")]
        for user in read("SELECT * FROM lm_subject"):
            whose = (user["tenant_id"], user["subject_id"])
            turns = read("SELECT * FROM lm_turn WHERE tenant_id = ? AND subject_id = ? ORDER BY seq", *whose)
            if [turn["seq"] for turn in turns] != list(range(1, user["next_seq"])):
                broken.append("I1")
            if any(hashlib.sha256(turn["content"]).digest() != turn["content_sha256"] for turn in turns):
                broken.append("I5 turn")
            blobs = read("SELECT * FROM lm_blob WHERE tenant_id = ? AND subject_id = ?", *whose)
            if any(
                (hashlib.sha256(blob["data"]).hexdigest(), len(blob["data"])) != (blob["sha256"], blob["size"])
                for blob in blobs
            ):
                broken.append("I4")
            revisions = read("SELECT * FROM lm_revision WHERE tenant_id = ? AND subject_id = ? ORDER BY rev", *whose)
            if {blob["sha256"] for blob in blobs} != {row["blob_sha256"] for row in revisions} - {None}:
                broken.append("I4 left over")
            number, end, fence = 0, 0, 0
            for row in revisions:
                span = [turn["content_sha256"] for turn in turns if row["from_seq"] <= turn["seq"] <= row["to_seq"]]
                if row["parent_rev"] != number or row["rev"] != number + 1:
                    broken.append(f"I2 revision {row['rev']}")
                if row["restores"] is None and row["from_seq"] != end + 1:
                    broken.append(f"I3 revision {row['rev']}")
                if row["restores"] and (row["from_seq"], row["to_seq"], row["payload_sha256"]) != tuple(
                    revisions[row["restores"] - 1][column] for column in ("from_seq", "to_seq", "payload_sha256")
                ):
                    broken.append(f"I3 restored revision {row['rev']}")
                is_erased = row["state"] == "erased"
                if is_erased and (row["blob_sha256"], row["payload_sha256"], row["metrics"], row["turns_sha256"]) != (
                    None,
                    None,
                    "{}",
                    "",
                ):
                    broken.append(f"I11 revision {row['rev']}")
                if not is_erased and hashlib.sha256(b"".join(span)).hexdigest() != row["turns_sha256"]:
                    broken.append(f"I5 revision {row['rev']}")
                if row["fence"] <= fence:
                    broken.append(f"I7 revision {row['rev']}")
                number, end, fence = row["rev"], row["to_seq"], row["fence"]
            if (user["head_rev"], user["next_rev"], user["consolidated_seq"]) != (number, number + 1, end):
                broken.append("I6")
            if user["fence"] < fence or (number and revisions[-1]["state"] == "erased"):
                broken.append("I6")
            if any(turn["forgotten_at"] and (turn["content"] or turn["name"] or turn["session_id"]) for turn in turns):
                broken.append("I11")
            findable = {
                row["seq"] for row in read("SELECT seq FROM lm_search WHERE tenant_id = ? AND subject_id = ?", *whose)
            }
            if findable != {
                turn["seq"] for turn in turns if not turn["forgotten_at"] and turn["seq"] <= max(findable, default=0)
            }:
                broken.append("I11 search")
            for job in read("SELECT * FROM lm_job WHERE tenant_id = ? AND subject_id = ? AND state <> 'dead'", *whose):
                if not 0 < job["to_seq"] < user["next_seq"] or (job["lease_fence"] or 0) > user["fence"]:
                    broken.append("I12")
            for item in read("SELECT * FROM lm_study_item WHERE tenant_id = ? AND subject_id = ?", *whose):
                events = read(
                    "SELECT * FROM lm_study_event WHERE tenant_id = ? AND subject_id = ? AND item_id = ? ORDER BY rev",
                    *whose,
                    item["item_id"],
                )
                retired = events[-1]["rev"] if events and events[-1]["event"] == "retired" else None
                if item["retired_rev"] != retired or not 1 <= item["added_rev"] <= number:
                    broken.append("I10")
    return broken

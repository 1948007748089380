"""Step 0002: the words of turns, for search.

Digest and size of a payload kept with its revision, so that the payload can be pruned.

Knows nothing of the package's current schema or of how it cuts a text now: a released step is frozen, and what it fills
the index with stays what it was. A change of the cut is a step of its own that has everything indexed anew.
"""

import hashlib
import re
import unicodedata

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TURNS_AT_ONCE = 500
MOST_WORD_CHARS = 64
MOST_INDEXED_CHARS = 1 << 17

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"(?=[^\W_])[{_UNSPACED}]|(?:(?![{_UNSPACED}])[^\W_])+")


def upgrade() -> None:
    """Apply the step."""
    op.add_column("lm_revision", sa.Column("payload_sha256", sa.String(length=64), nullable=True))
    op.add_column("lm_revision", sa.Column("payload_bytes", BIG, nullable=True))
    op.execute(
        "UPDATE lm_revision SET payload_sha256 = blob_sha256, payload_bytes = (SELECT size FROM lm_blob WHERE "
        "lm_blob.tenant_id = lm_revision.tenant_id AND lm_blob.subject_id = lm_revision.subject_id AND lm_blob.sha256 "
        "= lm_revision.blob_sha256)"
    )
    op.create_table(
        "lm_search",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("subject_id", sa.String(length=200), nullable=False),
        sa.Column("seq", BIG, autoincrement=False, nullable=False),
        sa.Column("words", sa.Text().with_variant(postgresql.TSVECTOR(), "postgresql"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "subject_id", "seq"],
            ["lm_turn.tenant_id", "lm_turn.subject_id", "lm_turn.seq"],
            name="fk_lm_search_turn",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lm_search")),
        sa.UniqueConstraint("tenant_id", "subject_id", "seq", name="uq_lm_search_turn"),
    )
    for tenant, user in (
        op.get_bind().execute(sa.text("SELECT tenant_id, subject_id FROM lm_subject WHERE wrapped_dek IS NULL")).all()
    ):
        _index(op.get_bind(), tenant, user)
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE VIRTUAL TABLE lm_search_fts USING fts5(words, content='lm_search', content_rowid='id', "
            "detail='none', tokenize='ascii')"
        )
        op.execute("INSERT INTO lm_search_fts (lm_search_fts) VALUES ('rebuild')")


def downgrade() -> None:
    """Take the step back. Payloads that were pruned stay so."""
    op.drop_table("lm_search")
    if op.get_bind().dialect.name == "sqlite":
        op.drop_table("lm_search_fts")
    for column in ("payload_sha256", "payload_bytes"):
        op.execute(f"ALTER TABLE lm_revision DROP COLUMN {column}")


def _index(connection: sa.Connection, tenant: str, user: str) -> None:
    whose = {"tenant_id": tenant, "subject_id": user}
    chunk = sa.text(
        "SELECT seq, content FROM lm_turn WHERE tenant_id = :tenant_id AND subject_id = :subject_id AND seq > :last "
        "ORDER BY seq LIMIT :limit"
    )
    if connection.dialect.name == "sqlite":
        insert = sa.text(
            "INSERT INTO lm_search (tenant_id, subject_id, seq, words) VALUES (:tenant_id, :subject_id, :seq, :words)"
        )
    else:
        insert = sa.text(
            "INSERT INTO lm_search (tenant_id, subject_id, seq, words) "
            "VALUES (:tenant_id, :subject_id, :seq, array_to_tsvector(CAST(:words AS text[])))"
        )
    last = 0
    while turns := connection.execute(chunk, whose | {"last": last, "limit": TURNS_AT_ONCE}).all():
        found = [(turn.seq, _words(bytes(turn.content).decode())) for turn in turns]
        packed = [
            whose
            | {
                "seq": seq,
                "words": " ".join([_mark(tenant, user), *words]) if connection.dialect.name == "sqlite" else words,
            }
            for seq, words in found
        ]
        connection.execute(insert, packed)
        last = turns[-1].seq


def _words(text: str) -> list[str]:
    """Return the distinct words by which a turn was found when this step was released."""
    if text.isascii():
        bare = text.lower()
    else:
        folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
        bare = "".join(character for character in folded if not unicodedata.combining(character))
    kept, room = [], MOST_INDEXED_CHARS
    for word in dict.fromkeys(found[:MOST_WORD_CHARS] for found in _WORD.findall(bare)):
        room -= len(word)
        if room < 0:
            break
        kept.append(word)
    return kept


def _mark(tenant: str, user: str) -> str:
    """Return the word that stood in every row of a user when this step was released."""
    first, second = tenant.encode(), user.encode()
    return f"owner{hashlib.sha256(len(first).to_bytes(4, 'big') + first + second).hexdigest()}"

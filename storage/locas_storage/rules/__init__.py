"""What every store applies, as pure functions over records: public, for authors of stores. No database is needed.

| module | holds | verbs of `MemoryStore` that need it |
|---|---|---|
| `api_keys` | the form of a secret, its digest, how it is compared | those of `api_keys` |
| `commit` | what a commit must follow, digests, the audit chain, errors in the words of all stores | all of them |
| `lineage` | which revisions saw a turn, where learning begins again, how lines end | those that learn or forget |
| `queue` | which jobs are claimed together, attempts, reasons | those of `queue` |
| `ranking` | what a word is, and the order of turns that share one | `search` |

A store that keeps each user in one piece calls none of them: `InMemoryStore(kept=..., save=...)` does that.
`locas_storage.conformance` has the cases that every store passes.
"""

from locas_storage.rules import api_keys, commit, lineage, queue, ranking

__all__ = ["api_keys", "commit", "lineage", "queue", "ranking"]

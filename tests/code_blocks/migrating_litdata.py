"""docs/migrating/litdata.md: trains on converted shards; rows as LitData's dataset gives them are converted after."""

from __future__ import annotations

from block_migrations import FEWER, converts, trained, with_shards_in_a_bucket

REPLACE = FEWER
names = with_shards_in_a_bucket
AFTER = {"After": lambda _known: trained("bucket/runs/7"), "Converting": converts}

"""A state as commands read it: its newest losses, the shards that they are of, and how its policy groups them.

Takes a state; gives values. Only reads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from seta_stream.corpus.ids import ShardTable
from seta_stream.corpus.surveying import CORPUS_FILE
from seta_stream.errors import PolicyError, StateError
from seta_stream.losses.generations import Generation, Generations
from seta_stream.policies import SeTa, policy_from
from seta_stream.store import Options, join, shown, store_for


class Sidecars:
    """The shards as a generation knows them, where the state holds no shard table."""

    def __init__(self, generation: Generation) -> None:
        self.samples = np.array([one.samples for one in generation.sidecars], np.int64)
        self.digests = tuple(one.digest for one in generation.sidecars)


def newest_of(generations: Generations, state: str) -> Generation:
    """Return the newest losses.

    Raises:
        StateError: there are none.
    """
    kept = generations.kept()
    if not kept:
        raise StateError(
            f"There are no losses in {shown(state)}: no generation is kept there. Give the folder that was passed as "
            "state=, after an epoch with recorded losses."
        )
    return kept[-1]


def shards_of(state: str, options: Options | None) -> ShardTable | None:
    """Return the corpus as it was last opened; None where the state does not tell.

    Raises:
        IndexFileError: the file that tells is damaged.
    """
    url = join(state, CORPUS_FILE)
    store = store_for(url, options)
    return ShardTable.from_bytes(store.read(url), url) if store.exists(url) else None


def grouping_of(generation: Generation) -> Any:
    """Return how the run's policy groups losses; None where it does not, or is none that is known here."""
    described = generation.facts.get("policy")
    try:
        policy = policy_from(described) if isinstance(described, dict) else None
    except (PolicyError, TypeError, ValueError):  # a class of the user's own
        return None
    return policy.groups if isinstance(policy, SeTa) else None

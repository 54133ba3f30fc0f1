"""What process 0 tells the others of the generations that it finds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from thread_collective import ThreadCollective, ThreadTeam

from seta_stream.losses.generations import Generation, Generations
from seta_stream.losses.table import LossTable

SHARDS = SimpleNamespace(digests=[bytes([shard]) * 16 for shard in range(40)])


def test_a_manifest_is_told_once(tmp_path: Path) -> None:
    """Every process knows the generation each time, and its manifest travels only where it is another than before."""

    def work(collective: ThreadCollective) -> tuple[list[str], list[int], list[int]]:
        generations = Generations(str(tmp_path), None, collective)
        table = LossTable(np.full(40, 3))
        names, sent, entries = [], [], []
        for epoch in range(2):
            own = range(20 * collective.rank, 20 * collective.rank + 20)
            name = generations.commit(epoch, table, SHARDS, None, names[-1] if names else None, {}, own=own)
            for _ in range(2):
                before = collective.sent_bytes
                found = generations.shared(lambda name=name: generations.get(name))
                sent.append(collective.sent_bytes - before)
                entries.append(len(found.sidecars))
            names.append(found.name)
        none = generations.shared(lambda: None)
        again = generations.shared(lambda: generations.get(names[0]))
        assert none is None
        generations.close()
        return [*names, again.name], sent, entries

    (names, sent, entries), other = ThreadTeam(2).run(work)
    assert other[0] == names
    assert names[2] == names[0] != names[1]
    assert entries == other[2] == [40] * 4
    assert min(sent[0], sent[2]) > 40 * 16
    assert max(sent[1], sent[3]) < 100
    assert isinstance(names[0], str)


def test_one_process_is_told_what_it_found(tmp_path: Path) -> None:
    """Alone, the generation is the one that was found, and nothing is packed."""
    found = Generation("gen-000001-00", 1, None, None, {})
    assert Generations(str(tmp_path)).shared(lambda: found) is found

"""Measure LossTable.record in batches of 256, per kind of input, and the bytes of a sidecar.

Run: python tools/bench/record.py [--samples 3000000]. Prints microseconds per sample (median and best of rounds; the
budget is 0.1) and bytes per sample on disk (the budget is 4, for shards of 1,000 samples).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from seta_stream.losses.sidecar import pack
from seta_stream.losses.table import LossTable

BATCH = 256
CALLS = 200
ROUNDS = 25


def inputs(samples: int) -> dict[str, tuple[Any, Any]]:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, samples, (CALLS, BATCH))
    losses = rng.exponential(size=(CALLS, BATCH))
    single = losses.astype(np.float32)
    kinds = {
        "numpy int64, float32": (ids, single),
        "numpy int64, float64": (ids, losses),
        "numpy int64, float16": (ids, single.astype(np.float16)),
        "numpy int32, float32": (ids.astype(np.int32), single),
        "some losses exactly 0": (ids, np.where(single > 1, single, np.float32(0))),
        "some losses NaN": (ids, np.where(single > 0.1, single, np.float32(np.nan))),
        "lists": (ids.tolist(), losses.tolist()),
    }
    try:
        import torch
    except ImportError:
        return kinds
    kinds["torch int64, float32"] = (torch.tensor(ids), torch.tensor(single))
    kinds["torch int64, bfloat16 with grad"] = (torch.tensor(ids), torch.tensor(single).bfloat16().requires_grad_())
    return kinds


def rounds_us(table: LossTable, ids: Any, losses: Any) -> list[float]:
    """Microseconds per sample of each round, every call with another batch, made just before as a loop would."""
    found = []
    for _ in range(ROUNDS):
        spent = 0.0
        for batch_ids, batch_losses in zip(ids, losses, strict=True):
            fresh_ids, fresh_losses = fresh(batch_ids), fresh(batch_losses)
            start = time.perf_counter()
            table.record(fresh_ids, fresh_losses)
            spent += time.perf_counter() - start
        found.append(spent / (CALLS * BATCH) * 1e6)
    return found


def fresh(values: Any) -> Any:
    if isinstance(values, list):
        return list(values)
    return values.clone() if hasattr(values, "clone") else values.copy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=3_000_000)
    samples = parser.parse_args().samples
    table = LossTable(np.full(samples // 1000, 1000))
    samples = table.total
    print(f"record(), batches of {BATCH}, table of {samples:,} samples; µs per sample (budget 0.1)")
    for kind, (ids, losses) in inputs(samples).items():
        found = rounds_us(table, ids, losses)
        print(f"  {kind:34} median {np.median(found):.4f}  best {min(found):.4f}")
    rng = np.random.default_rng(1)
    losses = rng.exponential(size=1000).astype(np.float32)
    table = LossTable([1000])
    for kind, values in (("float16 losses", losses + 0.01), ("20-bit losses", losses * 1e-5)):
        table.record(np.arange(1000), values)
        data = pack(table.losses(0), table.ages(0), bytes(16))
        print(f"sidecar of 1,000 samples, {kind}: {len(data) / 1000:.3f} bytes per sample (budget 4)")
    print(f"table: {(table.values.nbytes + table.all_ages.nbytes) / table.total:.0f} bytes per sample (budget 6)")


if __name__ == "__main__":
    main()

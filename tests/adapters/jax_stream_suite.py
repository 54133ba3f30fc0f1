"""What JaxStream does in one process with a mesh of four CPU devices: checks that a driver runs in a Python of its own.

Takes a folder; a check returns where it holds and raises where it does not. `outcomes` runs all, one row per check.
"""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from small_corpora import text_members, write_tar

from seta_stream import BLS, Full, Kakurenbo, Rule, SeTa, SetaStream
from seta_stream.adapters.jax import FLUSH_STEPS, JaxStream, weighted_mean
from seta_stream.adapters.jax_rows import Rows, batch_sharding
from seta_stream.errors import ArgumentError, DecodeError, LossError

BATCH = 8
_jax: Any = jax


def shards(folder: Path, samples: int = 205) -> list[str]:
    """Write a corpus whose texts are its ids; return the paths."""
    folder.mkdir(exist_ok=True)
    cuts = [*range(0, samples, 41), samples]
    return [
        str(write_tar(folder / f"train-{first:05d}.tar", text_members(first, stop - first)))
        for first, stop in pairwise(cuts)
    ]


def mesh_of(*sizes: int, names: tuple[str, ...] = ("data", "model")) -> Mesh:
    return Mesh(np.array(jax.devices()[: np.prod(sizes)]).reshape(sizes), names[: len(sizes)])


def decode(field: str, data: bytes) -> Any:
    return int(data) if field == "txt" else data.decode()


def make(folder: Path, samples: int = 205, *, sharding: Any = None, batch_size: int = BATCH, **options: Any) -> Any:
    given = mesh_of(4) if sharding is None else sharding
    return JaxStream(
        shards(folder, samples), batch_size=batch_size, sharding=given, **{"decode": decode, "seed": 2, **options}
    )


def loss_of(ids: Any) -> Any:
    return (ids * 37 % 101) / 10 + 0.1


def table_of(stream: Any) -> Any:
    _ = stream.stats  # what waits is moved
    return stream.stream.session.memory.losses.values


def half_weighted(histogram: object, epoch: int) -> Rule:
    """Keep everything, what was seen with weight 2.5."""
    return Rule([], [1.0], weight=[2.5], unseen_keep=1.0, unseen_weight=0.5)


# ---- batches


def batches_are_the_streams(folder: Path) -> None:
    """Row by row they are those of SetaStream.batches: ids, weights, columns, lists, and keys."""
    options: dict[str, Any] = {"policy": half_weighted, "seed": 2, "decode": decode, "batch_size": BATCH}
    stream = make(folder, policy=half_weighted)
    plain = SetaStream(shards(folder), **options)
    for epoch in range(2):
        stream.set_epoch(epoch)
        plain.set_epoch(epoch)
        assert len(stream) == 25
        for found, expected in zip(stream, plain.batches(), strict=True):
            assert list(found) == list(expected)
            for name, column in expected.items():
                held = np.asarray(found[name]) if isinstance(column, np.ndarray) else found[name]
                assert np.array_equal(held, column), name
            assert found["txt"].tolist() == found["__index__"].tolist()
            losses = loss_of(expected["__index__"])
            stream.update(found["__index__"], losses)
            plain.record(expected["__index__"], losses)
    assert set(np.asarray(found["__weight__"])) == {2.5}


def kinds_of_columns(folder: Path) -> None:
    """Numbers and weights are JAX arrays, ids numpy int64, texts, bytes and what does not stack are lists."""
    batch = next(iter(make(folder)))
    assert isinstance(batch["txt"], jax.Array)
    assert batch["txt"].dtype == np.int32
    assert isinstance(batch["__weight__"], jax.Array)
    assert batch["__weight__"].dtype == np.float32
    assert isinstance(batch["__index__"], np.ndarray)
    assert batch["__index__"].dtype == np.int64
    assert isinstance(batch["cls"], list)
    raw = next(iter(make(folder, decode=None)))
    assert isinstance(raw["txt"][0], bytes)
    ragged = next(iter(make(folder, decode=lambda field, data: np.zeros(1 + int(data) % 2))))
    assert isinstance(ragged["txt"], list)


def sharded_as_asked(folder: Path) -> None:
    """A mesh of one axis, a named one of two, or both: every device has the rows that its place says."""
    both = mesh_of(2, 2)
    explicit = _jax.make_mesh((4,), ("data",))  # its arrays carry their sharding in their type
    rows = [
        (NamedSharding(explicit, _jax.P("data")), explicit, _jax.P("data")),
        (mesh_of(4), mesh_of(4), _jax.P("data")),
        (NamedSharding(both, _jax.P("data", None)), both, _jax.P("data")),
        (NamedSharding(both, _jax.P(("model", "data"))), both, _jax.P(("model", "data"))),
        (NamedSharding(both, _jax.P()), both, _jax.P()),
    ]
    for given, mesh, spec in rows:
        expected = NamedSharding(mesh, spec)
        batch = next(iter(make(folder, sharding=given, decode=lambda field, data: np.full((3, 2), int(data)))))
        for column in (batch["txt"], batch["__weight__"]):
            assert column.sharding.is_equivalent_to(expected, column.ndim)
        for shard in batch["txt"].addressable_shards:
            assert np.array_equal(np.asarray(shard.data)[:, 0, 0], batch["__index__"][shard.index[0]])


def numbers_keep_their_values(folder: Path) -> None:
    """Ids beyond 2^31 pass unchanged; other integers that JAX would cut are refused by name, or kept with x64."""
    rows = Rows(batch_sharding(mesh_of(4)), 4, 1)
    ids = np.array([2**31, 2**40 + 1, 2**62 - 1, -1])
    whole = {"__index__": ids, "cls": np.array([2**31 - 1, -(2**31), 0, 1]), "byte": np.arange(4, dtype=np.uint8)}
    placed = rows.place(whole)
    assert placed["__index__"] is ids
    assert placed["cls"].tolist() == whole["cls"].tolist()
    assert placed["byte"].dtype == np.uint8
    narrow = jnp.array([1.5, 2, 3, 4], jnp.bfloat16)
    assert rows.place({"half": np.asarray(narrow)})["half"].dtype == jnp.bfloat16
    for worst in (2**31, -(2**31) - 1):
        with pytest.raises(ArgumentError, match=f"The field 'cls' holds {worst}, which does not fit in the 32 bits"):
            rows.place({"cls": np.array([1, worst, 2, 3])})
    with pytest.raises(ArgumentError, match="'big' holds 4294967296"):
        rows.place({"big": np.array([2**32, 0, 1, 2], np.uint64)})
    _jax.config.update("jax_enable_x64", True)
    try:
        assert rows.place({"cls": np.array([2**40, 0, 1, 2])})["cls"].tolist() == [2**40, 0, 1, 2]
    finally:
        _jax.config.update("jax_enable_x64", False)


def what_does_not_fit_is_refused(folder: Path) -> None:
    """A batch that the mesh does not divide, an unclear mesh, and other processes' devices: each says what to do."""
    both = mesh_of(2, 2)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"batch_size": 6}, r"A step of 6 samples .* is cut into 4 parts .* choose a batch_size so that they do"),
        ({"sharding": both}, r"The mesh has the axes \('data', 'model'\), and which of them cut the batch is not told"),
        ({"sharding": "data"}, "sharding is a str: give a jax.sharding.NamedSharding"),
        ({"sharding": NamedSharding(both, _jax.P("data", "model"))}, "cuts more than the batch dimension"),
        ({"ahead": -1}, "ahead=-1 is no number of batches"),
        ({"world": 2, "rank": 0}, r"The mesh has devices of the processes \[0\], and 2 train together"),
    ]
    for options, text in cases:
        with pytest.raises(ArgumentError, match=text):
            make(folder, **options)


def the_last_batch(folder: Path) -> None:
    """A short last batch is placed and recorded where it divides over the mesh, and refused before the first if not."""
    stream = make(folder, 60, drop_last=False)
    sizes = []
    for batch in stream:
        stream.update(batch["__index__"], loss_of(batch["txt"]))
        sizes.append(batch["__weight__"].shape[0])
    assert sizes == [8] * 7 + [4]
    assert stream.stats.recorded == 60
    other = make(folder / "other", 61, drop_last=False)
    with pytest.raises(ArgumentError, match="The last batch of epoch 0 has 5 samples, which do not divide over the 4"):
        iter(other)


# ---- losses


def losses_find_their_ids(folder: Path) -> None:
    """Cut as the batch, the same on every device, narrow, from numpy or from one device: each loss is its sample's."""
    stream = make(folder)
    mesh = mesh_of(4)
    forms: list[Callable[[Any], Any]] = [
        jax.jit(loss_of),
        _jax.jit(loss_of, out_shardings=NamedSharding(mesh, _jax.P())),
        lambda texts: jax.jit(loss_of)(texts).astype(jnp.bfloat16),
        lambda texts: loss_of(np.asarray(texts)),
        lambda texts: jnp.asarray(loss_of(np.asarray(texts))),
    ]
    for number, batch in enumerate(stream):
        stream.update(batch["__index__"], forms[number % len(forms)](batch["txt"]))
    ids = np.arange(205)
    values = table_of(stream)
    seen = ~np.isnan(values)
    assert seen.sum() == 200
    assert np.allclose(values[seen], loss_of(ids)[seen], rtol=2**-8)
    plain = make(folder)
    for batch in plain:
        plain.record(batch["__index__"], loss_of(batch["__index__"]))
    exact = ~np.isnan(table_of(plain))
    assert np.allclose(table_of(plain)[exact], loss_of(ids)[exact], rtol=2**-11)


def ids_stay_int64(folder: Path) -> None:
    """Ids beyond 2^31 reach `record` as they were."""
    stream = make(folder)
    told: list[tuple[Any, Any]] = []
    stream.stream.session.memory.check_ids = lambda ids: None
    stream.stream.record = lambda ids, losses: told.append((ids, losses))
    ids = 2**33 + np.arange(8) * 2**34
    stream.update(ids, jnp.arange(8.0))
    stream.update(ids.astype(np.uint64) + 1, jnp.arange(8.0))
    _ = stream.stats
    assert told[0][0].dtype == np.int64
    assert told[0][0].tolist() == [*ids.tolist(), *(ids + 1).tolist()]
    assert told[0][1].tolist() == [*range(8)] * 2


def bad_losses_are_counted(folder: Path) -> None:
    """NaN and infinite losses never enter: the older value stays, and stats tell how many there were."""
    stream = make(folder)
    ids = np.arange(8)
    stream.update(ids, jnp.full(8, 2.0))
    stream.update(ids, jnp.array([jnp.nan, jnp.inf, 3, 3, 3, 3, 3, 3]))
    assert stream.stats.bad_losses == 2
    assert table_of(stream)[:8].tolist() == [2, 2, 3, 3, 3, 3, 3, 3]


def stand_ins_are_ignored(folder: Path) -> None:
    """The id −1 of a sample that stands in for a broken one is none, and its weight is 0."""

    def fragile(field: str, data: bytes) -> int:
        if field == "txt" and int(data) % 50 == 3:
            message = "broken"
            raise ValueError(message)
        return int(data)

    stream = make(folder, decode=fragile, on_error="skip")
    with pytest.warns(UserWarning, match="Skipped a sample"):
        batches = list(stream)
    for batch in batches:
        stream.update(batch["__index__"], loss_of(batch["txt"]))
        assert ((batch["__index__"] < 0) == (np.asarray(batch["__weight__"]) == 0)).all()
    assert stream.stats.recorded == 200 - stream.stats.skipped
    assert stream.stats.skipped > 0


def losses_move_in_groups(folder: Path) -> None:
    """Losses wait until a group of steps is full, and all of them are there whenever they are needed."""
    stream = make(folder, batch_size=4, sharding=mesh_of(4))
    for number in range(FLUSH_STEPS + 4):
        stream.update(np.arange(4) + number, jnp.ones(4))
    assert stream.stream.stats.recorded == FLUSH_STEPS * 4
    assert stream.stats.recorded == (FLUSH_STEPS + 4) * 4


def later_writes_change_nothing(folder: Path) -> None:
    """A loop that reuses its buffers after update() does not change what was recorded."""
    stream = make(folder)
    ids, losses = np.arange(8), np.full(8, 1.5)
    stream.update(ids, losses)
    ids[:], losses[:] = 9, 9
    assert table_of(stream)[:8].tolist() == [1.5] * 8
    assert np.isnan(table_of(stream)[9])


def one_mean_for_all(folder: Path) -> None:
    """With smooth=BLS() the mean of a step will do, from a device or not."""
    stream = make(folder, policy=SeTa(num_epochs=4, target=0.4, smooth=BLS(0.9)))
    stream.update(np.arange(8), jnp.float32(2.0))
    stream.update(np.arange(8, 16), np.float32(3.0))
    assert stream.stats.recorded == 16


def columns_come_along(folder: Path) -> None:
    """What a policy asks for besides the losses goes the same way; other names and lengths are refused at once."""
    stream = make(folder, policy=Kakurenbo(num_epochs=4))
    ids, losses = np.arange(8), jnp.arange(8.0)
    stream.update(ids, losses, flags=losses > 3)
    _ = stream.stats
    assert stream.stream.session.memory.losses.columns["flags"][:8].tolist() == [False] * 4 + [True] * 4
    asked = r"update\(\) got {}= that is .*: the policy asks for flags beside the losses"
    with pytest.raises(LossError, match=asked.format("colour")):
        stream.update(ids, losses, colour=losses)
    with pytest.raises(LossError, match=asked.format("flags")):
        stream.update(ids, losses, flags=losses[:4] > 3)
    with pytest.raises(LossError, match="flags= that is a bool"):
        stream.update(ids, losses, flags=True)
    assert stream.stats.recorded == 8


def other_batches_are_refused(folder: Path) -> None:
    """Ids that JAX or a list made, another length, and one loss for all: each error tells both sides."""
    stream = make(folder)
    ids, losses = np.arange(8), jnp.ones(8)
    for wrong in (jnp.arange(8), [1, 2], np.ones(8), np.ones(8, bool)):
        with pytest.raises(LossError, match=r"update\(\) takes numpy integers.*in JAX ids would be 32 bits wide"):
            stream.update(wrong, losses)
    with pytest.raises(LossError, match="losses that are a list"):
        stream.update(ids, [1.0] * 8)
    shapes: list[tuple[Any, Any]] = [(ids[:4], losses), (ids, losses[:4]), (ids, losses.mean()), (ids, losses[:, None])]
    for some, other in shapes:
        with pytest.raises(LossError, match="this step has 8 samples here of 8 in all: give one loss per sample"):
            stream.update(some, other)
    with pytest.raises(LossError, match="205"):
        stream.update(ids + 200, losses)
    assert stream.stats.recorded == 0
    assert stream.state_dict()["step"] == 0


def lost_losses_are_told(folder: Path) -> None:
    """Losses that were donated or deleted before they moved are an error; those of the other steps are recorded."""
    stream = make(folder)
    lost = jnp.ones(8)
    stream.update(np.arange(8), lost)
    stream.update(np.arange(8, 16), jnp.ones(8))
    lost.delete()
    with pytest.raises(LossError, match=r"The losses of a step \(ids 0, …\) could not be copied .*do not donate"):
        _ = stream.stats
    assert stream.stats.recorded == 8


def an_exception_is_not_hidden(folder: Path) -> None:
    """Where training fails, its error is raised and not that of losses that are lost with it."""
    lost = jnp.ones(8)
    message = "out of memory"

    def train() -> None:
        with make(folder) as stream:
            stream.update(np.arange(8), lost)
            lost.delete()
            raise MemoryError(message)

    with pytest.raises(MemoryError, match=message):
        train()
    stream = make(folder)
    again = jnp.ones(8)
    stream.update(np.arange(8), again)
    again.delete()
    with pytest.raises(LossError, match="could not be copied"):
        stream.__exit__(None, None, None)


def the_mean_is_weighted(folder: Path) -> None:
    """sum(weight × loss) / G, with its gradient, inside jit and cut over the mesh."""
    cut = NamedSharding(mesh_of(4), _jax.P("data"))
    losses = _jax.device_put(np.arange(8, dtype=np.float32), cut)
    weights = _jax.device_put(np.array([1, 1, 2.5, 0, 1, 1, 1, 1], np.float32), cut)
    mean, gradient = jax.jit(jax.value_and_grad(weighted_mean))(losses, weights)
    assert float(mean) == (0 + 1 + 5 + 0 + 4 + 5 + 6 + 7) / 8
    assert np.array_equal(gradient, np.asarray(weights) / 8)


# ---- position


def trained(stream: Any, seen: list[list[int]], most: int | None = None) -> None:
    """Train over the epoch that is set, or over some of its steps."""
    step = jax.jit(loss_of)
    for batch in stream:
        stream.update(batch["__index__"], step(batch["txt"]))
        seen.append(batch["__index__"].tolist())
        if len(seen) == most:
            return


def resume_in_mid_epoch(folder: Path) -> None:
    """A checkpoint taken while batches wait ahead counts those trained on, and goes on with the very same batches."""
    options: dict[str, Any] = {"policy": SeTa(num_epochs=4, target=0.4)}
    reference: list[list[int]] = []
    with make(folder, state=str(folder / "whole"), **options) as stream:
        for epoch in range(4):
            stream.set_epoch(epoch)
            trained(stream, reference)
    assert 0 < len(reference) < 4 * 25
    seen: list[list[int]] = []
    stream = make(folder, state=str(folder / "cut"), **options)
    stream.set_epoch(0)
    trained(stream, seen)
    stream.set_epoch(1)
    first = len(seen)
    trained(stream, seen, first + 3)
    saved = json.loads(json.dumps(stream.state_dict()))
    assert (saved["epoch"], saved["step"]) == (1, 3)
    stream.__exit__(MemoryError, MemoryError(), None)
    with make(folder, state=str(folder / "cut"), **options) as again:
        again.load_state_dict(saved)
        assert again.epoch == 1
        for epoch in range(1, 4):
            again.set_epoch(epoch)
            trained(again, seen)
        assert again.progress == 1.0
        assert again.steps(4).is_exact
    assert seen == reference


def leaving_early(folder: Path) -> None:
    """An iteration that is left, or during which another epoch is set, ends; the next begins at its first step.

    No thread stays behind, also of a stream that is dropped without being closed.
    """
    stream = make(folder)
    first = [batch["__index__"].tolist() for batch in stream]
    for batch in stream:
        assert batch["__index__"].tolist() == first[0]
        break
    assert [batch["__index__"].tolist() for batch in stream] == first
    under_way = iter(stream)
    next(under_way)
    stream.set_epoch(1)
    assert list(under_way) == []
    both = [iter(stream), iter(stream)]
    assert list(both[0]) == []
    assert len(list(both[1])) == 25
    iter(stream)
    stream.close()
    iter(make(folder))
    for thread in threading.enumerate():
        if thread.name.startswith("seta_stream"):
            thread.join(60)  # that of what was dropped ends by itself
    assert [one.name for one in threading.enumerate() if one.name.startswith("seta_stream")] == []


def errors_come_through(folder: Path) -> None:
    """An error while a batch is made ahead is raised where the batch is asked for."""

    def fragile(field: str, data: bytes) -> int:
        message = "no number"
        raise ValueError(message)

    batches = iter(make(folder, decode=fragile))
    with pytest.raises(DecodeError, match="no number"):
        next(batches)
    assert list(batches) == []


def a_mesh_of_its_own(folder: Path) -> None:
    """A part of a step's rows may be asked of a mesh that has fewer devices than the process."""
    stream = make(folder, sharding=mesh_of(2), policy=Full())
    assert len(next(iter(stream))["txt"].sharding.device_set) == 2


CHECKS: dict[str, Callable[[Path], None]] = {
    check.__name__: check
    for check in (
        batches_are_the_streams,
        kinds_of_columns,
        sharded_as_asked,
        numbers_keep_their_values,
        what_does_not_fit_is_refused,
        the_last_batch,
        losses_find_their_ids,
        ids_stay_int64,
        bad_losses_are_counted,
        stand_ins_are_ignored,
        losses_move_in_groups,
        later_writes_change_nothing,
        one_mean_for_all,
        columns_come_along,
        other_batches_are_refused,
        lost_losses_are_told,
        an_exception_is_not_hidden,
        the_mean_is_weighted,
        resume_in_mid_epoch,
        leaving_early,
        errors_come_through,
        a_mesh_of_its_own,
    )
}


def outcomes(folder: Path) -> dict[str, str]:
    """Run every check; return "held" or the traceback, by name."""
    told = {}
    for name, check in CHECKS.items():
        own = folder / name
        own.mkdir()
        try:
            check(own)
            told[name] = "held"
        except BaseException:  # noqa: BLE001  (pytest's own failure is no Exception)
            told[name] = traceback.format_exc()
    return told

"""The selection of an epoch is the stream's own, bit for bit, in every spelling; and its samples become new shards."""

from __future__ import annotations

import base64
import contextlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from carry_runs import loss_of, selected_by_stream, train
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from small_corpora import MakeCorpus, write_tar

from seta_stream import InfoBatch, SeTa, SetaStream, StaticRandom
from seta_stream.carry import export_selection, export_shards, import_losses, open_source, read_selection
from seta_stream.carry.choosing import choose
from seta_stream.carry.masks import ListedShard, as_json, as_text
from seta_stream.corpus.indexing import open_corpus
from seta_stream.corpus.listing import expand
from seta_stream.errors import ArgumentError, CorpusError, GenerationError, PolicyError, SetaStreamWarning, StateError
from seta_stream.jobs import Engine
from seta_stream.losses.generations import Generations
from seta_stream.losses.history import Judged
from seta_stream.losses.table import LossTable
from seta_stream.policies import UCB, Kakurenbo, PerGroup, Rule
from seta_stream.read.options import Reading

SETA = SeTa(num_epochs=6, target=0.5, num_group=4)


@pytest.fixture
def urls(make_corpus: MakeCorpus) -> list[str]:
    return make_corpus(3, 40)


@pytest.fixture
def state(urls, tmp_path) -> Path:
    train(urls, tmp_path / "state", SETA)
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        (SETA, {}),
        (InfoBatch(num_epochs=6), {}),
        (UCB(), {}),
        (StaticRandom(0.3), {}),
        (PerGroup(SETA, by="shard"), {}),
        (SETA, {"unit": "run", "read": Reading(run_bytes=6000)}),
    ],
    ids=["seta", "weighted", "columns", "static", "groups", "runs"],
)
@pytest.mark.parametrize("seed", [0, 5])
def test_the_selection_is_the_streams(urls, tmp_path, policy, options, seed):
    """Whatever policy: by groups, by columns, with weights, in runs, and for any seed."""
    train(urls, tmp_path / "state", policy, skip=7, seed=seed, **options)
    selected, _ = choose(open_source(str(tmp_path / "state")))
    mask, weight = selected_by_stream(urls, tmp_path / "state", policy, 2, seed=seed, **options)
    assert 0 < selected.count < 120
    assert selected.mask.tolist() == mask.tolist()
    found = selected.mask.astype(np.float32) if selected.weight is None else selected.weight
    assert found.tobytes() == weight.tobytes()
    assert (selected.epoch, selected.seed, selected.policy) == (2, seed, type(policy).__name__)


def test_an_earlier_epoch(urls, state):
    """The one whose rule a kept generation holds."""
    source = open_source(str(state), epoch=0)
    selected, _ = choose(source)
    assert selected.epoch == 1
    with pytest.raises(ArgumentError, match="holds no rule for it, but for epoch 1"):
        choose(source, epoch=4)
    with pytest.raises(GenerationError, match="kept are"):
        open_source(str(state), epoch=7)


def test_another_policy_decides_anew(urls, state):
    """As a stream with that policy on this state; losses that are older stay what they are."""
    selected, _ = choose(open_source(str(state)), policy="InfoBatch(num_epochs=8)")
    mask, weight = selected_by_stream(urls, state, InfoBatch(num_epochs=8), 2)
    assert selected.mask.tolist() == mask.tolist()
    assert selected.weight is not None
    assert selected.weight.tobytes() == weight.tobytes()
    assert choose(open_source(str(state)), policy="seta(num_epochs=6, target=0.5, num_group=4)", epoch=4)[0].epoch == 4
    with pytest.raises(PolicyError, match="There is no policy called"):
        choose(open_source(str(state)), policy="nothing")


def test_imported_losses_hold_no_rule(urls, tmp_path):
    """So a policy must be named; the selection is then the stream's of epoch 0."""
    (tmp_path / "l.csv").write_text("id,loss\n" + "".join(f"{at},{at % 9}\n" for at in range(120)))
    import_losses(tmp_path / "l.csv", urls, str(tmp_path / "new"))
    source = open_source(str(tmp_path / "new"))
    with pytest.raises(
        ArgumentError, match=r'holds no rule for it\. Name the policy that shall decide, as --policy "seta'
    ):
        choose(source)
    selected, _ = choose(source, policy="ucb")
    assert selected.mask.tolist() == selected_by_stream(urls, tmp_path / "new", UCB(), 0)[0].tolist()


def committed(urls, state, rule, facts, judged_by="loss"):
    table, shards = LossTable([40, 40, 40]), open_corpus(urls).table
    table.record(np.arange(120), loss_of(np.arange(120), 0))
    judged = Judged(table.histogram(), rule, judged_by=judged_by)
    Generations(str(state)).commit(0, table, shards, rule, None, facts, judged=judged)
    (state / "corpus").write_bytes(shards.to_bytes())


def test_a_policy_of_the_users_own(urls, tmp_path):
    """Its rule is applied where it goes by the loss, and a warning says what may be missing; else it is refused."""
    rule = Rule([1.0], [0.0, 1.0])
    committed(urls, tmp_path / "one", rule, {"policy": {"name": "Mine"}})
    with pytest.warns(SetaStreamWarning, match="Mine is not known here: its rule is applied to the losses"):
        selected, table = choose(open_source(str(tmp_path / "one")))
    assert selected.mask.tolist() == (table.values >= 1.0).tolist()
    committed(urls, tmp_path / "two", rule, {"policy": {"name": "Mine"}}, judged_by="score")
    with pytest.raises(StateError, match="it was made by Mine, which is not known here"):
        choose(open_source(str(tmp_path / "two")))


def test_nothing_selected(urls, tmp_path):
    """Is said, not written."""
    committed(urls, tmp_path / "one", Rule([], [0.0], unseen_keep=0.0), {})
    with pytest.raises(PolicyError, match="selects no sample at all"):
        choose(open_source(str(tmp_path / "one")))


def test_groups_need_indexes(urls, tmp_path):
    """Which --no-keys keeps from being read."""
    train(urls, tmp_path / "state", PerGroup(SETA, by="shard"))
    with pytest.raises(ArgumentError, match="Leave --no-keys out"):
        choose(open_source(str(tmp_path / "state"), with_keys=False))


# ---- files


def test_rows_of_a_selection(urls, state, tmp_path):
    """Every sample, whether it is kept and with which weight."""
    source = open_source(str(state))
    selected, _ = choose(source, policy="InfoBatch(num_epochs=8)")
    done = export_selection(source, selected, tmp_path / "s.parquet")
    assert (done.rows, done.selected, done.samples, done.seen) == (120, selected.count, 120, None)
    table = parquet.read_table(tmp_path / "s.parquet")
    assert table.column_names == ["url", "key", "index", "id", "selected", "weight"]
    assert table["selected"].to_pylist() == selected.mask.tolist()
    assert np.array(table["weight"], np.float32).tobytes() == selected.weight.tobytes()
    export_selection(source, selected, tmp_path / "s.csv")
    rows = (tmp_path / "s.csv").read_text().splitlines()
    assert rows[0] == "url,key,index,id,selected,weight"
    assert sum(row.split(",")[4] == "1" for row in rows[1:]) == selected.count


@pytest.mark.parametrize("ending", [".json", ".txt"])
@pytest.mark.parametrize("policy", [None, "InfoBatch(num_epochs=8)"])
def test_lists_of_shards_with_masks(urls, state, tmp_path, ending, policy):
    """Read back they are the same; weights are there where any is not 1."""
    source = open_source(str(state))
    selected, _ = choose(source, policy=policy)
    file = tmp_path / f"s{ending}"
    assert export_selection(source, selected, file).rows == 3
    found = read_selection(file.read_bytes(), str(file))
    assert [one.url for one in found.shards] == urls
    assert np.concatenate([one.mask for one in found.shards]).tolist() == selected.mask.tolist()
    assert found.facts["generation"] == source.generation.name
    assert (found.facts["epoch"], found.facts["selected"], found.facts["seed"]) == (2, selected.count, 0)
    if policy is None:
        assert [one.weights for one in found.shards] == [None] * 3
    else:
        weights = np.concatenate([one.weights for one in found.shards])
        assert weights.tobytes() == selected.weight[selected.mask].tobytes()


def test_the_text_is_a_list_of_shards(urls, state, tmp_path):
    """SetaStream takes it as it takes any .txt list: masks are comments."""
    source = open_source(str(state))
    export_selection(source, choose(source)[0], tmp_path / "s.txt")
    assert expand(str(tmp_path / "s.txt")) == urls


@pytest.mark.filterwarnings("ignore:.*unclosed file:ResourceWarning")  # webdataset leaves them to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # likewise
def test_webdataset_reads_what_the_mask_says(urls, state, tmp_path):
    """docs/exporting.md's way: counting the samples of each shard."""
    import webdataset as wds

    source = open_source(str(state))
    selected, _ = choose(source)
    export_selection(source, selected, tmp_path / "s.json")
    listed = read_selection((tmp_path / "s.json").read_bytes())
    keys = []
    for shard in listed.shards:
        samples = wds.WebDataset(shard.url, shardshuffle=False, empty_check=False)
        keys += [sample["__key__"] for sample, kept in zip(samples, shard.mask, strict=True) if kept]
    assert keys == [f"{at:08d}" for at in np.flatnonzero(selected.mask)]


def test_wids_reads_the_json(urls, state, tmp_path):
    """It is an index of shards as that package has them: names and counts."""
    source = open_source(str(state))
    export_selection(source, choose(source)[0], tmp_path / "s.json")
    told = json.loads((tmp_path / "s.json").read_text())
    assert (told["__kind__"], told["wids_version"]) == ("wids-shard-index-v1", 1)
    assert [(one["url"], one["nsamples"]) for one in told["shardlist"]] == [(url, 40) for url in urls]


SHARDS = [
    ListedShard("/a.tar", np.array([1, 0, 0, 0, 0, 0, 0, 1, 1, 0], np.bool_)),
    ListedShard("s3://b/c.tar", np.array([1, 1, 0], np.bool_), np.array([1.0, 2.5], np.float32)),
    ListedShard("/empty.tar", np.array([], np.bool_)),
]
FACTS = {"epoch": 3, "generation": "gen-000002-ab"}

GOLDEN_TEXT = """\
# seta_stream selection 1
# {"epoch": 3, "generation": "gen-000002-ab"}
/a.tar
#mask 10 3 gYA=
s3://b/c.tar
#mask 3 2 wA== AACAPwAAIEA=
/empty.tar
#mask 0 0 -
"""

GOLDEN_JSON = """\
{"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": "seta_stream selection", \
"seta_stream": {"version": 1, "epoch": 3, "generation": "gen-000002-ab"}, "shardlist": [
{"url": "/a.tar", "nsamples": 10, "selected": 3, "mask": "gYA="},
{"url": "s3://b/c.tar", "nsamples": 3, "selected": 2, "mask": "wA==", "weights": "AACAPwAAIEA="},
{"url": "/empty.tar", "nsamples": 0, "selected": 0, "mask": ""}
]}
"""


def test_golden_bytes():
    """docs/formats/selection.md: bits as numpy.packbits has them, weights little-endian, both in base64."""
    assert "".join(as_text(FACTS, SHARDS)) == GOLDEN_TEXT
    assert "".join(as_json(FACTS, SHARDS)) == GOLDEN_JSON
    assert base64.b64decode("gYA=") == bytes([0b10000001, 0b10000000])
    for golden in (GOLDEN_TEXT, GOLDEN_JSON):
        found = read_selection(golden.encode())
        assert found.facts == FACTS
        for one, other in zip(found.shards, SHARDS, strict=True):
            assert (one.url, one.mask.tolist()) == (other.url, other.mask.tolist())
            assert (one.weights is None) == (other.weights is None)
        assert found.shards[1].weights.tolist() == [1.0, 2.5]


@given(st.lists(st.tuples(st.text("abc/ é", min_size=1), st.lists(st.booleans(), max_size=20)), max_size=4))
def test_every_selection_survives(shards):
    """In both spellings; what is no line of text goes into JSON alone."""
    listed = [ListedShard(f"/{name.strip()}x", np.array(mask, np.bool_)) for name, mask in shards]
    for spell in (as_json, as_text):
        found = read_selection("".join(spell({}, listed)).encode())
        assert [(one.url, one.mask.tolist()) for one in found.shards] == [
            (one.url, one.mask.tolist()) for one in listed
        ]


@pytest.mark.parametrize("url", ["#a.tar", "a\nb.tar", " a.tar", "a\u2028b.tar"])
def test_urls_that_are_no_line(url):
    """Only JSON can hold them."""
    with pytest.raises(CorpusError, match=r"whose lines are URLs: write a \.json file"):
        list(as_text({}, [ListedShard(url, np.array([], np.bool_))]))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOLDEN_TEXT.replace("selection 1", "selection 2"), "it is of version 2, and this release reads version 1"),
        (GOLDEN_JSON.replace('"version": 1, "epoch"', '"version": 2, "epoch"'), "it is of version 2"),
        (GOLDEN_TEXT.replace("10 3 gYA=", "10 4 gYA="), "4 samples should be selected and 3 are"),
        (GOLDEN_TEXT.replace("10 3 gYA=", "17 3 gYA="), "the mask of '/a.tar' has 2 bytes, for 17 samples"),
        (GOLDEN_TEXT.replace("AACAPwAAIEA=", "AACAPw=="), "2 samples should be selected"),
        (GOLDEN_TEXT.replace("#mask 10", "#masks 10"), "no mask follows /a.tar"),
        (GOLDEN_TEXT[:-30], "it is cut short"),
        (GOLDEN_TEXT.replace("gYA=", "g*A="), "it is malformed"),
        ("# a list\n/a.tar\n", "it does not begin as one"),
        ("#", "it is malformed"),
        ('{"shardlist": []}', "it is no shard index with masks"),
        ("[]", "it is no shard index with masks"),
        (GOLDEN_JSON.replace('"nsamples": 10', '"nsamples": -1'), "for -1 samples"),
        (GOLDEN_JSON.replace('"nsamples": 10', '"nsamples": "x"'), "for 'x' samples"),
        (GOLDEN_JSON.replace('"nsamples": 10', '"nsamples": 99999999999'), "for 99999999999 samples"),
        (GOLDEN_JSON.replace('"url": "/a.tar", ', ""), "it is malformed"),
        (GOLDEN_JSON[:-5], "it is malformed"),
    ],
)
def test_damaged_selections(text, told):
    """Named with what is wrong, and never taken."""
    with pytest.raises(CorpusError, match="Cannot read the selection s: ") as error:
        read_selection(text.encode(), "s")
    assert told in error.value.message


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_selection_or_an_error(data, is_text):
    """Nothing else is raised."""
    with contextlib.suppress(CorpusError):
        read_selection((b"# seta_stream selection 1\n# {}\n" if is_text else b"") + data)


# ---- new shards


def members_of(paths) -> dict[str, bytes]:
    found = {}
    for path in paths:
        with tarfile.open(path) as tar:
            for member in tar:
                found[member.name] = tar.extractfile(member).read()
    return found


def test_new_shards_hold_the_selected_samples(urls, state, tmp_path):
    """Byte for byte, in corpus order, each under its shard's name; a stream on them reads just these."""
    source = open_source(str(state))
    selected, _ = choose(source)
    report = export_shards(source, selected, str(tmp_path / "new"))
    assert (report.samples, report.members, report.shards) == (selected.count, 2 * selected.count, 3)
    paths = sorted((tmp_path / "new").glob("*.tar"))
    assert [path.name for path in paths] == [Path(url).name for url in urls]
    wanted = {f"{at:08d}" for at in np.flatnonzero(selected.mask)}
    old = {name: data for name, data in members_of(urls).items() if name.partition(".")[0] in wanted}
    new = members_of(paths)
    assert list(new) == list(old)
    assert new == old
    with SetaStream([str(path) for path in paths], shuffle=False) as stream:
        assert [sample["__key__"] for sample in stream] == sorted(wanted)


def test_the_bytes_of_members_stay(tmp_path):
    """Headers too, long names and all: each extent of a new shard is one of the old one's."""
    names = [f"{'long' * 40}{at:03d}" for at in range(20)]
    path = write_tar(tmp_path / "a.tar", [(f"{name}.txt", name.encode()) for name in names])
    train([str(path)], tmp_path / "state", SETA)
    source = open_source(str(tmp_path / "state"))
    selected, _ = choose(source)
    export_shards(source, selected, str(tmp_path / "new"))
    old = open_corpus(str(path)).index(0)
    new = open_corpus(str(tmp_path / "new" / "a.tar")).index(0)
    extents = [
        [Path(file).read_bytes()[start:stop] for start, stop in zip(index.extent_start, index.extent_stop, strict=True)]
        for file, index in ((path, old), (tmp_path / "new" / "a.tar", new))
    ]
    assert extents[1] == [extents[0][at] for at in np.flatnonzero(selected.mask)]


def selected_by(source, mask):
    from seta_stream.carry.choosing import Selected

    return Selected(0, np.array(mask, np.bool_), None, 0, "mine")


@settings(max_examples=40)
@given(st.data())
def test_any_mask(tmp_path_factory, data):
    """Runs, single samples, whole and empty shards, and shards of a wanted size."""
    folder = tmp_path_factory.mktemp("any")
    counts = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=4).filter(any))
    paths, first = [], 0
    for shard, count in enumerate(counts):
        members = [(f"{at:04d}.txt", str(at).encode()) for at in range(first, first + count)] or [("readme", b"")]
        paths.append(str(write_tar(folder / f"t-{shard}.tar", members)))
        first += count
    mask = data.draw(st.lists(st.booleans(), min_size=first, max_size=first).filter(any))
    size = data.draw(st.none() | st.integers(1, 5))
    table, shards = LossTable(counts), open_corpus(paths).table
    table.record(np.arange(first), np.ones(first))
    Generations(str(folder / "state")).commit(0, table, shards, None, None, {})
    source = open_source(str(folder / "state"), urls=paths)
    report = export_shards(source, selected_by(source, mask), str(folder / "new"), shard_samples=size)
    found = [members_of([path]) for path in sorted((folder / "new").glob("*.tar"))]
    keys = [name.partition(".")[0] for each in found for name in each if name != "readme"]
    assert keys == [f"{at:04d}" for at in np.flatnonzero(mask)]
    assert report.samples == sum(mask)
    if size is not None:
        lengths = [len([name for name in each if name != "readme"]) for each in found]
        assert lengths[:-1] == [size] * (len(lengths) - 1)
        assert 0 < lengths[-1] <= size


def test_what_is_written_is_gone_on_from(urls, state, tmp_path):
    """The same call writes nothing again, only what is missing; another selection is refused."""
    source = open_source(str(state))
    selected, _ = choose(source)
    folder = str(tmp_path / "new")
    export_shards(source, selected, folder)
    assert export_shards(source, selected, folder, engine=Engine(jobs=1)).written == 0
    before = (tmp_path / "new" / Path(urls[1]).name).read_bytes()
    (tmp_path / "new" / Path(urls[1]).name).unlink()
    assert export_shards(source, selected, folder).written == 1
    assert (tmp_path / "new" / Path(urls[1]).name).read_bytes() == before
    other = selected_by(source, ~selected.mask)
    with pytest.raises(ArgumentError, match="it holds another repack, and what differs is: wanted is"):
        export_shards(source, other, folder)


def test_shards_without_selected_samples_are_left_out(urls, state, tmp_path):
    """The others keep their names."""
    source = open_source(str(state))
    mask = np.zeros(120, np.bool_)
    mask[[3, 100]] = True
    report = export_shards(source, selected_by(source, mask), str(tmp_path / "new"))
    assert report.shards == 2
    names = [path.name for path in sorted((tmp_path / "new").glob("*.tar"))]
    assert names == [Path(urls[0]).name, Path(urls[2]).name]


def test_new_shards_in_two_processes_and_by_bytes(urls, state, tmp_path):
    """Split and joined in corpus order, numbered with the prefix."""
    source = open_source(str(state))
    selected, _ = choose(source)
    report = export_shards(
        source, selected, str(tmp_path / "new"), shard_bytes=20 * 2048, prefix="p", engine=Engine(jobs=2)
    )
    paths = sorted((tmp_path / "new").glob("*.tar"))
    assert [path.name for path in paths] == [f"p-{number:06d}.tar" for number in range(report.shards)]
    assert report.shards == -(-selected.count // 20)
    keys = [name.partition(".")[0] for name in members_of(paths)][::2]
    assert keys == [f"{at:08d}" for at in np.flatnonzero(selected.mask)]


def test_kakurenbo_needs_its_flags(urls, tmp_path):
    """A policy that judges by what was recorded beside the loss selects as its stream does."""
    policy = Kakurenbo(num_epochs=6)
    with SetaStream(urls, policy=policy, state=str(tmp_path / "state"), batch_size=2) as stream:
        for batch in stream.batches(2):
            ids = np.asarray(batch["__index__"])
            stream.record(ids, loss_of(ids, 0), flags=(ids % 3 == 0).astype(np.uint8))
    selected, _ = choose(open_source(str(tmp_path / "state")))
    assert selected.mask.tolist() == selected_by_stream(urls, tmp_path / "state", policy, 1)[0].tolist()

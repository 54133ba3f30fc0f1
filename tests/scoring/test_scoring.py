"""Losses ahead of training: scored by any model, kept shard by shard, committed once, and used by epoch 0."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import job_works
import numpy as np
import pytest
from click.testing import CliRunner
from small_corpora import MakeCorpus, write_tar

from seta_stream import SeTa, SetaStream
from seta_stream.cli import main
from seta_stream.corpus.indexing import open_corpus
from seta_stream.errors import ArgumentError, DecodeError, LossError, MissingExtraError, StateError, StateLockedError
from seta_stream.jobs import Engine
from seta_stream.losses.generations import Generations
from seta_stream.losses.table import LossTable
from seta_stream.read.decode import _by_field
from seta_stream.scoring import Choice, Progress, score
from seta_stream.scoring.model import load_model
from seta_stream.scoring.running import Report
from seta_stream.scoring.shard import ShardTask, Work

TESTS = Path(__file__).parent.parent
FORTY = 40  # samples of the corpus, in four shards


@pytest.fixture
def urls(make_corpus: MakeCorpus) -> list[str]:
    return make_corpus(4, 10)


@pytest.fixture
def scored(urls: list[str], tmp_path: Path) -> Callable[..., Report]:
    """Score the corpus in this process into one state; options are Choice's."""

    def scored(model: str = "by_number", progress: Callable[[Progress], None] | None = None, **options: Any) -> Report:
        given: dict[str, Any] = {"decode": "basic", "batch_size": 4, "engine": Engine(jobs=1)} | options
        return score(Choice(urls, str(tmp_path / "state"), f"job_works:{model}", **given), progress)

    return scored


def losses_in(state: Path, urls: list[str]) -> Any:
    """Return the losses of the newest generation: float32 [samples]."""
    table = open_corpus(urls).table
    losses, generations = LossTable(table.samples), Generations(str(state))
    generations.load(generations.kept()[-1], losses, table)
    return losses.values


# ---- what it is for


def test_the_first_epoch_is_pruned(scored: Callable[..., Report], urls: list[str], tmp_path: Path) -> None:
    """A run with SeTa(warm=True) takes the losses up, and saves its target from epoch 0 on."""
    report = scored()
    assert (report.samples, report.scored, report.seen, report.failed) == (40, 40, 40, {"decode": 0, "loss": 0})
    assert (report.minimum, report.mean, report.maximum) == (0.0, 9.75, 19.5)
    assert losses_in(tmp_path / "state", urls).tolist() == [number / 2 for number in range(FORTY)]
    policy = SeTa(num_epochs=4, target=0.5, warm=True, num_group=4)
    with SetaStream(urls, policy=policy, state=str(tmp_path / "state"), decode="basic") as stream:
        stream.set_epoch(0)
        assert 0 < len(stream) < 30
        kept = [sample["__index__"] for sample in stream]
        stream.record(kept, [1.0] * len(kept))
    newest = Generations(str(tmp_path / "state")).kept()[-1]
    assert (newest.epoch, newest.parent) == (0, report.generation)


def test_it_is_a_generation_of_epoch_minus_one(scored: Callable[..., Report], urls: list[str], tmp_path: Path) -> None:
    """With its history line, the shard table beside it, and nothing else left."""
    report = scored()
    state = tmp_path / "state"
    (line,) = [json.loads(text) for text in (state / "history.jsonl").read_text().splitlines()]
    assert (line["epoch"], line["generation"], line["seen"]) == (-1, report.generation, 40)
    assert line["facts"]["scored"]["model"] == "job_works:by_number"
    assert sorted(path.name for path in state.iterdir()) == ["corpus", "history.jsonl", "losses"]
    told = CliRunner().invoke(main, ["inspect", str(state), "--json"])
    assert (told.exit_code, json.loads(told.stdout)["seen"]) == (0, 40)


def test_processes_give_the_same(scored: Callable[..., Report], urls: list[str], tmp_path: Path) -> None:
    """Two processes, one of which is killed in mid-job, give the losses that one gives."""
    report = scored("one_dies", engine=Engine(jobs=2))
    assert (tmp_path / "calls").stat().st_size >= 2
    assert report.seen == 40
    assert losses_in(tmp_path / "state", urls).tolist() == [number / 2 for number in range(FORTY)]


def test_progress_is_told(scored: Callable[..., Report]) -> None:
    """Once before the first shard, and after each."""
    told: list[Progress] = []
    scored("some_fail", told.append)
    assert [(one.samples_done, one.shards_done, one.failed) for one in told] == [(10 * n, n, n) for n in range(5)]
    assert {(one.samples, one.shards) for one in told} == {(40, 4)}


def test_a_bucket_does_as_well(s3_server: Any, s3_bucket: str, urls: list[str]) -> None:
    """Shards and state in a bucket: the index travels with the task, and nothing of the work is left there."""
    from seta_stream.store import store_for

    store = store_for(s3_bucket, s3_server.options)
    for url in urls:
        store.write(f"{s3_bucket}/{Path(url).name}", Path(url).read_bytes())
    choice = Choice(
        f"{s3_bucket}/train-*.tar", f"{s3_bucket}/state", "job_works:by_number", "basic", engine=Engine(jobs=2),
        storage_options=s3_server.options,
    )  # fmt: skip
    assert score(choice).mean == 9.75
    assert score(choice).scored == 0
    assert "scoring" not in store.names(f"{s3_bucket}/state")


# ---- interrupted


def test_what_is_done_is_kept(scored: Callable[..., Report], monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted after the second shard, the same call scores the other two."""
    calls: list[int] = []

    def counted(batch: dict[str, Any]) -> Any:
        calls.extend(batch["__index__"].tolist())
        return job_works.by_number(batch)

    monkeypatch.setattr(job_works, "counted", counted, raising=False)

    def interrupt(progress: Progress) -> None:
        if progress.shards_done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scored("counted", interrupt)
    assert scored("counted").scored == 20
    assert sorted(calls) == list(range(40))
    assert scored("counted").scored == 0
    assert len(calls) == 40


def test_killed_at_any_shard_it_goes_on(urls: list[str], tmp_path: Path) -> None:
    """After kill -9 the finished shards are there, whole, and the generation only when all are."""
    script = (
        "import os, signal, sys\n"
        "from seta_stream.jobs import Engine\n"
        "from seta_stream.scoring import Choice, score\n"
        "def told(progress):\n"
        "    if progress.shards_done == int(sys.argv[2]):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "score(Choice(sys.argv[3:], sys.argv[1], 'job_works:by_number', 'basic', engine=Engine(jobs=1)), told)\n"
    )
    state = tmp_path / "state"
    for after in (1, 2, 4):
        child = subprocess.run(
            [sys.executable, "-c", script, str(state), str(after), *urls],
            env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"}, timeout=60, check=False,
        )  # fmt: skip
        assert child.returncode == -signal.SIGKILL
        assert len(list((state / "scoring").glob("*/*.losses"))) == after
        assert Generations(str(state)).kept() == []
    report = score(Choice(urls, str(state), "job_works:by_number", "basic"))
    assert (report.scored, report.mean) == (0, 9.75)
    assert not (state / "scoring").exists()


def test_a_damaged_shard_is_scored_again(scored: Callable[..., Report], tmp_path: Path) -> None:
    """A file that a crash or a person left damaged is no reason to stop."""

    def interrupt(progress: Progress) -> None:
        if progress.shards_done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scored("some_fail", interrupt)
    (folder,) = (path.parent for path in (tmp_path / "state" / "scoring").glob("*/000000.losses"))
    (folder / "000000.losses").write_bytes(b"rubbish")
    (folder / "000001.failures.json").write_text('{"failed": 3}')
    report = scored("some_fail")
    assert (report.scored, report.seen, report.failed) == (30, 36, {"decode": 0, "loss": 4})


def test_another_model_begins_anew(scored: Callable[..., Report], tmp_path: Path) -> None:
    """What is half done with another model, decoder or corpus is refused, unless it is thrown away."""

    def interrupt(progress: Progress) -> None:
        if progress.shards_done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scored("some_fail", interrupt)
    with pytest.raises(
        StateError, match=r"begun with model 'job_works:some_fail', and now 'job_works:by_number'.*--re"
    ):
        scored()
    with pytest.raises(StateError, match=r"begun with decode 'basic', and now None; fields None, and now \['txt'\]"):
        scored("some_fail", decode=None, fields=("txt",))
    (tmp_path / "state" / "scoring" / "wanted.json").write_text("[]")
    with pytest.raises(StateError, match="begun with model None, and now"):
        scored()
    assert scored(restart=True).scored == 40


def test_a_mistake_leaves_nothing_to_throw_away(scored: Callable[..., Report]) -> None:
    """Where no shard was done, the next call may be another."""
    with pytest.raises(LossError, match="failed on samples"):
        scored("breaks")
    assert scored().scored == 40
    assert scored(restart=True).scored == 40


def test_losses_that_are_there_are_not_laid_over_in_silence(scored: Callable[..., Report]) -> None:
    """Those of another model, or imported ones: --restart says that they are no longer wanted, and may be cut off."""

    def interrupt(progress: Progress) -> None:
        if progress.shards_done == 1:
            raise KeyboardInterrupt

    assert scored("some_fail").scored == 40
    with pytest.raises(StateError, match=r"it holds other losses, gen-.*Name another --state, or give --restart"):
        scored()
    with pytest.raises(KeyboardInterrupt):
        scored("by_number", interrupt, restart=True)
    assert scored().scored == 30


def test_two_models_at_once_in_a_bucket(s3_server: Any, s3_bucket: str, urls: list[str]) -> None:
    """The one that began first is refused at its next shard, and leaves nothing that passes for the other's losses."""
    state = f"{s3_bucket}/state"

    def choice(model: str, **options: Any) -> Choice:
        given: dict[str, Any] = {"decode": "basic", "engine": Engine(jobs=1), "state_options": s3_server.options}
        return Choice(urls, state, f"job_works:{model}", **given, **options)

    def stop(progress: Progress) -> None:
        if progress.shards_done == 1:
            raise KeyboardInterrupt

    def meanwhile(progress: Progress) -> None:
        if progress.shards_done == 1:
            with pytest.raises(KeyboardInterrupt):
                score(choice("by_number", restart=True), stop)

    told: list[int] = []
    with pytest.raises(StateLockedError, match="another run became its writer after this one"):
        score(choice("some_fail"), lambda progress: (meanwhile(progress), told.append(progress.shards_done)))
    assert told == [0, 1]
    report = score(choice("by_number"))
    assert (report.scored, report.seen, report.mean) == (30, 40, 9.75)


def test_losses_of_another_model_never_pass_for_this_one_s(scored: Callable[..., Report], tmp_path: Path) -> None:
    """Not even where what they were made by is not told, as where nobody's lock holds."""

    def stop(progress: Progress) -> None:
        if progress.shards_done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scored("some_fail", stop)
    (tmp_path / "state" / "scoring" / "wanted.json").unlink()
    report = scored("by_number")
    assert (report.scored, report.mean) == (40, 9.75)


# ---- what fails


def test_samples_without_a_loss_are_counted(scored: Callable[..., Report], urls: list[str], tmp_path: Path) -> None:
    """By cause, the first few by name; they stay unseen."""
    report = scored("some_fail")
    assert (report.seen, report.failed) == (36, {"decode": 0, "loss": 4})
    assert [(one.key, one.cause) for one in report.failures] == [(f"000000{n}3", "loss") for n in range(4)]
    assert np.flatnonzero(np.isnan(losses_in(tmp_path / "state", urls))).tolist() == [3, 13, 23, 33]
    again = scored("some_fail")
    assert (again.failed, again.failures) == (report.failed, report.failures)


def test_samples_that_cannot_be_decoded(scored: Callable[..., Report], urls: list[str], tmp_path: Path) -> None:
    """They end it, or are counted and passed over."""
    with pytest.raises(DecodeError, match=r"Cannot decode field 'txt'.*sample '00000007'.*damaged text"):
        scored(decode="job_works:words")
    report = scored(decode="job_works:words", on_error="skip")
    assert (report.seen, report.failed) == (36, {"decode": 4, "loss": 0})
    assert report.failures[0].message == "txt: ValueError: damaged text"
    assert np.flatnonzero(np.isnan(losses_in(tmp_path / "state", urls))).tolist() == [7, 17, 27, 37]


def test_a_decoder_that_is_not_installed_fails_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no damage of samples that on_error="skip" could pass over."""
    path = write_tar(tmp_path / "pictures.tar", [("0.jpg", b"")])
    monkeypatch.setitem(sys.modules, "PIL", None)
    _by_field.cache_clear()
    with pytest.raises(MissingExtraError, match=r"^Images are decoded by Pillow, .*pip install 'seta-stream\[image\]'"):
        score(Choice([str(path)], str(tmp_path / "s"), "job_works:by_number", "pil", on_error="skip"))
    _by_field.cache_clear()


def test_what_fails_throughout_is_given_up(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """A model that gives no number, or a decoder that knows nothing, does not run to the end of the corpus."""
    many = make_corpus(3, 70, name="many")
    told: list[int] = []

    def scored(model: str, **options: Any) -> Report:
        choice = Choice(many, str(tmp_path / "s"), f"job_works:{model}", engine=Engine(jobs=1), **options)
        return score(choice, lambda progress: told.append(progress.shards_done))

    with pytest.raises(
        LossError, match=r"Gave up after 70 of 70 samples failed: the model.*'00000000'.*infinite.*--re"
    ):
        scored("all_fail")
    assert told == [0, 1]
    with pytest.raises(DecodeError, match=r"Gave up after 70 of 70.*the decoder.*txt: ValueError: all is damaged"):
        scored("by_number", decode="job_works:damaged", on_error="skip", restart=True)


def test_no_loss_at_all_is_no_generation(scored: Callable[..., Report], tmp_path: Path) -> None:
    """A state without a single loss would warm nothing."""
    with pytest.raises(LossError, match=r"No sample of the corpus has a loss: all 40 failed. '00000000': its loss is"):
        scored("all_fail")
    assert Generations(str(tmp_path / "state")).kept() == []


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        ("breaks", {}, LossError, "failed on samples '00000000' … '00000003' of .*KeyError: 'jpg'.*__key__, .*txt"),
        (
            "too_few",
            {},
            LossError,
            "too_few gave no losses for samples '00000000' … '00000003' of .*train.*: Cannot .* 4 ids came with 2",
        ),
        ("unready", {}, LossError, "unready failed on samples '00000000' … .*RuntimeError: device-side assert"),
        ("exits", {}, LossError, "exits failed on samples '00000000' … .*SystemExit: 2"),
        ("on_device", {}, ArgumentError, "on_device makes a model on a device, and none is given.*--device"),
        ("needs_batch", {}, ArgumentError, "Cannot load.*TypeError.*It can be called without a batch, so it was"),
        ("nothing", {}, ArgumentError, "Cannot load --model job_works:nothing: AttributeError"),
        ("fails", {}, ArgumentError, "Cannot load --model job_works:fails: OSError: no weights here"),
        ("NeedsMore", {}, ArgumentError, "job_works:NeedsMore is a class that needs arguments"),
        ("no_model", {}, ArgumentError, "job_works:no_model gives a int, which cannot be called with a batch"),
        ("number", {}, ArgumentError, "job_works:number gives a int, which cannot be called"),
        ("by_number", {"device": "cuda"}, ArgumentError, "has no use for --device cuda"),
        ("by_number", {"decode": "jpeg2000"}, ArgumentError, "decode='jpeg2000' is no decoder"),
        ("by_number", {"decode": "job_works:nothing"}, ArgumentError, "Cannot load --decode job_works:nothing"),
        ("by_number", {"decode": "job_works:drawn"}, ArgumentError, "changes samples at random"),
        ("by_number", {"batch_size": 0}, ArgumentError, "batch_size=0 is no number of samples"),
        ("by_number", {"on_error": "ignore"}, ArgumentError, "on_error='ignore' is not possible"),
        ("by_number", {"fields": "txt"}, ArgumentError, "fields='txt' is one text"),
        ("by number", {}, ArgumentError, "job_works:by number names nothing that can be imported"),
    ],
)
def test_mistakes_are_told(
    scored: Callable[..., Report], model: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """What is wrong, and what to write instead."""
    load_model.cache_clear()
    with pytest.raises(error, match=message):
        scored(model, **options)


def test_a_module_that_is_not_there(urls: list[str], tmp_path: Path) -> None:
    """It is missed before anything is indexed."""
    with pytest.raises(
        ArgumentError, match=r"Cannot load --model no_such.thing:losses: there is no module no_such.thing"
    ):
        score(Choice(urls, str(tmp_path / "state"), "no_such.thing:losses"))
    assert not (tmp_path / "state").exists()


def test_a_run_s_own_losses_are_left_alone(scored: Callable[..., Report], urls: list[str], tmp_path: Path) -> None:
    """A state that has trained, or is written by another, takes no losses from before."""
    state = str(tmp_path / "state")
    with SetaStream(urls, state=state, policy=SeTa(num_epochs=3)) as stream:
        with pytest.raises(StateLockedError, match="another stream of this process"):
            scored()
        stream.set_epoch(0)
        stream.record(range(40), [1.0] * 40)
    with pytest.raises(StateError, match=r"Cannot score into .*: it holds the losses of a run, up to gen-000000"):
        scored()
    assert not (tmp_path / "state" / "scoring").exists()


def test_a_full_disk_is_told(scored: Callable[..., Report], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done is kept, and the message says so."""
    from seta_stream.store import local

    plain = local.LocalStore.write

    def full(self: Any, url: str, data: bytes) -> None:
        if url.endswith("000002.losses"):
            raise OSError(28, "No space left on device")
        plain(self, url, data)

    monkeypatch.setattr(local.LocalStore, "write", full)
    with pytest.raises(StateError, match=r"Cannot write .*000002.losses: .*No space left.*run the same command again"):
        scored()
    monkeypatch.undo()
    assert scored().scored == 20


# ---- models


def test_factories_are_told_from_models() -> None:
    """What can be called without arguments makes the model, once per process; all else is it."""
    load_model.cache_clear()
    job_works.Counted.made = 0
    assert load_model("job_works:by_number", None) is job_works.by_number
    first = load_model("job_works:Counted", None)
    assert load_model("job_works:Counted", None) is first
    assert (job_works.Counted.made, first.device) == (1, "none")  # type: ignore[attr-defined]
    assert load_model("job_works:Counted", "cuda:1").device == "cuda:1"  # type: ignore[attr-defined]
    assert load_model("job_works:on_device", "cuda:2").device == "cuda:2"  # type: ignore[attr-defined]
    assert load_model("job_works:made_ready", None).device == "somewhere"  # type: ignore[attr-defined]


def test_a_model_has_one_thread(urls: list[str]) -> None:
    """Where a worker has several, as on Dask, it is made once, and called by one at a time."""
    load_model.cache_clear()
    job_works.Sole.made = 0
    corpus = open_corpus(urls)
    works = Work("job_works:Sole", None, None, None, 2, "raise", 1, None)
    tasks = [
        ShardTask(shard, 10 * shard, url, row, corpus.index(shard).to_bytes())
        for shard, (url, row) in enumerate(zip(urls, corpus.table.rows(), strict=True))
    ]
    with ThreadPoolExecutor(4) as pool:
        losses = [done.losses.tolist() for done in pool.map(works, tasks)]
    assert losses == [[1.0] * 10] * 4


def test_what_a_model_prints_is_no_result(urls: list[str], tmp_path: Path) -> None:
    """It goes to stderr, so that --json stays JSON; and what it does to its batch does no harm."""
    told = command(*urls, "--state", str(tmp_path / "s"), "--model", "job_works:prints", "--decode", "basic", "--json")
    assert json.loads(told.stdout)["mean"] == 9.75
    assert "a model that prints" in told.stderr
    assert losses_in(tmp_path / "s", urls).tolist() == [number / 2 for number in range(FORTY)]


def test_a_torch_module_is_evaluated(scored: Callable[..., Report]) -> None:
    """It is not training, keeps nothing for a backward pass, and lies on the device."""
    pytest.importorskip("torch")
    assert scored("module", device="cpu").mean == 9.75


def test_compressed_shards_and_empty_ones(tmp_path: Path) -> None:
    """A shard that is read in sequence is scored; one without samples is passed over."""
    write_tar(tmp_path / "a.tar.gz", [("0.txt", b"8"), ("1.txt", b"6")], mode="w:gz")
    write_tar(tmp_path / "b.tar", [])
    write_tar(tmp_path / "c.tar", [("2.txt", b"4")])
    urls = [str(tmp_path / name) for name in ("a.tar.gz", "b.tar", "c.tar")]
    report = score(Choice(urls, str(tmp_path / "s"), "job_works:by_number", "basic", engine=Engine(jobs=1)))
    assert (report.seen, report.minimum, report.maximum) == (3, 2.0, 4.0)


# ---- the command


def command(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["score", *arguments])


def test_the_command(urls: list[str], tmp_path: Path) -> None:
    """It prints what was done, and failures on stderr; --json all of it."""
    state = ("--state", str(tmp_path / "state"), "--model", "job_works:some_fail", "--jobs", "1")
    result = command(*urls, *state)
    assert (result.exit_code, result.exception) == (0, None)
    assert "40 samples in 4 shards; 40 scored now" in result.stdout
    assert "36 have a loss: 0 … 39" in result.stdout
    assert "4 samples have a loss that is NaN or infinite: they stay unseen" in result.stderr
    assert "00000003 in" in result.stderr
    told = json.loads(command(*urls, *state, "--json").stdout)
    assert (told["scored"], told["seen"], told["failed"]) == (0, 36, {"decode": 0, "loss": 4})


def test_the_command_s_options(urls: list[str], tmp_path: Path) -> None:
    """Fields are named with commas; a mistake is one message, without a traceback."""
    given = (*urls, "--state", str(tmp_path / "state"), "--jobs", "1", "--model")
    result = command(*given, "job_works:by_number", "--fields", "TXT, cls", "--decode", "job_works:words")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: Cannot decode field 'txt'")
    fixed = command(
        *given, "job_works:by_number", "--fields", "TXT, cls", "--decode", "job_works:words", "--on-error", "skip"
    )
    assert fixed.exit_code == 0
    assert "4 samples could not be decoded" in fixed.stderr
    wrong = command(*given, "job_works:by_number", "--address", "tcp://a:1")
    assert wrong.exit_code == 2
    assert "the backend is local" in wrong.stderr


def test_a_module_of_the_working_folder(urls: list[str], tmp_path: Path) -> None:
    """A model that lies where the command runs is found, in other processes too."""
    (tmp_path / "lengths_here.py").write_text("def losses(batch):\n    return [len(text) for text in batch['txt']]\n")
    code = "import sys; sys.path = [p for p in sys.path if p]; from seta_stream.cli import main\nmain(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, "score", *urls, "--state", "s", "--model", "lengths_here:losses", "--jobs", "2"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(TESTS.parent)}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "40 have a loss: 20 … 20" in done.stdout
    assert done.stderr == ""

"""The demo from end to end: render a corpus, train on all of it and on half of the visits, compare.

Takes sizes, a seed and a folder; gives two `Arm`s, a table and a picture. Effects: writes corpora under `<out>/corpus`
and a new `<out>/run-NNN`, shows progress on stderr. torch is imported when a run starts.
"""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from seta_stream.demo.extras import require
from seta_stream.demo.fonts import find_fonts, split_fonts
from seta_stream.demo.lexicon import Lexicon
from seta_stream.demo.shards import MadeCorpus, make_corpus
from seta_stream.demo.words import WordMaker
from seta_stream.errors import ArgumentError

if TYPE_CHECKING:
    from rich.console import Console

    from seta_stream import Full, SeTa
    from seta_stream.demo.train import Cost

VOCABULARY: Final = 20_000
MAX_BATCH: Final = 64
LEAST_SAMPLES: Final = 100
TEST_SAMPLES: Final = 2_000
TORCH_THREADS: Final = 1
"""A second thread gains a fifth on such small pictures, and loses nine tenths where something else wants the core; and
with one, a seed gives the same losses on every machine of a kind, however many cores it has."""

Advance = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the demo is run with.

    Attributes:
        samples: of the training corpus.
        epochs: of both runs.
        out: folder for everything that is written.
        seed: of the corpus, the model and the order.
        fonts: a folder with more fonts.
        target: share of all sample visits that SeTa saves.
        jobs: processes that render; None is one per core.
        workers: DataLoader worker processes.
        progress: bars on stderr.
    """

    samples: int = 20_000
    epochs: int = 8
    out: Path = Path("demo-out")
    seed: int = 0
    fonts: str | None = None
    target: float = 0.5
    jobs: int | None = None
    workers: int = 0
    progress: bool = True

    @property
    def batch_size(self) -> int:
        """Samples per step: fewer on a small corpus, so that a pruned epoch still has several steps."""
        return max(1, min(MAX_BATCH, self.samples // 16))


@dataclass(frozen=True, slots=True)
class Corpora:
    """Training shards, and those of the two tests: new words in seen fonts, seen words in new fonts."""

    training: MadeCorpus
    words: MadeCorpus
    fonts: MadeCorpus


@dataclass(frozen=True, slots=True)
class Arm:
    """One training run: its name, the share of whole words read right in both tests, and its cost."""

    name: str
    words: float
    fonts: float
    cost: Cost


@dataclass(frozen=True, slots=True)
class Results:
    """Both runs, and where the picture, the state and the figures lie."""

    full: Arm
    seta: Arm
    folder: Path
    picture: Path
    state: Path


def run_demo(options: DemoOptions, console: Console) -> Results:
    """Render, train twice from the same initial weights, test, and draw the picture.

    Raises:
        MissingExtraError: torch, Pillow or matplotlib is not installed.
        ArgumentError: too few samples, unusable fonts, or another corpus in the way.
        PolicyError: a target that the epochs cannot reach.
    """
    require("`seta-stream demo`", "torch", "PIL", "matplotlib")
    from seta_stream import Full, SeTa  # noqa: PLC0415  (the demo's parts are imported without the stream's)

    if options.samples < LEAST_SAMPLES:
        raise ArgumentError(
            f"--samples {options.samples} is too few to train on: give at least {LEAST_SAMPLES}.",
            expected=f"at least {LEAST_SAMPLES}",
            found=options.samples,
        )
    # Before anything is rendered: a target that cannot be reached is an error now.
    policy = SeTa(num_epochs=options.epochs, target=options.target)
    corpora = make_corpora(options)
    folder = _new_run(options.out)
    state = folder / "state"
    _tell(console, corpora, folder)
    full = _run_arm("all samples", Full(), corpora, options, None, console)
    seta = _run_arm("SeTa", policy, corpora, options, state, console)
    results = Results(full=full, seta=seta, folder=folder, picture=folder / "losses.png", state=state)
    _draw(results)
    facts = {"options": asdict(options) | {"out": str(options.out)}, "full": asdict(full), "seta": asdict(seta)}
    (folder / "results.json").write_text(json.dumps(facts, indent=1))
    return results


def _tell(console: Console, corpora: Corpora, folder: Path) -> None:
    """Say on stderr what is taken from an earlier run, which is the corpus alone, and where this run writes."""
    made = sum(corpus.made for corpus in (corpora.training, corpora.words, corpora.fonts))
    source = "rendered now" if made else "rendered earlier, taken as it is"
    first = Path(corpora.training.urls[0])
    shards = first.with_name(re.sub(r"\d+", "*", first.name))  # the held-out words lie beside them
    lines = [
        f"corpus: {shards} ({source}, {corpora.training.size_bytes / 1e6:,.0f} MB)",
        f"this run: {folder} (new: losses of earlier runs are neither read nor changed)",
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def corpus_folder(options: DemoOptions, fonts: tuple[str, ...]) -> Path:
    """Return the corpus's folder: one per size, seed and set of fonts, so that all of them can live under one `out`."""
    name = f"{options.samples}-samples-seed-{options.seed}"
    if options.fonts is not None:
        name += f"-fonts-{zlib.crc32(chr(0).join(fonts).encode()):08x}"
    return options.out / "corpus" / name


def make_corpora(options: DemoOptions) -> Corpora:
    """Make the training corpus and the two tests, or take those that are there."""
    fonts = find_fonts(options.fonts)
    seen, new = split_fonts(fonts, options.seed)
    words = Lexicon(options.seed, VOCABULARY)
    test = min(TEST_SAMPLES, options.samples)
    new_words = Lexicon(options.seed, test, held_out=True)
    folder = corpus_folder(options, fonts)
    shard_samples = max(10, min(1000, options.samples // 8))

    def make(maker: WordMaker) -> MadeCorpus:
        return make_corpus(maker, folder, shard_samples=shard_samples, jobs=options.jobs, progress=options.progress)

    plain = WordMaker(test, options.seed, words, new, zipf=0.0, repeats=0.0, wrong=0.0, name="held-out-fonts")
    return Corpora(
        training=make(WordMaker(options.samples, options.seed, words, seen)),
        words=make(replace(plain, lexicon=new_words, fonts=seen, name="held-out-words")),
        fonts=make(plain),
    )


def _new_run(out: Path) -> Path:
    """Make and return the first `run-NNN` that is not there: an earlier run's state is never written to."""
    number = 1
    while True:
        folder = out / f"run-{number:03d}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
        number += 1


def _run_arm(
    name: str, policy: Full | SeTa, corpora: Corpora, options: DemoOptions, state: Path | None, console: Console
) -> Arm:
    """Train one model and test it. Both runs call this: only the policy and the state differ."""
    import torch  # noqa: PLC0415  (an extra, seconds to import)

    from seta_stream.demo import train  # noqa: PLC0415  (imports torch)
    from seta_stream.demo.model import Recogniser  # noqa: PLC0415  (imports torch)

    run = train.RunOptions(options.epochs, options.batch_size, options.seed, options.workers)
    visits = round(options.samples * options.epochs * (1 - options.target if state else 1))
    urls = corpora.training.urls
    with _torch_threads(TORCH_THREADS), torch.random.fork_rng(devices=[]):
        train.warm_up(urls, options.batch_size)
        torch.manual_seed(options.seed)
        model = Recogniser()
        with _bar(name, visits, options, console) as advance:
            cost = train.train(model, urls, policy, run, state=str(state) if state else None, advance=advance)
        words, fonts = (train.accuracy(model, corpus.urls) for corpus in (corpora.words, corpora.fonts))
    return Arm(name, words, fonts, cost)


@contextlib.contextmanager
def _torch_threads(wanted: int) -> Iterator[None]:
    import torch  # noqa: PLC0415  (an extra, seconds to import)

    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _bar(name: str, visits: int, options: DemoOptions, console: Console) -> Iterator[Advance]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    # Fits 80 columns, the longest text and six-digit counts included.
    columns = (TextColumn("{task.description}"), BarColumn(16), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not options.progress) as bar:
        task = bar.add_task(name, total=visits)

        def advance(epoch: int, samples: int, loss: float) -> None:
            text = f"{name}: epoch {epoch + 1} of {options.epochs}, loss {loss:.2f}"
            bar.update(task, advance=samples, description=text)

        yield advance
        # The draws are random: a run ends some samples off the plan.
        bar.update(task, total=bar.tasks[0].completed)


def _draw(results: Results) -> None:
    from seta_stream.report.picture import draw_history  # noqa: PLC0415  (imports matplotlib)

    lines = (results.state / "history.jsonl").read_text().splitlines()
    draw_history([json.loads(line) for line in lines], results.picture)


def table_of(results: Results, options: DemoOptions) -> Any:
    """Return a rich table: both runs side by side, and SeTa's share of the full run's figure."""
    from rich.table import Table  # noqa: PLC0415  (100 ms)

    run = f"{options.samples:,} word images, {options.epochs} epochs, seed {options.seed}"
    table = Table(title=f"The same recogniser, trained twice\n{run}")
    table.add_column("")
    for title in (results.full.name, results.seta.name, "ratio"):
        table.add_column(title, justify="right")
    for title, full, seta, form in _rows(results.full, results.seta):
        table.add_row(title, form(full), form(seta), f"{seta / full:.3f}" if full else "–")
    return table


def _rows(full: Arm, seta: Arm) -> list[tuple[str, float, float, Callable[[float], str]]]:
    def share(value: float) -> str:
        return f"{100 * value:.1f} %"

    def number(value: float) -> str:
        return f"{value:,.0f}"

    def megabytes(value: float) -> str:
        return f"{value / 1e6:,.1f} MB"

    def seconds(value: float) -> str:
        return f"{value:.1f} s"

    one, other = full.cost, seta.cost
    return [
        ("held-out words read right", full.words, seta.words, share),
        ("words in held-out fonts read right", full.fonts, seta.fonts, share),
        ("samples trained on", one.samples, other.samples, number),
        ("images decoded", one.decoded, other.decoded, number),
        ("bytes read", one.bytes_read, other.bytes_read, megabytes),
        ("wall time of the training", one.seconds, other.seconds, seconds),
    ]

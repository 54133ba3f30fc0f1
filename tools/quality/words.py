"""Accuracy of the demo's recogniser on rendered words, read by SetaDataset from tar shards, under six policies.

    python tools/quality/words.py [--study words|word-runs] [--samples 20000] [--epochs 8] [--seeds 5] [--out FOLDER]
    python tools/quality/words.py --samples 300000 --seeds 10 --workers 3     (with a GPU)

Half of the pictures are near-copies of others, 3 % have a wrong label. Tested are words that training never shows, and
words in fonts that it never shows. Runs with one seed share corpus, initial weights, order and draws, so arms are
compared in pairs; the corpus is the same for all seeds. Arms that are repacked go on with shards that
`seta_stream.repack` wrote. A stopped command goes on where it stopped, run by run. Writes results.jsonl, table.md and
plot.png.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import torch
from _arms import STUDIES, Arm, arms_of, told
from _common import Job, Rows, report, run_jobs
from rich.console import Console
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from seta_stream import Reading, SetaStream
from seta_stream.adapters.torch import SetaDataset
from seta_stream.demo.fonts import find_fonts, split_fonts
from seta_stream.demo.lexicon import Lexicon
from seta_stream.demo.model import BLANK, Recogniser, encode_words
from seta_stream.demo.shards import make_corpus
from seta_stream.demo.train import GRADIENT_NORM, PEAK_RATE, WEIGHT_DECAY, decode, learning_rate
from seta_stream.demo.words import WordMaker
from seta_stream.repack import repack

VOCABULARY, CORPUS_SEED, TEST_SAMPLES, TEST_BATCH = 20_000, 0, 5_000, 250
WORD_STUDIES = ("words", "word-runs")


@dataclass(frozen=True)
class Corpus:
    """The shards: to train on, and of the two tests."""

    training: tuple[str, ...]
    held_out_words: tuple[str, ...]
    held_out_fonts: tuple[str, ...]
    samples: int

    @property
    def mean_bytes(self) -> float:
        """Of a sample to train on, in its shard."""
        return sum(Path(url).stat().st_size for url in self.training) / self.samples


def make(folder: Path, samples: int, jobs: int) -> Corpus:
    """Render what is not there yet, and index it."""
    seen, unseen = split_fonts(find_fonts(), CORPUS_SEED)
    words, test = Lexicon(CORPUS_SEED, VOCABULARY), min(TEST_SAMPLES, samples)
    # A vocabulary of held-out words as large as their test: each about once.
    other = Lexicon(CORPUS_SEED, test, held_out=True)
    plain = {"zipf": 0.0, "repeats": 0.0, "wrong": 0.0}
    makers = (
        WordMaker(samples, CORPUS_SEED, words, seen),
        WordMaker(test, CORPUS_SEED, other, seen, name="held-out-words", **plain),
        WordMaker(test, CORPUS_SEED, words, unseen, name="held-out-fonts", **plain),
    )
    urls = [make_corpus(one, folder, shard_samples=max(10, min(1_000, samples // 8)), jobs=jobs).urls for one in makers]
    for shards in urls:
        SetaStream(list(shards)).close()  # indexed here, once, and not by several runs at a time
    return Corpus(*urls, samples)


def losses_of(model: Recogniser, pictures: Tensor, words: Sequence[str], device: str) -> Tensor:
    """Return one loss per picture, per letter, as Recogniser.losses does, on the device of the model."""
    scores = model(pictures.to(device, non_blocking=True))
    letters, lengths = encode_words(words)
    steps = torch.full((len(words),), scores.shape[0])
    losses = functional.ctc_loss(scores, letters.to(device), steps, lengths, blank=BLANK, reduction="none")
    return losses / lengths.to(device)


def train(
    model: Recogniser, corpus: Corpus, arm: Arm, seed: int, epochs: int, *, batch_size: int, workers: int, device: str
) -> dict[str, Any]:
    """Train the model in place, and return what was read: samples, bytes and each epoch's share."""
    length = arm.length(epochs)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    samples, fetched, requests, shares = 0, 0, 0, []
    model.train()
    reading = Reading(run_bytes=round(arm.run_length * corpus.mean_bytes) if arm.run_length > 1 else 0)
    options = {"policy": arm.make(length), "seed": seed, "decode": decode, "unit": arm.unit, "read": reading}
    for urls, state, part in _stretches(corpus, arm, length):
        with SetaDataset(urls, batch_size=batch_size, state=state, **options) as dataset:
            loader = DataLoader(dataset, batch_size=batch_size, num_workers=workers, persistent_workers=workers > 0)
            dataset.steps(length)
            for epoch in part:
                dataset.set_epoch(epoch)
                for batch in loader:
                    for group in optimizer.param_groups:
                        group["lr"] = learning_rate(dataset.progress)
                    losses = losses_of(model, batch["jpg"], batch["txt"], device)
                    loss = dataset.update(batch["__index__"], losses)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
                    optimizer.step()
                stats = dataset.stats
                samples, fetched = samples + stats.samples, fetched + stats.bytes_fetched
                requests += stats.requests
                shares.append(round(stats.samples / corpus.samples, 4))
    saved = 1 - samples / (epochs * corpus.samples)
    return {"saved": saved, "bytes": fetched, "requests": requests, "shares": shares}


def _stretches(corpus: Corpus, arm: Arm, length: int) -> Iterator[tuple[list[str], str | None, range]]:
    """Yield (shards, state, epochs): the whole run, or what lies between two repacks."""
    if arm.repacked is None:
        yield list(corpus.training), None, range(length)
        return
    with TemporaryDirectory() as folder:
        urls, state = list(corpus.training), f"{folder}/state-0"
        for begin, stop in pairwise((0, *arm.repacked(length), length)):
            if begin:
                to, state_out = f"{folder}/shards-{begin}", f"{folder}/state-{begin}"
                repack(urls, to, state=state, state_out=state_out, jobs=1)
                urls, state = sorted(map(str, Path(to).glob("*.tar"))), state_out
            yield urls, state, range(begin, stop)


def accuracy(model: Recogniser, urls: Sequence[str], device: str) -> float:
    """Return the share of pictures whose whole word the model reads right, in per cent."""
    model.eval()
    right = total = 0
    stream = SetaStream(list(urls), decode=decode, shuffle=False, drop_last=False)
    for batch in stream.batches(TEST_BATCH):
        found = model.read(torch.from_numpy(batch["jpg"]).to(device))
        right += sum(word == label for word, label in zip(found, batch["txt"], strict=True))
        total += len(found)
    stream.close()
    return 100 * right / total


def run(
    job: Job, *, corpus: Corpus, study: str, epochs: int, batch_size: int, workers: int, device: str
) -> dict[str, Any]:
    """Do one run and return its figures; on the CPU with one thread, so that a seed always gives the same."""
    torch.set_num_threads(1)
    start = time.monotonic()
    torch.manual_seed(job.seed)
    model = Recogniser().to(device)
    options = {"batch_size": batch_size, "workers": workers, "device": device}
    read = train(model, corpus, arms_of(study)[job.arm], job.seed, epochs, **options)
    return {
        "words": round(accuracy(model, corpus.held_out_words, device), 4),
        "fonts": round(accuracy(model, corpus.held_out_fonts, device), 4),
        **read,
        "seconds": round(time.monotonic() - start, 1),
    }


@click.command()
@click.option("--study", type=click.Choice(WORD_STUDIES), default=WORD_STUDIES[0], show_default=True)
@click.option("--arms", help=f"Some of {', '.join(STUDIES['word-runs'])}, by comma; the baselines always run.")
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--samples", default=20_000, show_default=True, type=click.IntRange(100))
@click.option("--epochs", default=8, show_default=True, type=click.IntRange(4))
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(1))
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1), help="Runs at a time.")
@click.option("--workers", default=0, show_default=True, help="DataLoader workers of each run.")
@click.option("--device", default=None, help="As torch names it; by default the GPU where there is one.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("quality-out/words"), show_default=True)
def main(
    *,
    study: str,
    arms: str | None,
    seeds: int,
    samples: int,
    epochs: int,
    batch_size: int,
    jobs: int,
    workers: int,
    device: str | None,
    out: Path,
) -> None:
    """Train the demo's recogniser under each policy, on paired seeds, and compare."""
    console = Console(stderr=True)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    chosen = arms_of(study, arms)
    settings = {"experiment": "words", "samples": samples, "epochs": epochs, "batch_size": batch_size, "device": device}
    rows = Rows(out / "results.jsonl", settings)
    corpus = make(out / f"corpus-{samples}", samples, jobs)
    wanted = [Job("words", name, seed, told(arm, epochs)) for seed in range(seeds) for name, arm in chosen.items()]
    options = {"study": study, "epochs": epochs, "batch_size": batch_size, "workers": workers, "device": device}
    start = time.monotonic()
    run_jobs(rows, wanted, partial(run, corpus=corpus, **options), jobs, console)
    console.print(f"{time.monotonic() - start:.0f} s", highlight=False)
    found = rows.of(wanted)
    titles = {"held-out words": "words", "held-out fonts": "fonts"}
    panels = {title: [row | {"accuracy": row[name]} for row in found] for title, name in titles.items()}
    report(out, panels, "accuracy", list(chosen), Console(width=120))


if __name__ == "__main__":
    main()

"""One rank among 1, 64 and 1,024 over 15M, 150M and 1B samples: seconds, memory and bytes per epoch; and real gloo.

    python tools/bench/ranks.py [--section simulated gloo steps] [--size 15M/1500 150M/15000 1000M/100000]
        [--ranks 1 64 1024] [--policy infobatch] [--save FILE] [--plot FILE]

`simulated`: one rank runs all that a stream runs but the reading of shards, in a process of its own: real record()
calls in batches of 256 for every sample that it reads, its parts of the losses made and others' taken in, histogram,
k-means and rule, its mask and everybody's, weights, plan, board, the first block of every lane, sidecars, manifest and
a checkpoint. It is process 0, which does most. The other ranks are played by a collective that makes what they would
send (ranks_team.py): bytes are counted, and their making is not timed. Exchanges take time that is computed, at 10
Gbit/s and 50 µs per message, one message after another. Seconds are the processor's, since sidecars wait for the disk
and other programs run: the clock's stand beside. Memory is the highest resident set over that of the imports.

`gloo`: as many real processes run the same, to show that the simulated rank counts what a real one does, and what the
exchanges take here. `steps`: `update` is timed per step, and exchanges during an epoch are counted.

What is to hold is printed with PASS or FAIL, and the exit code is 1 where anything fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

from _common import show
from bucket_results import Checks
from ranks_gloo import run_together, step_urls
from ranks_rig import BATCH, POLICIES, Case
from ranks_watch import EXCHANGE

BANDWIDTH = 10e9 / 8
LATENCY_S = 50e-6
LINEAR = 1.5
"""So much more than in proportion counts as noise: caches are shared, and other programs run."""
HELD = Case(1_000_000_000, 100_000, 64, "")
"""Under 2 GB and 10 s."""
MOST_BYTES = 7_000_000_000
"""A case that needs more than this machine lends is left out, and said so."""

Figures = dict[str, Any]


def arguments_of(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--size", nargs="+", type=size_of, default=list(map(size_of, SIZES)))
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 64, 1024])
    parser.add_argument("--policy", nargs="+", choices=POLICIES, default=["infobatch"])
    parser.add_argument("--gloo-ranks", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--gloo-size", nargs="+", type=size_of, default=list(map(size_of, ("3M/300", "15M/1500"))))
    parser.add_argument("--runs", type=int, default=3, help="of the steps, in turns")
    parser.add_argument("--before", type=Path, help="the folder of another release, whose steps are timed beside")
    parser.add_argument("--save", type=Path, help="keep the simulated figures, a JSON line per case; those there stay")
    parser.add_argument("--plot", type=Path, help="draw the simulated figures: a PNG")
    return parser.parse_args(argv)


SIZES = ("15M/1500", "150M/15000", "1000M/100000")


def size_of(text: str) -> tuple[int, int]:
    """Return (samples, shards) of a text as 15M/1500."""
    samples, _, shards = text.partition("/")
    return int(float(samples.removesuffix("M")) * 1e6) if samples.endswith("M") else int(samples), int(shards)


# ---- one simulated rank


def simulated(options: argparse.Namespace, checks: Checks) -> None:
    """Run every case that fits, and show what grows with what."""
    for policy in options.policy:
        found = {}
        for ranks in options.ranks:
            for size in options.size:
                case = Case(*size, ranks, policy)
                if needed_bytes(case) > MOST_BYTES:
                    print(f"{named(case)}: left out, it would take about {needed_bytes(case) / 1e9:.0f} GB")
                    continue
                found[case] = figures_of(case, options.save)
        if not found:
            continue
        show_cases(policy, found)
        show_parts(found, 64 if 64 in options.ranks else options.ranks[-1])
        show_bytes(found)
        check_growth(found, checks)
        if options.plot is not None:
            from ranks_plot import draw

            draw(options.plot, found)


def needed_bytes(case: Case) -> float:
    """Return about how much a case takes: of each own sample 34 bytes in one process (a checkpoint), else more."""
    return case.samples * (34 if case.ranks == 1 else 0.6 + 50 / case.ranks)


def named(case: Case) -> str:
    return f"{case.samples / 1e6:,.0f}M samples, {case.ranks:,} rank{'s' if case.ranks > 1 else ''}"


def short(case: Case) -> str:
    return f"{case.ranks:,}, {case.samples / 1e6:,.0f}M"


def figures_of(case: Case, save: Path | None) -> Figures:
    """Run a case in a process of its own; one that was saved is not run again."""
    if save is not None and save.exists():
        for line in save.read_text().splitlines():
            if (told := json.loads(line))["case"] == asdict(case):
                return dict(told)
    command = [sys.executable, str(Path(__file__).parent / "ranks_child.py")]
    done = subprocess.run(command, input=json.dumps(asdict(case)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{named(case)} failed:\n{done.stderr[-4000:]}")
    if save is not None:
        with save.open("a") as file:
            file.write(done.stdout)
    return dict(json.loads(done.stdout))


def setting(figures: Figures) -> Figures:
    """Return the stage that counts: set_epoch after an epoch that read everything."""
    return dict(figures["stages"]["set_epoch(1)"])


def own_s(stage: Figures, clock: str = "cpu_s") -> float:
    """Return the seconds of a stage without its exchanges."""
    return sum(seconds for part, seconds in stage[clock].items() if part != EXCHANGE)


def total(stage: Figures, what: str) -> float:
    """Return a figure of a stage's traffic over all kinds."""
    return sum(one[what] for one in stage["traffic"].values())


def exchange_s(stage: Figures) -> float:
    """Return the computed seconds of a stage's exchanges: sending and receiving overlap, messages do not."""
    return max(total(stage, "sent"), total(stage, "received")) / BANDWIDTH + total(stage, "messages") * LATENCY_S


def peak_bytes(figures: Figures) -> int:
    """Return the most that was resident in any stage."""
    return max(stage["peak_bytes"] for stage in figures["stages"].values())


def show_cases(policy: str, found: dict[Case, Figures]) -> None:
    rows, before = [], None
    for case, figures in found.items():
        stage, first = setting(figures), figures["stages"]["first blocks"]
        ratio = ""
        if before is not None and before.ranks == case.ranks:
            by = case.samples / before.samples
            ratio = f"{own_s(stage) / own_s(setting(found[before])) / by:.2f}"
        rows.append(
            [
                short(case),
                f"{own_s(stage):.2f}",
                ratio,
                f"{own_s(stage, 'wall_s'):.1f}",
                f"{exchange_s(stage):.2f}",
                f"{total(stage, 'sent') / 1e6:,.1f}",
                f"{total(stage, 'received') / 1e6:,.1f}",
                f"{total(stage, 'messages'):,.0f}",
                f"{own_s(first) * 1e3:.0f}",
                f"{figures['record_us']:.3f}",
                f"{stage['peak_bytes'] / 1e6:,.0f}",
                f"{figures['stages']['state_dict']['peak_bytes'] / 1e6:,.0f}",
            ]
        )
        before = case
    columns = ["rank 0 of", "CPU s", "× linear", "clock s", "talk s", "sent MB", "got MB", "messages", "blocks ms",
               "record µs", "peak MB", "state MB"]  # fmt: skip
    show(f"{policy}: set_epoch(1), after an epoch that read everything", columns, rows)


def show_parts(found: dict[Case, Figures], ranks: int) -> None:
    """Print the CPU seconds of each part, and the arrays that stay, at one number of ranks."""
    cases = [case for case in found if case.ranks == ranks]
    heads = [f"{case.samples / 1e6:,.0f}M" for case in cases]
    parts = dict.fromkeys(part for case in cases for part in setting(found[case])["cpu_s"] if part != EXCHANGE)
    rows = [[part, *(f"{setting(found[case])['cpu_s'].get(part, 0):.3f}" for case in cases)] for part in parts]
    rows.append(["all", *(f"{own_s(setting(found[case])):.3f}" for case in cases)])
    show(f"CPU seconds of set_epoch(1) at {ranks:,} ranks", ["part", *heads], rows)
    held = [[name, *(f"{found[case]['held'][name] / 1e6:,.1f}" for case in cases)] for name in found[cases[0]]["held"]]
    show(f"arrays that stay at {ranks:,} ranks, MB", ["array", *heads], held)


def show_bytes(found: dict[Case, Figures]) -> None:
    """Print what a rank sends and receives by kind."""
    kinds = dict.fromkeys(kind for figures in found.values() for kind in setting(figures)["traffic"])
    rows = []
    for case, figures in found.items():
        if case.ranks > 1:
            traffic = setting(figures)["traffic"]
            cells = [traffic.get(kind, {"sent": 0, "received": 0}) for kind in kinds]
            rows.append([short(case), *(f"{one['sent'] / 1e6:.2f} / {one['received'] / 1e6:.2f}" for one in cells)])
    if rows:
        show("MB that rank 0 sends / receives for an epoch, by the part that asks", ["rank 0 of", *kinds], rows)


def check_growth(found: dict[Case, Figures], checks: Checks) -> None:
    """Note whether each figure grows in proportion at most, and the one case that has bounds."""
    measures = {
        "CPU s": lambda figures: own_s(setting(figures)),
        "peak bytes": peak_bytes,
        "bytes received": lambda figures: total(setting(figures), "received"),
    }
    for one, two in pairwise(found):
        for what, measure in measures.items():
            if one.ranks == two.ranks and measure(found[one]):
                by = measure(found[two]) / measure(found[one])
                checks.at_most(f"{named(two)}: {what} by those of {one.samples / 1e6:,.0f}M", by,
                               LINEAR * two.samples / one.samples)  # fmt: skip
    for (one, few), (two, many) in permutations(found.items(), 2):
        if two.samples == one.samples and 1 < one.ranks < two.ranks:
            for what, measure in measures.items():
                checks.at_most(f"{named(two)}: {what} by {one.ranks} ranks'", measure(many) / measure(few), LINEAR)
            by = total(setting(many), "messages") / total(setting(few), "messages")
            checks.at_most(f"{named(two)}: messages by {one.ranks} ranks'", by, LINEAR * two.ranks / one.ranks)
    for case, figures in found.items():
        if (case.samples, case.ranks) == (HELD.samples, HELD.ranks):
            checks.at_most(f"{named(case)}, {case.policy}: peak GB", peak_bytes(figures) / 1e9, 2)
            seconds = own_s(setting(figures)) + exchange_s(setting(figures))
            checks.at_most(f"{named(case)}, {case.policy}: CPU and exchange s", seconds, 10)
            seconds = own_s(setting(figures), "wall_s") + exchange_s(setting(figures))
            checks.at_most(f"{named(case)}, {case.policy}: clock and exchange s", seconds, 10)


# ---- real processes


def gloo(options: argparse.Namespace, checks: Checks) -> None:
    """Run real processes and the simulated rank of the same case, and compare what they count."""
    rows = []
    for policy in options.policy:
        for size in options.gloo_size:
            for ranks in options.gloo_ranks:
                case = Case(*size, ranks, policy)
                told = run_together(ranks, {"do": "epochs", **asdict(case)})
                real = [one["stages"]["set_epoch(1)"] for one in told]
                guess = setting(figures_of(case, options.save))
                # Who comes last waits least: its exchanges take what the bytes take.
                kinds = real[0]["traffic"]
                moving = sum(min(stage["traffic"][kind]["seconds"] for stage in real) for kind in kinds)
                moved = total(real[0], "received")
                ratio = moved / total(guess, "received")
                checks.at_most(f"{named(case)}: real by simulated bytes, off by", abs(ratio - 1), 0.02)
                rows.append(
                    [
                        named(case),
                        f"{moved / 1e6:,.1f}",
                        f"{ratio:.3f}",
                        f"{moving:.2f}",
                        f"{moved / moving / 1e6:,.0f}",
                        f"{max(stage['whole_s'] for stage in real):.2f}",
                        f"{max(own_s(stage) for stage in real):.2f}",
                        f"{own_s(guess):.2f}",
                    ]
                )
    columns = ["gloo, this machine", "received MB", "by simulated", "exchange s", "MB/s", "set_epoch clock s",
               "CPU s", "simulated CPU s"]  # fmt: skip
    show("set_epoch(1) in real processes", columns, rows)


def steps(options: argparse.Namespace, checks: Checks) -> None:
    """Time `update` in one process and in two, and count exchanges while an epoch runs."""
    spec = {"do": "steps", "urls": step_urls(), "batch": BATCH}
    found: dict[str, list[float]] = {}
    exchanges = 0
    for _ in range(options.runs):
        for name, world, source in [("1 process", 1, None), ("2 processes", 2, None), ("before", 1, options.before)]:
            if name == "before" and source is None:
                continue
            told = run_together(world, spec) if source is None else run_together(world, spec, source)
            found.setdefault(name, []).append(max(one["us"] for one in told))
            exchanges += sum(one["exchanges"] for one in told)
    checks.at_most("exchanges while epochs ran", exchanges, 0)
    first = next(iter(found))
    rows = [
        [
            name,
            f"{sorted(us)[len(us) // 2]:.1f}",
            f"{sorted(a / b for a, b in zip(us, found[first], strict=True))[len(us) // 2]:.2f}",
        ]
        for name, us in found.items()
    ]
    show(
        f"update(ids, loss) of {BATCH} samples, CPU µs per step, weighted (InfoBatch)", ["", "µs", "by the first"], rows
    )


SECTIONS = {"simulated": simulated, "gloo": gloo, "steps": steps}


def main(argv: list[str] | None = None) -> int:
    options, checks = arguments_of(argv), Checks()
    for section in options.section:
        SECTIONS[section](options, checks)
    checks.show()
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())

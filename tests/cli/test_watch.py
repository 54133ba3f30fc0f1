"""`seta-stream watch`: what it shows of a run, as epochs come, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from seta_stream.cli import main, watch
from seta_stream.cli.watch import Look
from seta_stream.cli.watching import View, drawn, sparkline, spread_line
from seta_stream.errors import ReadError
from seta_stream.losses.generations import Generations
from seta_stream.losses.table import LossTable
from seta_stream.policies import SeTa, describe
from seta_stream.store import store_for

ENDS_S = 60


class Corpus:
    digests = (b"a" * 16,)


class Run:
    """A run that commits an epoch when it is told to."""

    def __init__(self, state: str, planned: int = 4) -> None:
        self.state = state
        self._policy = SeTa(planned, target=0.3)
        self._generations = Generations(state)
        self._table = LossTable([1000])
        self._parent: str | None = None
        self.epoch = 0

    def commit(self) -> None:
        """End an epoch of 10 s, half of it waited."""
        self._table.record(np.arange(900), np.random.default_rng(self.epoch).gamma(2, 1, 900) / (1 + self.epoch))
        rule = self._policy.rule(self._table.histogram(), self.epoch + 1)
        facts = {
            "policy": describe(self._policy), "selected": 1000 if self.epoch == 0 else 600, "total": 1000,
            "bytes_fetched": 3 << 20, "bytes_total": 5 << 20, "requests": 1234, "wait_s": 5.0, "seconds": 10.0,
        }  # fmt: skip
        self._parent = self._generations.commit(self.epoch, self._table, Corpus, rule, self._parent, facts)
        self._table.advance()
        self.epoch += 1


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of four planned epochs, two of them done."""
    run = Run(str(tmp_path / "state"))
    run.commit()
    run.commit()
    return run


def command(*arguments: object) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["watch", *map(str, arguments)])


def shown(view: View, **more: object) -> str:
    """Return what is drawn, as plain text."""
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115  (for the console's life)
    console.print(drawn(view, console.width, **more))
    console.file.close()
    return console.export_text()


def test_one_look(run):
    """Epochs, curves, and what is ahead."""
    done = command(run.state, "--once")
    assert (done.exit_code, done.stderr) == (0, "")
    for told in ("SeTa(num_epochs=4", "mean loss", "losses now", "20.0% of all visits saved", "100.0%", "60.0%",
                 "3.0 MiB", "1,234", "Epoch 2 of 4 keeps", "to the end."):  # fmt: skip
        assert told in done.stdout.replace("\u00a0", " "), told
    assert "█" in done.stdout
    assert "\x1b" not in done.stdout


def test_json_of_one_look(run):
    """One object, for scripts."""
    found = json.loads(command(run.state, "--once", "--json").stdout)
    assert (found["progress"]["next_epoch"], found["progress"]["planned"]) == (2, 4)
    assert (found["last_epoch"]["kept"], found["last_epoch"]["bytes_fetched"]) == (0.6, 3 << 20)
    assert found["saved_share"] == pytest.approx(0.2)


@pytest.mark.parametrize("make", [lambda _: None, lambda folder: folder.mkdir()])
def test_nothing_to_watch_is_told(tmp_path, make):
    """Exit code 1 and what to do."""
    make(tmp_path / "state")
    done = command(tmp_path / "state", "--once")
    assert done.exit_code == 1
    assert "There is nothing to watch in" in done.output
    assert "or watch without --once until its first epoch is committed." in done.output


def test_a_bucket_is_watched(s3_server, s3_bucket, run, tmp_path):
    """With its options."""
    store = store_for(s3_bucket, s3_server.options)
    store.write(f"{s3_bucket}/run/history.jsonl", (Path(run.state) / "history.jsonl").read_bytes())
    (tmp_path / "s3.json").write_text(json.dumps(s3_server.options))
    done = command(f"{s3_bucket}/run", "--once", "--options-file", tmp_path / "s3.json")
    assert done.exit_code == 0, done.output
    assert "Epoch 2 of 4 keeps" in done.stdout
    assert s3_server.options["secret"] not in done.output


def test_epochs_come_one_by_one_where_nothing_is_redrawn(run, monkeypatch):
    """A line for the last one that was there, then one for each that comes, until the last planned one."""
    commits = iter([0, 1, 0, 1])

    def pause(seconds: float) -> None:
        assert seconds == 7
        for _ in range(next(commits)):
            run.commit()

    monkeypatch.setattr(watch.time, "sleep", pause)
    done = command(run.state, "--interval", 7)
    assert done.exit_code == 0
    assert [line[:8] for line in done.stdout.splitlines()] == ["epoch 1:", "epoch 2:", "epoch 3:"]
    monkeypatch.undo()
    assert command(run.state).stdout.startswith("epoch 3: kept 60.0%, seen 90.0%, mean loss")


def test_all_that_came_between_two_looks_are_told(run, monkeypatch):
    """As lines of JSON, here."""
    monkeypatch.setattr(watch.time, "sleep", lambda _: (run.commit(), run.commit()))
    found = [json.loads(line) for line in command(run.state, "--json").stdout.splitlines()]
    assert [one["last_epoch"]["epoch"] for one in found] == [1, 2, 3]
    assert [one["progress"]["is_over"] for one in found] == [False, False, True]


def test_only_what_changed_is_read_again(run):
    """A look at an unchanged history says so; the time since the last commit goes by the file's, then by the clock."""
    clock = [100.0]
    file = Path(run.state) / "history.jsonl"
    os.utime(file, ns=(0, 5_000_000_000))
    look = Look(run.state, None, clock=lambda: clock[0], wall=lambda: 12.0)
    assert look.running_s is None
    assert look.again()
    assert look.running_s == 7.0
    clock[0] = 103.0
    assert not look.again()
    assert look.running_s == 10.0
    run.commit()
    assert look.again()
    assert look.running_s == 0.0  # of a time that lies ahead
    assert len(look.view.run.epochs) == 3


def test_a_look_that_fails_later_is_told_and_not_the_end(run):
    """A store that answers again is watched on; one that never did is an error."""
    file = Path(run.state) / "history.jsonl"
    look = Look(run.state, None)
    assert look.again()
    kept = file.read_bytes()
    file.unlink()
    file.mkdir()
    assert not look.again()
    assert "Cannot read" in look.trouble
    assert "The last look failed" in shown(look.view, trouble=look.trouble)
    with pytest.raises(ReadError, match="Cannot read"):
        Look(run.state, None).again()
    assert command(run.state, "--once").exit_code == 1
    file.rmdir()
    file.write_bytes(kept)
    look.again()
    assert look.trouble is None


def test_a_torn_line_waits_for_its_end(run):
    """A line that is being written is read with the next look, and no warning is given."""
    file = Path(run.state) / "history.jsonl"
    kept = file.read_bytes()
    file.write_bytes(kept[:-20])
    look = Look(run.state, None)
    look.again()
    assert len(look.view.run.epochs) == 1
    file.write_bytes(kept)
    look.again()
    assert len(look.view.run.epochs) == 2


def test_what_is_ahead(run):
    """The rest by the speed of the epochs behind, less what the running one took already; and the end."""
    look = Look(run.state, None)
    look.again()
    assert "Epoch 2 of 4 keeps 60.0%; 4 s since the last commit, it takes about 8 s; about" in shown(
        look.view, running_s=4.0
    ).replace("\u00a0", " ")
    run.commit()
    run.commit()
    look.again()
    assert "The last of 4 planned epochs is done; they took 40 s." in shown(look.view, running_s=4.0)
    assert "waiting for the first" in shown(View.of("s", []))


def test_many_epochs_and_foreign_names():
    """The last dozen are shown; markup and controls of a state's name are words."""
    lines = [{"epoch": at, "generation": str(at), "samples": 10, "seen": 5, "mean": 1.0, "facts": {},
              "expected_share": None, "groups": None} for at in range(30)]  # fmt: skip
    told = shown(View.of("[red]x[/red]\x1b[2J", lines))
    assert "[red]x[/red]\\x1b[2J" in told
    assert "the last 12 of 30" in told


def test_curves_in_a_line():
    """Lowest and highest, gaps, equal values, nothing, and the latest where there are too many."""
    assert sparkline([0, None, 7]) == "▁ █"
    assert sparkline([3, 3]) == "▄▄"
    assert sparkline([None]) == ""
    assert sparkline([0, 5, 9], width=2) == "▁█"
    curve, low, high = spread_line({"histogram": {"edges": [0.0, 1.0, 2.0], "counts": [100, 300]}}, width=2)
    assert (len(curve), round(low, 2), round(high, 2)) == (2, 0.04, 1.99)
    assert len(spread_line({"histogram": {"edges": [1.0, 1.0], "counts": [5]}})[0]) == 1


def test_a_terminal_is_redrawn_until_ctrl_c(run):
    """In a real one: the new epoch appears, and an interrupt ends it with its code and no traceback."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "seta_stream.cli", "watch", run.state, "--interval", "0.1"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "50"},
    )  # fmt: skip
    os.close(theirs)
    try:
        told = _read_until(ours, "Epoch 2 of 4")
        run.commit()
        told += _read_until(ours, "Epoch 3 of 4")
        process.send_signal(signal.SIGINT)
        told += _read_until(ours, None)
        assert process.wait(ENDS_S) == 130
        assert "Traceback" not in told
        assert "\x1b[?25h" in told  # the cursor is shown again
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read_until(terminal: int, wanted: str | None) -> str:
    """Return what a terminal says up to some words; None: to its end."""
    told, until = "", time.monotonic() + ENDS_S
    while wanted is None or wanted not in told:
        assert time.monotonic() < until, told
        if select.select([terminal], [], [], 1)[0]:
            try:
                more = os.read(terminal, 65536).decode(errors="replace")
            except OSError:  # Linux's word for a terminal whose program ended
                more = ""
            if not more:
                assert wanted is None, told
                return told
            told += more
    return told

"""What reaches a terminal: names of strangers, but no control, no mark of direction, no markup and no other colour."""

from __future__ import annotations

import csv
import json
import logging
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hostile_corpora import NASTY, hidden, make_shards, train
from hypothesis import given
from hypothesis import strategies as st

from seta_stream.cli import main
from seta_stream.errors import CorpusError, SetaStreamError, SetaStreamWarning
from seta_stream.visible import LONGEST, visible, visible_lines


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """Train a little on the nasty corpus: its shards and state."""
    folder = tmp_path_factory.mktemp("nasty")
    paths = make_shards(folder / "[bold]\u202efolder")
    train(paths, folder / "st\x1bate")
    return paths, folder / "st\x1bate"


def called(*arguments: object) -> Result:
    """Run a command as on a terminal: click leaves colours in."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return CliRunner().invoke(main, list(map(str, arguments)), color=True)


def losses_of_others(folder: Path) -> Path:
    """Write a table of losses, most of whose keys are in no corpus."""
    place = folder / "lost.csv"
    with place.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["url", "key", "loss"])
        for key in NASTY.values():
            writer.writerow([key.replace("\udcff\udcfe", ""), key.replace("\udcff\udcfe", "").replace("\n", " "), 1.0])
    return place


COMMANDS = {
    "index": lambda paths, state, folder: ["index", *paths, "--out", folder / "in\x1bdex"],
    "inspect": lambda paths, state, folder: ["inspect", state],
    "simulate": lambda paths, state, folder: ["simulate", state],
    "verify": lambda paths, state, folder: ["verify", *paths, "--state", state],
    "verify of half a shard": lambda paths, state, folder: ["verify", _cut(paths[0], folder)],
    "report": lambda paths, state, folder: ["report", state, "-o", folder / "page.html"],
    "watch": lambda paths, state, folder: ["watch", state, "--once"],
    "export": lambda paths, state, folder: ["export", state, "--to", folder / "o\x1but.csv"],
    "import of other keys": lambda paths, state, folder: [
        "import", losses_of_others(folder), *paths, "--state", folder / "new"],
    "convert": lambda paths, state, folder: ["convert", *paths, "--to", "dali", "--out", folder / "d"],
    "repack": lambda paths, state, folder: ["repack", *paths, "--to", folder / "re\x1bpacked", "--order", "key"],
    "score": lambda paths, state, folder: [
        "score", *paths, "--state", folder / "scored", "--model", "nasty_model:refuse"],
    "no such shard": lambda paths, state, folder: ["index", folder / "no\x1b\u202e[red].tar"],
    "no such state": lambda paths, state, folder: ["inspect", folder / "no\x1b\u202e[red]"],
    "a list of nonsense": lambda paths, state, folder: ["index", _list(folder)],
}  # fmt: skip


def _cut(path: str, folder: Path) -> Path:
    cut = folder / "cut\x1b[31m.tar"
    cut.write_bytes(Path(path).read_bytes()[:1700])
    return cut


def _list(folder: Path) -> Path:
    place = folder / "list.txt"
    place.write_bytes(b"x\x1b[31m\xe2\x80\xae{a\n")
    return place


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_sends_what_cannot_be_seen(
    name: str, run: tuple[list[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever keys, shards and folders are called, a terminal is sent visible characters and ends of lines."""
    (tmp_path / "nasty_model.py").write_text(
        "def refuse(batch):\n    return [1.0, 2.0, *[float('nan')] * (len(batch['__key__']) - 2)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = called(*COMMANDS[name](*run, tmp_path))
    told = result.output + (result.stderr if result.stderr_bytes is not None else "")
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code != 2, told
    assert not hidden(told), {ascii(one) for one in hidden(told)}
    assert told.strip(), "it says nothing"


def test_markup_in_a_name_is_a_name(run: tuple[list[str], Path]) -> None:
    """A key that reads as rich's markup stands in a table as it is."""
    result = called("verify", *run[0])
    assert "[red]" in result.output


def test_json_holds_the_names_as_they_are(run: tuple[list[str], Path]) -> None:
    """For programs nothing is lost: JSON escapes what cannot be seen."""
    result = called("verify", *run[0], "--json")
    told = json.loads(result.stdout)
    assert not hidden(result.stdout)
    assert run[0][0] in {one["shard"] for one in told["findings"]}


def test_errors_and_warnings_are_clean_without_a_command_line() -> None:
    """A traceback, a log and a warning of the library show no control either; the facts stay as they are."""
    key = "".join(NASTY.values())
    error = CorpusError(f"Cannot use {key}.", key=key)
    assert error.key == key
    shown = "".join(traceback.format_exception(error)) + logging.Formatter().format(
        logging.makeLogRecord({"msg": error})
    )
    assert not hidden(shown)
    with pytest.warns(SetaStreamWarning) as caught:
        warnings.warn(f"Look at {key}.", SetaStreamWarning, stacklevel=1)
    assert not hidden(str(caught[0].message))


def test_a_worker_error_is_clean_after_its_journey() -> None:
    """Pickled and back, as a DataLoader's worker sends it, it is the same."""
    import pickle

    error = pickle.loads(pickle.dumps(SetaStreamError("at \x1b[31m\nnext", key="\x1b")))
    assert (error.message, error.key) == ("at \\x1b[31m\nnext", "\x1b")


@given(st.text(st.characters()), st.one_of(st.none(), st.integers(0, 40)))
def test_any_text_becomes_visible(text: str, most: int | None) -> None:
    """Every text can be printed, on any UTF-8 terminal, in one line; what was visible is not changed."""
    told = visible(text, most)
    told.encode()
    assert not hidden(told)
    assert "\n" not in told
    if most is None and not hidden(text) and "\n" not in text:
        assert told == text
    assert visible_lines(text).count("\n") == text.count("\n")


def test_a_message_has_an_end() -> None:
    """What it quotes may be a file of many MiB."""
    error = CorpusError("Cannot read it: " + "x\n" * 10_000_000)
    assert len(error.message) == LONGEST
    assert error.message.endswith("…")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("\u202egpj", "\\u202egpj"),
        ("\U000e0001", "\\U000e0001"),
        ("\udcff", "\\xff"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # noqa: RUF001  (Persian)
        ("日本\u3000語 é", "日本\u3000語 é"),
        ("tab\there", "tab\\there".replace("\\t", "\\x09")),
    ],
)
def test_what_cannot_be_seen_is_spelled(text: str, told: str) -> None:
    """Controls by their codes, bytes that are no UTF-8 as bytes; words of any language stay."""
    assert visible(text) == told


def test_a_name_of_foreign_bytes_does_not_end_the_program(run: tuple[list[str], Path], tmp_path: Path) -> None:
    """A terminal that takes UTF-8 alone, strictly, can be told of keys that are none."""
    done = subprocess.run(
        [sys.executable, "-m", "seta_stream.cli", "verify", *run[0]],
        capture_output=True, timeout=60, check=False, env={"PYTHONIOENCODING": "utf-8:strict", "HOME": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[2]), "XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    assert b"Traceback" not in done.stderr

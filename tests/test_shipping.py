"""What is shipped: the wheel and the source distribution, installed where nothing else is, and their types."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import core_only
import pytest
import ship_licences as licences
from packaging.metadata import Metadata
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIST_INFO = f"seta_stream-{PROJECT['version']}.dist-info"
NAME = f"seta_stream-{PROJECT['version']}"

# pip resolves and unpacks 300 MB: 20 s alone, more on a busy machine.
pytestmark = pytest.mark.timeout(400)


def run(*words: str | Path, **options: Any) -> str:
    """Run a program that has to succeed; returns what it printed."""
    clean = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONWARNINGS"}}
    options = {"env": clean, **options}
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=380, **options)
    assert done.returncode == 0, f"{words}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def build(tree: Path, folder: Path, *, umask: int = 0o022, epoch: int = 1_700_000_000) -> dict[str, bytes]:
    """Build both distributions of a tree, with the backend that pip calls; returns their bytes by name."""
    before = os.umask(umask)
    try:
        run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=tree,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)})  # fmt: skip
    finally:
        os.umask(before)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Make a folder once for all processes of a test run: called with its name and what fills it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder = shared / name
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "whole").exists():
                folder.mkdir()
                fill(folder)
                (folder / "whole").touch()
        return folder

    return make


@pytest.fixture(scope="session")
def built(once: Callable[..., Path]) -> Path:
    """Build both distributions of this tree; returns the folder that holds them."""
    return once("shipped", lambda folder: build(ROOT, folder))


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    return built / f"{NAME}-py3-none-any.whl"


@pytest.fixture(scope="session")
def sdist(built: Path) -> Path:
    return built / f"{NAME}.tar.gz"


@pytest.fixture(scope="session")
def installed(once: Callable[..., Path], wheel: Path) -> Path:
    """Install the wheel, and what it asks for, into an empty environment; returns the environment's folder."""

    def install(folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        run(sys.executable, "-m", "pip", "--python", folder, "install", "--no-compile", wheel)

    return once("installed", install)


# ---- contents


def files_of_the_project() -> set[str]:
    """Return the files that git holds, or would; in an unpacked source distribution, those that are there."""
    if (ROOT / ".git").exists():
        listed = run("git", "ls-files", "-co", "--exclude-standard", "-z", cwd=ROOT).split("\0")
        return {name for name in listed if (ROOT / name).is_file()}
    found = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()}
    return {name for name in found if not re.search(r"__pycache__|_cache/|^\.hypothesis|^\.venv|^PKG-INFO$", name)}


def test_the_sdist_holds_the_project(sdist: Path) -> None:
    """Everything that git holds, so that it can be built, tested and read, and nothing that lies about."""
    with tarfile.open(sdist) as tar:
        members = {member.name.removeprefix(f"{NAME}/"): member for member in tar}
    assert set(members) == {*files_of_the_project(), "PKG-INFO"}
    assert members[".ci/run"].mode & 0o111
    assert max(member.size for member in members.values()) < 1 << 20
    assert sdist.stat().st_size < 4 << 20


def test_the_wheel_holds_the_package_alone(wheel: Path) -> None:
    """Its modules, the marker of its types, the licence and the console script."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        scripts = archive.read(f"{DIST_INFO}/entry_points.txt").decode()
        licence = archive.read(f"{DIST_INFO}/licenses/LICENSE")
    package = {name for name in names if not name.startswith(DIST_INFO)}
    assert package == {name for name in files_of_the_project() if name.startswith("seta_stream/")}
    assert all(name.endswith(".py") for name in package - {"seta_stream/py.typed"})
    assert "seta_stream/py.typed" in package
    own = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    assert names - package == {f"{DIST_INFO}/{name}" for name in own}
    assert scripts.split() == ["[console_scripts]", "seta-stream", "=", "seta_stream.cli:main"]
    assert licence == (ROOT / "LICENSE").read_bytes()
    assert wheel.stat().st_size < 1 << 20


def test_the_sdist_builds_the_same_bytes(built: Path, sdist: Path, tmp_path: Path) -> None:
    """Both distributions, from another folder, by a user with another umask: what is published can be checked."""
    with tarfile.open(sdist) as tar:
        tar.extractall(tmp_path / "tree", filter="data")
    again = build(tmp_path / "tree" / NAME, tmp_path / "again", umask=0o077)
    assert sorted(again) == [f"{NAME}-py3-none-any.whl", f"{NAME}.tar.gz"]
    for name, data in again.items():
        assert data == (built / name).read_bytes(), name


# ---- metadata


def metadata(wheel: Path) -> tuple[Metadata, str]:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"{DIST_INFO}/METADATA")
    found = Metadata.from_email(text, validate=True)
    return found, found.description or ""


def test_metadata_are_valid(wheel: Path, sdist: Path) -> None:
    """As an index checks them; the source distribution's are the same."""
    found, _ = metadata(wheel)
    assert (found.name, str(found.version)) == ("seta-stream", PROJECT["version"])
    assert (found.license_expression, found.license_files) == ("Apache-2.0", ["LICENSE"])
    assert str(found.requires_python) == ">=3.11"
    told = set(found.classifiers or ())
    versions = {line.rpartition(" :: ")[2] for line in told if line.startswith("Programming Language :: Python :: 3.")}
    assert versions == {"3.11", "3.12", "3.13"}
    assert "Typing :: Typed" in told
    assert not [line for line in told if line.startswith("License ::")], "an expression takes its place (PEP 639)"
    assert set(found.provides_extra or ()) == set(PROJECT["optional-dependencies"])
    core = {one.name for one in found.requires_dist or () if one.marker is None}
    assert core == {one.name for one in licences.direct()}
    with tarfile.open(sdist) as tar, zipfile.ZipFile(wheel) as archive:
        member = tar.extractfile(f"{NAME}/PKG-INFO")
        assert member is not None
        assert member.read() == archive.read(f"{DIST_INFO}/METADATA")


def test_the_description_stands_alone(wheel: Path) -> None:
    """An index shows the README without the files beside it: no link leads to one, each is named instead."""
    found, text = metadata(wheel)
    assert found.description_content_type == "text/markdown"
    assert text.startswith("# seta_stream\n")
    assert "`docs/policies.md`" in text
    assert "are in the source distribution" in text
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    assert not re.search(r"<img|<a |!\[", text)
    readme = (ROOT / "README.md").read_text()
    assert readme.count("](") > len(links) + 10, "the README itself links its files"


# ---- an installation without extras


def test_the_wheel_alone_is_enough(installed: Path, tmp_path: Path) -> None:
    """The core brings what docs/dependencies.md says, no framework, and does all that needs none."""
    python, program = installed / "bin/python", installed / "bin/seta-stream"
    assert run(program, "--version") == f"seta-stream, version {PROJECT['version']}\n"
    listed = json.loads(run(sys.executable, "-m", "pip", "--python", installed, "list", "--format", "json"))
    core = set(licences.closure(licences.direct()))
    assert {canonicalize_name(one["name"]) for one in listed} == {*core, "seta-stream"}
    run(sys.executable, "-m", "pip", "--python", installed, "check")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}  # where it writes its model
    told = json.loads(run(python, "-W", "error", ROOT / "tests/core_only.py", cwd=tmp_path, env=environment))
    assert told["file"].startswith(str(installed))
    assert told["heavy"] == []
    assert {name: code for name, (code, _) in told["works"].items() if code} == {}, told["works"]
    assert told["trains"][0] == 120 > told["trains"][1]
    for extra, (code, text) in told["extras"].items():
        assert code == 1, f"{extra}: {text}"
        assert text.startswith("Error: "), f"{extra}: {text}"
        assert re.search(rf"""pip install ['"]seta-stream\[{extra}\]['"]""", text), f"{extra}: {text}"
    for adapter, text in told["adapters"].items():
        assert f"pip install 'seta-stream[{core_only.ADAPTERS[adapter]}]'" in text, f"{adapter}: {text}"


def test_the_program_runs_as_pipx_runs_it(installed: Path, tmp_path: Path) -> None:
    """By its path, from any folder, without the environment being entered; so does its module."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("0.txt")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"0"))
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    assert "1 samples" in run(installed / "bin/seta-stream", "index", "a.tar", cwd=tmp_path, env=bare)
    module = (installed / "bin/python", "-m", "seta_stream.cli", "index", "a.tar", "--json")
    assert json.loads(run(*module, cwd=tmp_path, env=bare))["samples"] == 1


# ---- types

RIGHT = """
from collections.abc import Iterator, Mapping
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import seta_stream.errors
from seta_stream import (
    BLS, Cache, EfficientTrain, Full, InfoBatch, Kakurenbo, PerGroup, Reading, Rule, SeTa, SetaStream, SetaStreamError,
    SetaStreamWarning, Stats,
)
from seta_stream.adapters.torch import SetaDataset

def decode(field: str, data: bytes) -> object:
    return data.decode() if field == "txt" else data

def mine(histogram: object, epoch: int) -> Rule:
    return Rule([0.5], [0.1, 1.0])

policy = SeTa(num_epochs=90, prune_ratio=0.1, num_group=5, window_scale=0.6, delta=0.875, smooth=BLS(0.9))
assert_type(policy, SeTa)
assert_type(SeTa.as_published_code(num_epochs=90), SeTa)
assert_type(SeTa(num_epochs=9, target=0.5).num_epochs, int)
read = Reading(max_waste=0.1, max_span_bytes=1 << 20)
with SetaStream(
    ["a.tar", "b.tar"], policy=policy, state="runs/7", batch_size=256, decode=decode, read=read, cache=Cache("/tmp/c"),
    on_error="skip", fields=("txt",), unit="run", storage_options={"anon": True},
) as stream:
    assert_type(stream, SetaStream)
    assert_type(len(stream), int)
    stream.set_epoch(3)
    for sample in stream:
        assert_type(sample, dict[str, Any])
    for batch in stream.batches():
        stream.record(batch["__index__"], np.zeros(3))
    assert_type(stream.stats, Stats)
    assert_type(stream.stats.selected, int)
    assert_type(stream.stats.wait_s, float)
    assert_type(stream.progress, float)
    weights: NDArray[np.float32] = stream.weights([1, 2])
    state: Mapping[str, Any] = stream.state_dict(step=3)
    stream.load_state_dict(state)
validation = SetaStream("val.tar", policy=Full(), world=1, shuffle=False)
SetaStream("a.tar", policy=PerGroup(InfoBatch(num_epochs=9), by="cls"), decode=EfficientTrain(num_epochs=9))
SetaStream("a.tar", policy=Kakurenbo(num_epochs=9))
SetaStream("a.tar", policy=mine)
SetaStream("a.tar", policy="full()")
try:
    validation.close()
except seta_stream.errors.CorpusError as error:
    assert_type(error.shard, str | None)
    assert_type(error.message, str)
    base: SetaStreamError = error
category: type[Warning] = SetaStreamWarning
dataset = SetaDataset("a.tar", batch_size=256, batches=True, policy=SeTa(num_epochs=9), decode="rgb8", state=None)
"""

WRONG = [
    "SetaStream()",
    "SetaStream(7)",
    'SetaStream("a.tar", polcy=Full())',
    'SetaStream("a.tar", policy=7)',
    'SetaStream("a.tar", batch_size="256")',
    'SetaStream("a.tar", on_error="ignore")',
    'SetaStream("a.tar", decode=len)',
    'SetaStream("a.tar", Full())',
    'SetaStream("a.tar").set_epoch("one")',
    'SetaStream("a.tar").nothing',
    'SetaStream("a.tar").stats.select',
    'seed: str = SetaStream("a.tar").progress',
    "SeTa()",
    'SeTa(num_epochs="90")',
    "SeTa(num_epochs=90, window=3)",
    "SeTa(num_epochs=90).target = 0.5",
    "Reading(max_waste=None)",
    "from seta_stream import Setastream",
    'SetaDataset("a.tar")',
    'SetaDataset("a.tar", batch_size=3, polcy=Full())',
    'SetaDataset("a.tar", batch_size=3, decode=7)',
]


def test_a_users_program_is_checked(installed: Path, tmp_path: Path) -> None:
    """The installed wheel's public names have types: what is right passes under --strict, each mistake is found."""
    head = ("from seta_stream import *", "from seta_stream.adapters.torch import SetaDataset")
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text("\n".join([*head, *WRONG]) + "\n")
    # There is no torch, whose types take mypy 15 s: SetaDataset's base is unknown, and its own signature is not.
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = True\n[mypy-torch.*]\nignore_missing_imports = True\n")
    python = str(installed / "bin/python")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", python, "--cache-dir", "cache", "right.py", "wrong.py"],
        cwd=tmp_path, env={**os.environ, "MYPYPATH": "", "PYTHONPATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.findall(r"^(\S+):(\d+): error: ", done.stdout, re.MULTILINE)
    expected = [("wrong.py", str(number)) for number in range(len(head) + 1, len(head) + 1 + len(WRONG))]
    assert found == expected, done.stdout

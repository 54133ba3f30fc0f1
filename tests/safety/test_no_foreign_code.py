"""Nothing runs what it reads: no pickle, no shell, no evaluation, in the package, its tools and its examples.

tests/test_layering.py forbids modules and calls in the package. Here are the ways round: defaults that load pickles,
modules imported by name, programs that are started, transports that pickle on their own.
"""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FOREIGN = {
    # module → where it may be imported; nowhere where nothing is said
    "pickle": ("tools/fuzz/fields.py",),  # makes inputs that must be refused
    "marshal": (), "shelve": (), "dill": (), "cloudpickle": (), "runpy": (), "code": (), "codeop": (), "pty": (),
    "imp": (), "webbrowser": (), "cffi": (), "pexpect": (), "telnetlib": (), "xmlrpc": (), "yaml": (),
    "jsonpickle": (), "pandas": (), "cloudpathlib": (), "dbm": (), "ftplib": (), "smtplib": (), "zipimport": (),
    "ctypes": ("seta_stream/read/board.py", "seta_stream/read/cache.py"),  # the types of shared arrays
    "subprocess": ("tools/", "examples/"),
    "importlib": (
        "seta_stream/cli/command.py",  # our own commands, by a table
        "seta_stream/engines.py",  # Dask, Ray, Spark: by names that stand there
        "seta_stream/scoring/model.py",  # `score --model`: the user's own words on the command line
        "seta_stream/cli/options.py", "seta_stream/store/obstores.py", "seta_stream/demo/extras.py",  # looks only
        "tools/",
    ),
}  # fmt: skip

CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.startfile", "os.execv", "os.execve",
    "os.execvp", "os.execvpe", "os.spawnv", "os.spawnve", "os.spawnl", "os.posix_spawn", "pty.spawn", "torch.load",
    "torch.hub.load", "joblib.load", "pandas.read_pickle", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "tempfile.mktemp", "asyncio.create_subprocess_shell", "importlib.reload", "multiprocessing.connection.Client",
    "multiprocessing.connection.Listener", "logging.config.listen",
}  # fmt: skip
METHODS = {"extractall", "enable_load_extension", "load_extension"}
OBJECTS = {"all_gather_object", "gather_object", "broadcast_object_list", "scatter_object_list", "send_object_list",
           "recv_object_list"}  # fmt: skip
"""torch.distributed pickles what these are given: examples hand a checkpoint round so, the package nothing."""
LOWER_CASE = {"bcast", "scatter", "gather", "allgather", "alltoall", "allreduce", "send", "recv", "isend", "irecv",
              "sendrecv"}  # fmt: skip
"""mpi4py pickles what these are given, and takes buffers as they lie by the names in capitals."""
LOADS = {"np.load", "numpy.load", "np.lib.format.read_array", "numpy.lib.format.read_array"}


@cache
def sources() -> dict[str, ast.Module]:
    """Return every Python file of the package, tools and examples, parsed."""
    paths = [path for folder in ("seta_stream", "tools", "examples") for path in sorted((ROOT / folder).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(), str(path)) for path in paths}


def findings(name: str, tree: ast.AST) -> Iterator[str]:
    """Give what a file does that nothing here may."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for module in modules:
                places = FOREIGN.get(module.split(".")[0])
                if places is not None and not any(name == place or (place[-1] == "/" and name.startswith(place))
                                                  for place in places):  # fmt: skip
                    yield f"{name}:{node.lineno} imports {module}"
        elif isinstance(node, ast.Call):
            yield from _of_call(name, node)


def _of_call(name: str, node: ast.Call) -> Iterator[str]:
    called = _dotted(node.func)
    options = {keyword.arg: getattr(keyword.value, "value", keyword.value) for keyword in node.keywords}
    if called in CALLS:
        yield f"{name}:{node.lineno} calls {called}"
    method = called.rpartition(".")[2]
    is_pickling = method in OBJECTS and not name.startswith("examples/")
    is_pickling |= name.endswith("adapters/mpi.py") and called.partition("comm.")[2] in LOWER_CASE
    if method in METHODS or is_pickling:
        yield f"{name}:{node.lineno} calls .{method}, which pickles, loads code, or unpacks to anywhere"
    if called in LOADS and options.get("allow_pickle") is not False:
        yield f"{name}:{node.lineno} calls {called} without allow_pickle=False"
    if options.get("allow_pickle") is True and name != "tools/fuzz/fields.py":
        yield f"{name}:{node.lineno} allows pickle"
    if options.get("shell") not in (None, False):
        yield f"{name}:{node.lineno} starts a shell"


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        inside = _dotted(node.value)
        return f"{inside}.{node.attr}" if inside else f"?.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("name", sorted(sources()))
def test_a_file_runs_nothing_foreign(name: str) -> None:
    """By its imports and calls."""
    assert list(findings(name, sources()[name])) == []


PLANTED = {
    "import pickle": "imports pickle",
    "from pickle import loads": "imports pickle",
    "import importlib.util": "imports importlib.util",
    "import yaml\nyaml.load(x)": "calls yaml.load",
    "import numpy as np\nnp.load(x)": "without allow_pickle=False",
    "import numpy as np\nnp.load(x, allow_pickle=flag)": "without allow_pickle=False",
    "import numpy as np\nnp.load(x, allow_pickle=True)": "allows pickle",
    "import torch\ntorch.load(x)": "calls torch.load",
    "import joblib\njoblib.load(x)": "calls joblib.load",
    "import tarfile\ntarfile.open(x).extractall()": "calls .extractall",
    "run(x, shell=True)": "starts a shell",
    "run(x, shell=given)": "starts a shell",
    "import os\nos.system(x)": "calls os.system",
    "eval(x)": "calls eval",
    "torch.distributed.all_gather_object(a, b)": "calls .all_gather_object",
    "def f():\n    import subprocess": "imports subprocess",
}


@pytest.mark.parametrize("code", PLANTED)
def test_what_is_planted_is_found(code: str) -> None:
    """The test above can fail, for each way that it looks for."""
    assert any(PLANTED[code] in one for one in findings("seta_stream/planted.py", ast.parse(code)))


def test_mpi_takes_buffers_alone() -> None:
    """A call in small letters, in the one file that speaks MPI, would be found."""
    planted = ast.parse("self._comm.bcast(x)\ncomm.Ibcast(x)")
    assert list(findings("seta_stream/adapters/mpi.py", planted)) == [
        "seta_stream/adapters/mpi.py:1 calls .bcast, which pickles, loads code, or unpacks to anywhere"
    ]


def test_only_the_user_names_modules() -> None:
    """What `--model` takes is a name with dots and a colon: no path, no expression, no import of its own."""
    from seta_stream.errors import ArgumentError
    from seta_stream.scoring.model import check_name

    assert check_name("--model", "a.b:c.d") == ("a.b", "c.d")
    for name in ("os.system('x')", "a:b()", "../x:y", "a;b:c", "a:__import__('os')", "a b:c", ":c", "a:", "a:b:c"):
        with pytest.raises(ArgumentError, match="names nothing that can be imported"):
            check_name("--model", name)


def test_a_policy_is_looked_up_never_evaluated() -> None:
    """Its text may hold literals and names of policies; what else stands there is refused unread."""
    from seta_stream.errors import PolicyError
    from seta_stream.policies.names import policy_from

    for text in ("seta(num_epochs=__import__('os').getpid())", "seta(num_epochs=(lambda: 3)())", "full.__class__()",
                 "seta(num_epochs=[x for x in (1,)])", "seta(**{'num_epochs': 3})", "os(system='x')",
                 "seta(num_epochs=9**9**9)"):  # fmt: skip
        with pytest.raises(PolicyError):
            policy_from(text)


class Harm:
    """Makes a folder as it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.place),)


def test_no_file_of_a_folder_is_unpickled(tmp_path: Path) -> None:
    """A pickle under every name that the package reads: as shard, index, state, cache, list and table."""
    from seta_stream import SetaStream
    from seta_stream.carry.tables import read_table
    from seta_stream.corpus.interop import adopt_quietly
    from seta_stream.errors import SetaStreamError
    from seta_stream.losses.generations import Generations

    harm = pickle.dumps(Harm(tmp_path / "harm"))
    state = tmp_path / "state"
    names = ("corpus", "history.jsonl", "writer", "losses/gen-000001-0a/manifest", "pending/x",
             "index/x.tar.seta-index", "scoring/wanted.json", "scoring/000000.losses")  # fmt: skip
    for name in names:
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_bytes(harm + b"\n")
    for name in (
        "x.tar",
        "x.tar.seta-index",
        "x.tar.idx",
        "x.idx",
        "x.json",
        "x.tar.index",
        "x.csv",
        "x.parquet",
        "x.txt",
    ):
        (tmp_path / name).write_bytes(harm)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for work in (
            lambda: SetaStream(str(tmp_path / "x.tar"), state=str(state)),
            lambda: SetaStream(str(tmp_path / "x.txt")),
            lambda: Generations(str(state)).kept(),
            lambda: Generations(str(state)).history(),
            lambda: list(read_table(tmp_path / "x.csv")),
            lambda: list(read_table(tmp_path / "x.parquet")),
            lambda: adopt_quietly(str(tmp_path / "x.tar"), None),
        ):
            try:
                work()
            except SetaStreamError:
                continue
    assert not (tmp_path / "harm").exists()
    pickle.loads(harm)
    assert (tmp_path / "harm").exists(), "it would not show"


def test_reading_a_corpus_loads_no_pickle_at_all(tmp_path: Path) -> None:
    """From the first import to the last loss, in one process, nothing is unpickled and no program started.

    The interpreter's own audit events tell: `pickle.find_class`, `subprocess.Popen`, `os.system`, `exec` of new code.
    """
    from fuzz.making import tar

    (tmp_path / "x.tar").write_bytes(tar([(f"{number}.txt", b"x") for number in range(8)]))
    code = f"""
        import sys
        seen = []
        watched = {{"pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn",
                    "marshal.loads", "ctypes.dlopen", "webbrowser.open", "ftplib.connect", "urllib.Request"}}
        is_on = False
        def audit(event, arguments):
            if is_on and event in watched:
                seen.append((event, str(arguments)[:80]))
        sys.addaudithook(audit)
        from seta_stream import SeTa, SetaStream
        def run(state):
            policy = SeTa(num_epochs=3, prune_ratio=0.1, num_group=2, window_scale=1.0)
            options = dict(policy=policy, state=state, batch_size=2, decode="basic")
            with SetaStream({str(tmp_path / "x.tar")!r}, **options) as stream:
                for epoch in range(2):
                    stream.set_epoch(epoch)
                    for batch in stream.batches(2):
                        stream.record(batch["__index__"], [1.0, 2.0])
                stream.load_state_dict(stream.state_dict())
        run({str(tmp_path / "first")!r})  # what is imported late comes now, from compiled files
        is_on = True
        run({str(tmp_path / "second")!r})
        assert not seen, seen
        import pickle
        pickle.loads(pickle.dumps(SeTa(num_epochs=3)))
        assert any(event == "pickle.find_class" for event, _ in seen), "it would not show"
        print("nothing")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.stdout == "nothing\n", done.stderr

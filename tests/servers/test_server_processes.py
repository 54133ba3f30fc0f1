"""Servers end with whoever started them, whatever happens to it."""

from __future__ import annotations

import os
import pickle
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers import ServerError, child
from servers.child import Url, answers, running, running_module

TESTS = Path(__file__).parent.parent
TOOLS = TESTS.parent / "tools"

STARTS_ONE = """
import sys
sys.path.insert(0, sys.argv[1])
from servers.child import running
# It says that it runs: before, the kernel was not yet asked to end it with its parent.
with running(["sh", "-c", "echo runs; exec sleep 600"], name="a sleeper") as sleeper:
    sleeper.line()
    print(sleeper.process.pid, flush=True)
    sys.stdin.read()
"""

SUITE = """
from pathlib import Path
import pytest
from servers import FaultProxy, LimitProxy

def note(*urls):
    with (Path(__file__).parent / "ports.txt").open("a") as ports:
        ports.writelines(f"{url.split(':')[2].split('/')[0]}\\n" for url in urls)

@pytest.mark.parametrize("fails", [True, False])
def test_servers(s3_server, http_server, tmp_path, fails):
    url = http_server(tmp_path)
    with FaultProxy(url) as fault, LimitProxy(url, bytes_per_s=1e6) as limit:
        note(s3_server, url, fault.url, limit.url)
        assert not fails

def test_proxy_left_open(s3_server):
    proxy = FaultProxy(s3_server).__enter__()
    note(s3_server, proxy.url)
"""


def test_a_killed_parent_takes_its_servers_along() -> None:
    """A parent that is killed outright leaves nothing running."""
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTS_ONE, str(TOOLS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout is not None
        sleeper = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    poll = select.poll()
    poll.register(sleeper, select.POLLIN)
    assert poll.poll(20_000), "the server still runs 20 s after its parent was killed"
    os.close(sleeper)


def test_nothing_is_left_after_a_test_run(tmp_path: Path) -> None:
    """After a run on two workers, with a failing test and a proxy that nobody closed, no port is listened on."""
    (tmp_path / "test_them.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    for name in [name for name in env if name.startswith("PYTEST_")]:
        del env[name]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-n", "2", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    ports = [int(line) for line in (tmp_path / "ports.txt").read_text().split()]
    assert len(ports) == 10
    # The run waits for what it stops; what nobody stopped the kernel ends, in its own time.
    end = time.monotonic() + 20
    while (left := [port for port in ports if answers(port)]) and time.monotonic() < end:
        pass
    assert left == []


def test_the_address_travels_without_its_server() -> None:
    """A server's URL that goes to a spawned worker arrives as a plain str."""
    url = Url("http://127.0.0.1:1")
    arrived = pickle.loads(pickle.dumps({"endpoint_url": url}))["endpoint_url"]
    assert (type(arrived), arrived, type(url.url)) == (str, url, str)


def test_a_process_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ends, or never answers, is an error with its exit code and its own words."""
    with (
        pytest.raises(ServerError, match=r"a failure did not answer; exit code 3, stderr: oh no"),
        running(["sh", "-c", "echo oh no >&2; exit 3"], name="a failure") as process,
    ):
        process.line()
    monkeypatch.setattr(child, "START_S", 0.05)
    with (
        pytest.raises(ServerError, match=r"a sleeper did not answer; exit code -9, stderr: \(empty\)"),
        running(["sleep", "600"], name="a sleeper") as process,
    ):
        process.line()
    with (
        pytest.raises(ServerError, match=r"a sleeper was not ready after 0 s; exit code None"),
        running(["sleep", "600"], name="a sleeper") as process,
    ):
        process.wait_until(lambda: False)


def test_a_proxy_that_is_gone_says_so() -> None:
    """Asking a process that has ended is an error, not a hang."""
    config = {"target": ("127.0.0.1", 9), "bytes_per_s": 1.0}
    with running_module("servers.limit_main", config, name="the limit proxy") as (process, _):
        process.process.kill()
        process.process.wait()
        with pytest.raises(ServerError, match=r"the limit proxy (is gone|did not answer); exit code -9"):
            process.ask({})


def test_a_process_that_will_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ignores SIGTERM is killed."""
    monkeypatch.setattr(child, "STOP_S", 0.05)
    with running(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], name="stubborn") as process:
        assert process.line() == "ready\n"
    assert process.process.returncode == -9

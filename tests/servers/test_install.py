"""tools/install_servers.sh does nothing where all is there, and says what is missing where it cannot go on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from servers.azurite_server import azurite_program
from servers.child import INSTALL
from servers.nginx_server import ECHO_MODULE, PROGRAM

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / INSTALL.removeprefix("bash ")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Make a home where everything is installed; nothing of it works."""
    folder = tmp_path / ".cache/seta-stream-servers"
    for name in (PROGRAM, ECHO_MODULE):
        (folder / "nginx" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "nginx" / name).touch(mode=0o755)
    package = folder / "node_modules/azurite/package.json"
    package.parent.mkdir(parents=True)
    package.write_text('{\n  "name": "azurite",\n  "version": "3.35.0"\n}\n')
    return tmp_path


def run(home: Path, *, tools: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the script with this home, as on a system without nginx, with a few programs alone in PATH."""
    script = SCRIPT.read_text()
    assert script.count('has_nginx "" ||') == 1
    (home / "script.sh").write_text(script.replace('has_nginx "" ||', "false ||"))
    programs = home / "bin"
    programs.mkdir()
    for name in ("bash", "grep", "id", "mkdir", "mktemp", "mv", "rm", *tools):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    return subprocess.run(
        ["bash", str(home / "script.sh")],
        env=os.environ | {"HOME": str(home), "PATH": str(programs)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_what_is_there_is_left_alone(home: Path) -> None:
    """Nothing is fetched where all is there, and nothing is left beside it."""
    done = run(home)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "install_servers: nginx is there\ninstall_servers: Azurite is there\n"
    assert sorted(path.name for path in (home / ".cache/seta-stream-servers").iterdir()) == ["nginx", "node_modules"]


def test_tests_find_what_it_installs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script and tools/servers speak of one folder."""
    program = home / ".cache/seta-stream-servers/node_modules/.bin/azurite-blob"
    program.parent.mkdir()
    program.touch()
    monkeypatch.setenv("HOME", str(home))
    assert azurite_program() == program


def test_without_npm_it_says_what_to_install(home: Path) -> None:
    """Another version of Azurite counts as none; without npm the script fails and names Node.js."""
    package = home / ".cache/seta-stream-servers/node_modules/azurite/package.json"
    package.write_text(package.read_text().replace("3.35.0", "3.0.0"))
    done = run(home)
    assert done.returncode == 1
    assert "install_servers: Azurite is not here, and neither is npm to fetch it. Install Node.js 18" in done.stderr


def test_without_apt_it_says_what_to_install(home: Path) -> None:
    """Half of the nginx pair counts as none; without apt-get the script fails and names the packages."""
    (home / ".cache/seta-stream-servers/nginx" / ECHO_MODULE).unlink()
    done = run(home)
    assert done.returncode == 1
    assert "neither is apt-get to fetch it" in done.stderr
    assert "nginx, libnginx-mod-http-echo" in done.stderr

"""tools/install_servers.sh does nothing where all is there, and says what is missing where it cannot go on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from browser import PROGRAM as CHROMIUM
from servers.azurite_server import azurite_program
from servers.child import INSTALL
from servers.nginx_server import ECHO_MODULE, PROGRAM

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / INSTALL.removeprefix("bash ")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Make a home where everything is installed; nothing of it works."""
    folder = tmp_path / ".cache/seta-stream-servers"
    for name in (f"nginx/{PROGRAM}", f"nginx/{ECHO_MODULE}", f"chromium/{CHROMIUM}"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch(mode=0o755)
    package = folder / "node_modules/azurite/package.json"
    package.parent.mkdir(parents=True)
    package.write_text('{\n  "name": "azurite",\n  "version": "3.35.0"\n}\n')
    return tmp_path


def run(home: Path, **fakes: str) -> subprocess.CompletedProcess[str]:
    """Run the script with this home, as on a system without nginx and Chromium, with a few programs alone in PATH.

    Args:
        home: of the user.
        fakes: scripts that are programs too, "_" standing for "-" in their names.
    """
    script = SCRIPT.read_text()
    for server in ("nginx", "chromium"):
        assert script.count(f'has_{server} "" ||') == 1
        script = script.replace(f'has_{server} "" ||', "false ||")
    (home / "script.sh").write_text(script)
    programs = home / "bin"
    programs.mkdir()
    for name, body in fakes.items():
        (programs / name.replace("_", "-")).write_text(f"#!{shutil.which('bash')}\n{body}")
        (programs / name.replace("_", "-")).chmod(0o755)
    for name in ("awk", "bash", "chmod", "grep", "id", "mkdir", "mktemp", "mv", "rm", "touch"):
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
    assert done.stdout.splitlines() == [
        f"install_servers: {name} is there" for name in ("nginx", "Azurite", "Chromium")
    ]
    left = sorted(path.name for path in (home / ".cache/seta-stream-servers").iterdir())
    assert left == ["chromium", "nginx", "node_modules"]


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


@pytest.mark.parametrize(
    ("lost", "names"),
    [
        (f"nginx/{ECHO_MODULE}", ("nginx with its echo module is not here", "(Debian: nginx, libnginx-mod-http-echo)")),
        (f"chromium/{CHROMIUM}", ("Chromium's headless shell is not here", "(Debian: chromium-headless-shell)")),
    ],
    ids=["half of the nginx pair", "Chromium"],
)
def test_without_apt_it_says_what_to_install(home: Path, lost: str, names: tuple[str, str]) -> None:
    """What lacks one of its files counts as none; without apt-get the script fails and names the packages."""
    (home / ".cache/seta-stream-servers" / lost).unlink()
    done = run(home)
    assert done.returncode == 1
    assert f"{names[0]}, and neither is apt-get to fetch it." in done.stderr
    assert names[1] in done.stderr


# ---- apt-get and dpkg-deb, played by scripts: they write down what they are asked, and "unpack" programs that say yes

APT = """
log=$HOME/asked
case " $* " in
*" update "*) echo update >>"$log" ;;
*" install "*) for one in libnss3 xdg-utils chromium-headless-shell; do echo "Inst $one (1.0 Debian)"; done ;;
*" download "*)
    while [ "$1" != download ]; do shift; done
    for one in "${@:2}"; do echo "download $one" >>"$log" && touch "$one.deb"; done
    ;;
esac
"""
DPKG = (
    """
file=${2##*/}
echo "unpack $file" >>"$HOME/asked"
make() { mkdir -p "${1%/*}" && printf '#!/bin/bash\\nexit CODE\\n' >"$1" && chmod 755 "$1"; }
case $file in
nginx.deb) make "$3/PROGRAM" ;;
libnginx*) make "$3/ECHO" ;;
chromium*) make "$3/CHROMIUM" ;;
esac
""".replace("PROGRAM", str(PROGRAM))
    .replace("ECHO", str(ECHO_MODULE))
    .replace("CHROMIUM", str(CHROMIUM))
)


def test_packages_are_unpacked_into_place(home: Path) -> None:
    """Both come by one refreshing of the lists; with Chromium comes what it needs and the system lacks; no desktop."""
    folder = home / ".cache/seta-stream-servers"
    shutil.rmtree(folder / "nginx")
    shutil.rmtree(folder / "chromium")
    done = run(home, apt_get=APT, dpkg_deb=DPKG.replace("CODE", "0"))
    assert (done.returncode, done.stderr) == (0, "")
    asked = (home / "asked").read_text().splitlines()
    assert [line for line in asked if not line.startswith("unpack")] == [
        "update",
        "download nginx",
        "download libnginx-mod-http-echo",
        "download libnss3",
        "download chromium-headless-shell",
    ]
    assert len([line for line in asked if line.startswith("unpack")]) == 4
    assert (folder / "nginx" / PROGRAM).exists()
    assert (folder / "chromium" / CHROMIUM).exists()
    assert sorted(path.name for path in folder.iterdir()) == ["chromium", "nginx", "node_modules"]


@pytest.mark.parametrize(
    ("server", "packages"), [("nginx", "nginx libnginx-mod-http-echo"), ("chromium", "chromium-headless-shell")]
)
@pytest.mark.parametrize(
    ("apt", "code", "message"),
    [
        ('case " $* " in *" update "*) exit 100 ;; esac', "0", "apt-get could not fetch the lists of packages"),
        ('case " $* " in *" update "*) ;; *) exit 100 ;; esac', "0", "apt-get could not fetch the package"),
        (APT, "1", "do(es)? not run when unpacked.*\n.*Install (it|them): sudo apt-get install {packages}"),
    ],
    ids=["no lists", "no packages", "broken"],
)
def test_what_apt_cannot_do_is_told(home: Path, server: str, packages: str, apt: str, code: str, message: str) -> None:
    """The script fails where apt-get fails or what it brought does not run, and leaves nothing half installed."""
    folder = home / ".cache/seta-stream-servers"
    shutil.rmtree(folder / server)
    done = run(home, apt_get=apt, dpkg_deb=DPKG.replace("CODE", code))
    assert done.returncode == 1
    assert re.search(message.format(packages=packages), done.stderr)
    assert server not in {path.name for path in folder.iterdir()}
    assert len(list(folder.iterdir())) == 2

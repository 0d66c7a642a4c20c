"""Deployment: the image's steps and command done here without Docker, compose and the unit read as their tools read them.

What a container engine or a running systemd alone could show is not shown: docs/deploying.md says what.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from brokers import free_port
from headwater import supervisor
from headwater.cli.app import app
from headwater.config import describe, load
from headwater.errors import ConfigError
from serving import eventually

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "docs" / "deploy"
SETTINGS = {"HEADWATER_" + name.replace(".", "_").upper() for name, *_ in describe()}
NOBODY = 65534


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continued lines joined, comments left out."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    return [(word, " ".join(rest.split())) for word, rest in found]


def last(word: str) -> str:
    return [rest for each, rest in instructions() if each == word][-1]


def listed(text: str) -> list[str]:
    return [str(item) for item in yaml.safe_load(text)]  # JSON arrays are YAML


def image_environment() -> dict[str, str]:
    return dict(pair.partition("=")[::2] for word, rest in instructions() if word == "ENV" for pair in shlex.split(rest))


def is_command(arguments: Sequence[str]) -> bool:
    """Whether `headwater ARGUMENTS` names a command with options that it has; nothing is run."""
    command = __import__("typer").main.get_command(app)
    context = command.make_context("headwater", list(arguments), resilient_parsing=True)
    found = command.commands[arguments[0]]
    found.make_context(arguments[0], list(arguments[1:]), parent=context, resilient_parsing=False)
    return True


# ------------------------------------------------------------------------------------------------------ files


def test_the_image_runs_as_a_user_of_its_own_and_keeps_data_in_a_volume() -> None:
    words = instructions()
    assert last("USER") not in ("root", "0")
    assert max(i for i, (word, _) in enumerate(words) if word == "USER") > max(
        i for i, (word, _) in enumerate(words) if word in ("RUN", "COPY")
    )
    assert last("VOLUME") == image_environment()["HEADWATER_DATA_DIR"] == last("WORKDIR")
    made = next(rest for word, rest in words if word == "RUN" and "useradd" in rest)
    assert f"--uid 10001 --gid {last('USER')}" in made
    assert last("STOPSIGNAL") == "SIGTERM"


def test_what_the_image_copies_is_there_and_let_through() -> None:
    let = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [p for word, rest in instructions() if word == "COPY" and "--from" not in rest for p in rest.split()[:-1]]
    assert copied
    for path in copied:
        assert (ROOT / path).exists()
        assert path in let
    assert set(let) == set(copied)


def test_the_image_has_all_packages_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    copied = {path for word, rest in instructions() if word == "COPY" and "--from" not in rest for path in rest.split()[:-1]}
    assert {package.partition("/")[0] for package in packages} <= copied


def test_every_variable_and_command_of_the_deployment_is_one_of_headwaters() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["headwater"]
    named = {*image_environment(), *compose["environment"]}
    assert {n for n in named if n.startswith("HEADWATER_")} <= SETTINGS
    assert listed(last("ENTRYPOINT")) == ["headwater"]
    assert is_command(listed(last("CMD")))
    health = last("HEALTHCHECK").partition("CMD ")[2]
    for command in (listed(health), compose["healthcheck"]["test"][1:]):
        assert command[0] == "headwater"
        assert is_command(command[1:])


def test_compose_publishes_on_loopback_alone_and_asks_for_a_key() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    service = compose["services"]["headwater"]
    assert all(str(port).startswith("127.0.0.1:") for port in service["ports"])
    assert service["environment"]["HEADWATER_SERVER_API_KEY"].startswith("${HEADWATER_SERVER_API_KEY:?")
    assert image_environment()["HEADWATER_SERVER_HOST"] == "0.0.0.0"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert f"data:{last('VOLUME')}" in service["volumes"]
    assert "data" in compose["volumes"]
    dockerfile = DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]
    assert dockerfile.resolve() == (DEPLOY / "Dockerfile").resolve()


def unit() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "headwater.service")
    return parser


def test_the_unit_starts_a_command_that_is_there_and_is_hardened() -> None:
    service = unit()["Service"]
    program, *arguments = service["ExecStart"].split()
    assert Path(program).name == "headwater"
    assert is_command(arguments)
    assert service["Type"] == "notify"
    assert service["Restart"] == "on-failure"
    for name in ("DynamicUser", "NoNewPrivileges", "PrivateTmp", "ProtectHome"):
        assert service[name] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    path = tmp_path / "headwater.service"
    path.write_text((DEPLOY / "headwater.service").read_text().replace("/usr/local/lib/headwater/bin/headwater", "/bin/true"))
    found = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, timeout=240)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


# ------------------------------------------------------------------------------------------------------ the installed wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the image has Headwater: the wheel built from this tree in a venv of its own. Its dependencies are those that are
    installed here."""
    pytest.importorskip("hatchling")
    base = tmp_path_factory.mktemp("image")
    base.chmod(0o755)
    for parent in base.parents[:2]:
        parent.chmod(0o755)  # another user is to run it
    tree = base / "src"
    tree.mkdir()
    for word, rest in instructions():
        if word == "COPY" and "--from" not in rest:
            for path in rest.split()[:-1]:
                source = ROOT / path
                if source.is_dir():
                    shutil.copytree(source, tree / path, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(source, tree / path)
    _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(base / "wheels")], cwd=tree)
    home = base / "headwater"
    _run([sys.executable, "-m", "venv", "--without-pip", str(home)])
    (wheel,) = (base / "wheels").glob("headwater-*.whl")
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet"]
    _run([*pip, "--disable-pip-version-check", "--no-warn-script-location", str(wheel)])
    packages = next((home / "lib").glob("python*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return home


def _run(command: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


class Container:
    """The image's command with the image's environment; as another user where these tests run as root."""

    def __init__(self, installed: Path, data: Path) -> None:
        data.mkdir(mode=0o700)
        bin = installed / "bin"
        self.environment = {**image_environment(), "PATH": f"{bin}:/usr/bin:/bin", "HEADWATER_DATA_DIR": str(data)}
        self.port = free_port()
        self.environment |= {"HEADWATER_SERVER_PORT": str(self.port), "HEADWATER_EMBEDDING_MODEL": "hash"}
        self.program, self.data = str(bin / "headwater"), data
        self.user: int | None = None
        if os.getuid() == 0 and os.access(sysconfig.get_paths()["purelib"], os.R_OK) and _readable_by_others():
            os.chown(data, NOBODY, NOBODY)
            self.user = NOBODY
        self.process: subprocess.Popen[str] | None = None

    def start(self, **more: str) -> subprocess.Popen[str]:
        command = [self.program, *listed(last("CMD"))]
        self.process = subprocess.Popen(command, env={**self.environment, **more}, stderr=subprocess.PIPE, **self._as())  # type: ignore[call-overload]
        return self.process

    def health(self, *options: str) -> subprocess.CompletedProcess[str]:
        """The health check: it knows the data directory, not the key."""
        command = [self.program, *listed(last("HEALTHCHECK").partition("CMD ")[2])[1:], *options]
        return subprocess.run(command, env=self.environment, capture_output=True, timeout=240, **self._as())  # type: ignore[call-overload,no-any-return]

    def _as(self) -> Mapping[str, object]:
        other = {} if self.user is None else {"user": self.user, "group": self.user, "extra_groups": []}
        return {"text": True, "cwd": self.data if self.user is None else "/", **other}

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate(timeout=240)


def _readable_by_others() -> bool:
    """Whether another user can reach the packages these tests run with, and the interpreter."""
    places = [
        Path(sysconfig.get_paths()["purelib"]),
        Path(os.path.realpath(sys.executable)),
        Path(sysconfig.get_paths()["stdlib"]),
    ]
    return all(p.stat().st_mode & 0o005 == 0o005 for place in places for p in (place, *place.parents))


@pytest.fixture
def container(installed: Path, tmp_path: Path) -> Iterator[Container]:
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    made = Container(installed, tmp_path / "data")
    yield made
    made.end()


def test_the_image_does_not_start_without_a_key_and_says_how_to_give_one(container: Container) -> None:
    said = container.start().communicate(timeout=240)[1]
    assert container.process is not None
    assert str(container.process.returncode) == unit()["Service"]["RestartPreventExitStatus"]  # nothing to be tried again
    assert "HEADWATER_SERVER_API_KEY" in said
    assert "openssl rand -hex 32" in said
    assert "Traceback" not in said


def test_the_image_serves_is_checked_and_ends_in_good_order(container: Container, tmp_path: Path) -> None:
    secret = tmp_path / "api-key"
    secret.write_text("s3cret-of-this-test\n")
    secret.chmod(0o644)
    told = tmp_path / "notify"
    with _listening(told) as heard:
        absent = container.health()
        assert absent.returncode == 3, absent.stderr
        assert "no daemon serves" in absent.stderr
        process = container.start(HEADWATER_SERVER_API_KEY_FILE=str(secret), NOTIFY_SOCKET=str(told), WATCHDOG_USEC="1000000")
        eventually(lambda: len(heard) >= 3 or process.poll() is not None)
        assert heard[0].startswith(b"READY=1\n")
        assert heard[1:3] == [b"WATCHDOG=1"] * 2
        live = container.health("--timeout", "240")
        assert (live.returncode, live.stderr) == (0, "")
        ready = container.health("--ready", "--json", "--timeout", "240")
        assert ready.returncode == 0
        assert '"ready":true' in ready.stdout.replace(" ", "")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{container.port}/v1/health", timeout=240)
        assert refused.value.code == 401
        refused.value.close()
        body = b'{"records": [{"value": "the pump stopped"}]}'
        headers = {"Authorization": "Bearer s3cret-of-this-test", "Content-Type": "application/json"}
        post = urllib.request.Request(f"http://127.0.0.1:{container.port}/v1/topics/logs/records", body, headers)
        with urllib.request.urlopen(post, timeout=240) as reply:
            assert reply.status in (200, 201)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=240)[1]
        assert process.returncode == 0, said
        assert "s3cret" not in said
        eventually(lambda: any(message.startswith(b"STOPPING=1\n") for message in heard))
    assert (container.data / "log.db").exists()
    if container.user is not None:
        assert (container.data / "log.db").stat().st_uid == container.user


@contextlib.contextmanager
def _listening(address: Path) -> Iterator[list[bytes]]:
    """All that comes in, read at once, as a service manager does: a socket holds a few messages, and what is more is lost."""
    heard: list[bytes] = []

    def listen() -> None:
        while message := manager.recv(4096):
            heard.append(message)

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        address.chmod(0o777)
        listener = threading.Thread(target=listen)
        listener.start()
        try:
            yield heard
        finally:
            manager.shutdown(socket.SHUT_RDWR)
            listener.join(240)


# ------------------------------------------------------------------------------------------------------ parts


def test_a_secret_may_lie_in_a_file_and_other_settings_may_not(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("s3cret\n")
    found = load(None, None, {"HEADWATER_SERVER_API_KEY_FILE": str(path), "HEADWATER_SERVER_HOST_FILE": str(path)})
    key = found.settings.server.api_key
    assert key is not None
    assert key.get_secret_value() == "s3cret"
    assert found.settings.server.host == "127.0.0.1"
    assert found.origins == {"server.api_key": "environment HEADWATER_SERVER_API_KEY_FILE"}
    with pytest.raises(ConfigError, match="cannot be read"):
        load(None, None, {"HEADWATER_SERVER_API_KEY_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize("address", ["", "tcp:1", "/nobody/listens/here"])
def test_a_manager_that_does_not_listen_is_passed_over(address: str) -> None:
    assert supervisor.tell("READY=1", {"NOTIFY_SOCKET": address}) is False


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "4000000"}, 2.0),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_told_twice_as_often_as_it_looks(environment: dict[str, str], wanted: float | None) -> None:
    assert supervisor.interval_s(environment) == wanted

"""`headwater mcp install` and `headwater tokens`, as people run them; the entry for the registry."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headwater.cli.app import app
from headwater.errors import StorageError, UsageError
from headwater.tokens import FILE, tokens_of
from headwater_mcp import install as subject
from headwater_mcp.install import BACKUP, CLIENTS, install, place, uninstall

ROOT = Path(__file__).parents[1]
COMMAND, ARGUMENTS = "/opt/bin/headwater", ["mcp", "--allow-write"]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_is_told_once_and_everything_else_in_its_file_stays(tmp_path: Path, client: subject.Client) -> None:
    file, key = place(client, project=None, home=tmp_path, platform="linux")
    file.parent.mkdir(parents=True, exist_ok=True)
    others = {"theme": "dünkel", key: {"other": {"command": "x"}}, "list": [1, 2]}
    before = json.dumps(others, indent=4, ensure_ascii=False)
    file.write_text(before, encoding="utf-8")
    file.chmod(0o640)
    done = install(client, COMMAND, ARGUMENTS, home=tmp_path, platform="linux")
    assert done.state == "added"
    assert done.after
    assert done.backup is not None
    assert done.backup.read_text("utf-8") == before
    after = json.loads(file.read_text("utf-8"))
    assert after[key]["headwater"]["command"] == COMMAND
    assert after[key]["headwater"]["args"] == ARGUMENTS
    assert list(after) == list(others)
    assert after[key].pop("headwater")
    assert after == others
    assert '\n    "theme": "dünkel"' in file.read_text("utf-8")
    assert file.stat().st_mode & 0o777 == 0o640
    again = install(client, COMMAND, ARGUMENTS, home=tmp_path, platform="linux")
    assert again.state == "unchanged"
    assert install(client, COMMAND, ["mcp"], home=tmp_path, platform="linux").state == "changed"
    assert uninstall(client, home=tmp_path, platform="linux").state == "removed"
    assert json.loads(file.read_text("utf-8")) == others
    assert uninstall(client, home=tmp_path, platform="linux").state == "absent"
    assert {p.name for p in file.parent.iterdir() if p.is_file()} == {file.name, file.name + BACKUP}


def test_what_a_person_added_to_the_entry_stays(tmp_path: Path) -> None:
    install("cursor", COMMAND, ARGUMENTS, home=tmp_path, platform="linux")
    file = tmp_path / ".cursor" / "mcp.json"
    found = json.loads(file.read_text())
    found["mcpServers"]["headwater"]["env"] = {"HEADWATER_SERVER_API_KEY": "${KEY}"}
    file.write_text(json.dumps(found))
    assert install("cursor", COMMAND, ARGUMENTS, home=tmp_path, platform="linux").state == "unchanged"
    install("cursor", COMMAND, ["mcp"], home=tmp_path, platform="linux")
    assert json.loads(file.read_text())["mcpServers"]["headwater"]["env"]


@pytest.mark.parametrize("text", ["// a comment\n{}", "[1]", '{"mcpServers": 3}', "{"])
def test_a_file_that_is_not_understood_stays_as_it_is(tmp_path: Path, text: str) -> None:
    file = tmp_path / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(UsageError):
        install("cursor", COMMAND, ARGUMENTS, home=tmp_path, platform="linux")
    assert file.read_text() == text


def test_a_file_that_cannot_be_replaced_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_text("{}")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("headwater_mcp.install.os.fsync", full)
    with pytest.raises(StorageError, match="as it was"):
        install("cursor", COMMAND, ARGUMENTS, home=tmp_path, platform="linux")
    assert file.read_text() == "{}"
    assert not list(file.parent.glob(".*new"))


def test_each_platform_and_project_has_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APPDATA", raising=False)
    mac = place("claude", project=None, home=tmp_path, platform="darwin")[0]
    assert mac == tmp_path / "Library/Application Support/Claude/claude_desktop_config.json"
    assert place("claude", project=None, home=tmp_path, platform="win32")[0].parts[-4:-1] == ("AppData", "Roaming", "Claude")
    assert place("vscode", project=tmp_path, home=tmp_path, platform="linux") == (tmp_path / ".vscode/mcp.json", "servers")
    assert place("claude-code", project=tmp_path, home=tmp_path, platform="linux")[0] == tmp_path / ".mcp.json"
    with pytest.raises(UsageError, match="--project"):
        place("claude", project=tmp_path, home=tmp_path, platform="linux")
    with pytest.raises(UsageError, match="name"):
        install("cursor", COMMAND, [], name="a b", home=tmp_path)


def _run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.stdout, result.stderr


def test_the_command_writes_absolute_paths_and_says_what_it_did(tmp_path: Path) -> None:
    code, out, err = _run("mcp", "install", "--client", "claude-code", "--data", "here", "--allow-write")
    assert code == 0
    assert f"added 'headwater' in {tmp_path / '.claude.json'}" in out
    assert "next: start `claude` anew" in err
    entry = json.loads((tmp_path / ".claude.json").read_text())["mcpServers"]["headwater"]
    assert entry["type"] == "stdio"
    assert Path(entry["command"]).is_absolute()
    assert entry["args"][:2] == ["mcp", "--data"]
    assert Path(entry["args"][2]).is_absolute()
    assert entry["args"][3:] == ["--allow-write"]
    assert "removed" in _run("mcp", "install", "--client", "claude-code", "--uninstall")[1]
    assert _run("mcp", "install", "--client", "emacs")[0] == 2
    assert json.loads(_run("mcp", "install")[1])["mcpServers"]["headwater"]["args"] == ["mcp"]


def test_tokens_are_made_listed_and_revoked_by_commands(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    code, secret, said = _run("tokens", "create", "ci", "--topics", "logs,team-*", "--ttl", "90d", "--rate", "5", *data)
    assert code == 0
    assert "reads logs, team-*" in said
    found = tokens_of(tmp_path / "data").find(secret.strip())
    assert found is not None
    assert found.requests_per_s == 5
    made = json.loads(_run("tokens", "create", "w", "--topics", "a", "--write", "--max-body", "1000", "--json", *data)[1])
    assert made["write"]
    assert made["token"].startswith("hw_")
    listed = _run("tokens", *data)[1]
    assert secret.strip() not in listed
    assert "w: reads and writes a, bodies of 1000 bytes" in listed
    assert [t["name"] for t in json.loads(_run("tokens", "list", "--json", *data)[1])] == ["ci", "w"]
    assert _run("tokens", "revoke", "ci", *data)[0] == 0
    assert _run("tokens", "revoke", "ci", *data)[0] != 0
    assert _run("tokens", "create", "x", *data)[0] != 0
    assert _run("tokens", "create", "x", "--topics", "a", "--ttl", "soon", *data)[0] != 0
    assert (tmp_path / "data" / FILE).exists()


def test_the_entry_for_the_registry_is_that_of_this_version() -> None:
    entry = json.loads((ROOT / "mcp_server" / "headwater_mcp" / "server.json").read_text("utf-8"))
    assert entry["version"] == version("headwater") == entry["packages"][0]["version"]
    assert len(entry["description"]) <= 100
    assert entry["packages"][0]["identifier"] == "headwater"
    assert [a["value"] for a in entry["packages"][0]["packageArguments"]] == ["mcp"]
    assert set(entry) == {"$schema", "name", "title", "description", "version", "packages"}

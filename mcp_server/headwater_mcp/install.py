"""Telling an agent's program of this server: its settings file is changed by one entry, and everything else in it stays.

A file is written whole or not at all (a rename), and what it was before is kept beside it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headwater.errors import StorageError, UsageError

Client = Literal["claude", "claude-code", "cursor", "vscode"]
CLIENTS: tuple[Client, ...] = ("claude", "claude-code", "cursor", "vscode")
BACKUP = ".headwater-backup"
_AGAIN: Mapping[Client, str] = {
    "claude": "restart Claude Desktop",
    "claude-code": "start `claude` anew; /mcp shows the server",
    "cursor": "Cursor sees it at once, under Settings, MCP",
    "vscode": "start the server from the file or with `MCP: List Servers`",
}
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a settings file: `state` is added, changed, unchanged, removed or absent; `backup` is where it is as it
    was, `after` what a person has to do next."""

    file: Path
    state: Literal["added", "changed", "unchanged", "removed", "absent"]
    backup: Path | None
    after: str


def install(
    client: Client, command: str, arguments: Sequence[str], *, name: str = "headwater", project: Path | None = None,
    home: Path | None = None, platform: str = sys.platform,
) -> Done:  # fmt: skip
    """Have `client` start `command` with `arguments`, for everything this user does or for `project` alone. Called again it
    changes nothing. Raises UsageError, StorageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name[:64]!r} is no name of a server: letters, digits, _ and -")
    file, key = place(client, project=project, home=home or Path.home(), platform=platform)
    return _change(client, file, key, name, entry(client, command, arguments))


def uninstall(
    client: Client, *, name: str = "headwater", project: Path | None = None, home: Path | None = None,
    platform: str = sys.platform,
) -> Done:  # fmt: skip
    """Take the entry away again; a file without it stays as it is."""
    file, key = place(client, project=project, home=home or Path.home(), platform=platform)
    return _change(client, file, key, name, None)


def place(client: Client, *, project: Path | None, home: Path, platform: str) -> tuple[Path, str]:
    """The settings file of a client, and under which key its servers stand. UsageError where it has none."""
    if platform == "darwin":
        support = home / "Library" / "Application Support"
    elif platform == "win32":
        support = Path(os.environ.get("APPDATA") or home / "AppData" / "Roaming")
    else:
        support = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    if project is not None:
        own = {"claude-code": ".mcp.json", "cursor": ".cursor/mcp.json", "vscode": ".vscode/mcp.json"}
        if client not in own:
            raise UsageError("Claude Desktop has no settings of a project; leave --project out")
        return project.resolve() / own[client], "servers" if client == "vscode" else "mcpServers"
    files = {
        "claude": support / "Claude" / "claude_desktop_config.json",
        "claude-code": home / ".claude.json",
        "cursor": home / ".cursor" / "mcp.json",
        "vscode": support / "Code" / "User" / "mcp.json",
    }
    return files[client], "servers" if client == "vscode" else "mcpServers"


def entry(client: Client | None, command: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The entry of a server; `command` is an absolute path, because programs with windows have another PATH."""
    plain: dict[str, Any] = {"command": command, "args": list(arguments)}
    return {"type": "stdio", **plain} if client in ("claude-code", "vscode") else plain


def _change(client: Client, file: Path, key: str, name: str, wanted: dict[str, Any] | None) -> Done:
    file = file.resolve()  # a link stays one
    text, settings = _read(file)
    servers = settings.setdefault(key, {})
    if not isinstance(servers, dict):
        raise UsageError(f"{key} in {file} is not an object; mend it by hand, then try again")
    before = servers.get(name)
    if wanted is None:
        if before is None:
            return Done(file, "absent", None, "")
        del servers[name]
        return Done(file, "removed", _write(file, text, settings), _AGAIN[client])
    kept = {k: v for k, v in before.items() if k not in ("command", "args", "type")} if isinstance(before, dict) else {}
    if before == (new := {**wanted, **kept}):  # what a person added to it, such as env, stays
        return Done(file, "unchanged", None, "")
    servers[name] = new
    return Done(file, "added" if before is None else "changed", _write(file, text, settings), _AGAIN[client])


def _read(file: Path) -> tuple[str | None, dict[str, Any]]:
    """The text of a settings file and what is in it; None and nothing where there is none."""
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        return None, {}
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"cannot read {file}: {error}") from error
    try:
        found = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise UsageError(
            f"{file} is not plain JSON ({error}); it may have comments, which would be lost. Add the entry by hand: "
            "`headwater mcp install --client print` shows it"
        ) from error
    if not isinstance(found, dict):
        raise UsageError(f"{file} does not hold a JSON object; it stays as it is")
    return text, found


def _write(file: Path, before: str | None, settings: Mapping[str, Any]) -> Path | None:
    """Put the settings in place of the file, keeping its mode and indent; where it is as it was."""
    indent = re.search(r"\n([ \t]+)\"", before or "")
    text = json.dumps(settings, indent=indent[1] if indent else 2, ensure_ascii=False) + "\n"
    backup = None if before is None else file.with_name(file.name + BACKUP)
    beside = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o600
        if backup is not None:
            shutil.copy2(file, backup)
            mode = file.stat().st_mode & 0o777
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StorageError(f"cannot write {file}: {error.strerror}; it is as it was") from error
    return backup

"""The notebooks, run as they stand against a real daemon; the magics; the charts."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

import headwater
from brokers import free_port
from headwater import launch
from headwater.config import load
from headwater.errors import UsageError
from headwater.notebook import Cells
from headwater.records import plots

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A daemon with the default model, for all notebooks."""
    settings = load(None, {"data_dir": str(tmp_path_factory.mktemp("data")), "server.port": 0}).settings
    runtime = launch.find_or_start(settings, timeout_s=240)
    yield runtime.url
    os.kill(runtime.pid, signal.SIGTERM)


def _free_ports(number: int) -> set[int]:
    ports: set[int] = set()
    while len(ports) < number:
        ports.add(free_port())
    return ports


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_as_it_stands(path: Path, daemon: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADWATER_URL", daemon)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    # a port that the system hands out can be another process's by the time the kernel takes it
    names = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
    here = Config({"KernelManager": {"cache_ports": False, **dict(zip(names, _free_ports(len(names)), strict=True))}})
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(
        notebook, timeout=240, startup_timeout=240, kernel_name="python3", resources=resources, config=here
    ).execute()
    assert any(cell.get("outputs") for cell in notebook.cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs_and_names_no_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert not re.search(r"/home/|/root/|/work/", path.read_text())


class Shell:
    """What a notebook's shell offers to an extension."""

    def __init__(self, **names: Any) -> None:
        self.user_ns: dict[str, Any] = names
        self.magics: dict[tuple[str, str], Any] = {}

    def register_magic_function(self, function: Any, kind: str, name: str) -> None:
        self.magics[kind, name] = function

    def push(self, names: dict[str, Any]) -> None:
        self.user_ns.update(names)


@pytest.fixture
def hw() -> Iterator[headwater.Headwater]:
    with headwater.open(headwater.MEMORY, embedding={"model": "hash"}) as hw:
        hw.append("t", ["alpha beta", "gamma delta", "epsilon zeta"], wait="searchable", timeout_s=60)
        yield hw


def test_the_extension_registers_cells_that_search_with_the_options_of_the_command(hw: headwater.Headwater) -> None:
    shell = Shell(hw=hw)
    headwater.load_ipython_extension(shell)
    assert set(shell.magics) == {("line", "headwater"), ("cell", "search"), ("cell", "ask")}
    reply = shell.magics["cell", "search"]("--topics t --top-k 1 --mode=keyword", " gamma \n")
    assert [hit.value for hit in reply] == ["gamma delta"]
    with pytest.raises(UsageError, match="--topics"):
        shell.magics["cell", "search"]("--topic t", "gamma")
    with pytest.raises(UsageError, match="not a number"):
        shell.magics["cell", "search"]("--top-k many", "gamma")


def test_the_line_magic_says_what_is_spoken_to_and_changes_it(
    hw: headwater.Headwater, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(hw=hw)
    cells = Cells(shell)
    cells.headwater("")
    assert "3 records in 1 topics" in capsys.readouterr().out
    cells.headwater(f"open {tmp_path / 'data'}")
    assert "0 records" in capsys.readouterr().out
    shell.user_ns["hw"].close()
    with pytest.raises(UsageError, match="connect"):
        cells.headwater("dance")


def test_a_plane_shows_the_two_directions_in_which_vectors_differ_most() -> None:
    rng = np.random.default_rng(7)
    wide = rng.normal(size=(50, 2)) * [10, 3]
    vectors = np.hstack([wide, rng.normal(size=(50, 6)) * 0.01])
    plane = plots.project(vectors.tolist())
    assert plane.shape == (50, 2)
    assert np.allclose(abs(np.corrcoef(plane[:, 0], wide[:, 0])[0, 1]), 1, atol=0.05)
    assert plots.project(vectors.tolist()).tolist() == plane.tolist()
    with pytest.raises(UsageError, match="three"):
        plots.project([[1.0, 2.0]])


def test_charts_hold_the_counts_and_escape_what_patterns_hide(hw: headwater.Headwater) -> None:
    pytest.importorskip("altair")
    hw.append("t", ["\x1b[31mred \u202eevil"], wait="searchable", timeout_s=60)
    chart = hw.map("t").to_dict()
    patterns = [row["pattern"] for row in chart["data"]["values"]]
    assert len(patterns) == 4
    assert any("\\x1b[31mred \\u202eevil" in p for p in patterns)
    counts = hw.timeline("", topics=["t"]).plot().to_dict()["data"]["values"]
    assert sum(row["count"] for row in counts) == 4
    assert sum(row["count"] for row in hw.search("alpha").timeline().to_dict()["data"]["values"]) == len(hw.search("alpha"))


def test_an_answer_in_a_notebook_is_escaped_and_names_its_citations(hw: headwater.Headwater) -> None:
    hw.append("u", ["The <img src=x onerror=alert(1)> engine broke at noon."], wait="searchable", timeout_s=60)
    shown = hw.ask("when did the engine break?", topics=["u"])._repr_html_()
    assert "<img" not in shown
    assert "u/0/0" in shown

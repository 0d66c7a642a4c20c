"""Small questions over a view: a line of text, a choice, the keys that work here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Label, SelectionList, Static
from textual.widgets.selection_list import Selection


class Prompt(ModalScreen[str | None]):
    """Asks for a line of text; None when it is given up."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Cancel", id="prompt.cancel")]

    def __init__(self, question: str, value: str = "", *, example: str = "") -> None:
        super().__init__()
        self._question, self._value, self._example = question, value, example

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(self._question, markup=False)
            yield Input(self._value, placeholder=self._example)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.dismiss(event.value.strip())


class Choose(ModalScreen[list[str] | None]):
    """Asks for some of several names; None when it is given up. Enter takes those that are ticked, or the one under the
    cursor where none is."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Cancel", id="choose.cancel"),
        Binding("enter", "take", "Take", priority=True, id="choose.take"),
    ]

    def __init__(self, question: str, names: Sequence[str], chosen: Sequence[str] = ()) -> None:
        super().__init__()
        self._question, self._names, self._chosen = question, names, chosen

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(f"{self._question} (space ticks, Enter takes)", markup=False)
            chosen = set(self._chosen)
            yield SelectionList[str](*[Selection(Text(name), name, name in chosen) for name in self._names])

    def action_take(self) -> None:
        listed = self.query_one(SelectionList)
        taken = [str(name) for name in listed.selected]
        if not taken and listed.highlighted is not None:
            taken = [self._names[listed.highlighted]]
        self.dismiss(taken or None)


class Keys(ModalScreen[None]):
    """Every key that works in the view, what it does, and the name under which the settings give it another key."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark", "dismiss", "Close", id="help.close")]

    def __init__(self, title: str, keys: Sequence[tuple[str, str, str]]) -> None:
        super().__init__()
        self._title, self._keys = title, keys

    def compose(self) -> ComposeResult:
        text = Text()
        wide, long = (max((len(row[n]) for row in self._keys), default=0) for n in (0, 1))
        for key, does, name in self._keys:
            text.append(f"{key:>{wide}}  ", "bold").append(f"{does:<{long}}  ").append(f"{name}\n", "dim")
        with VerticalScroll(classes="dialog tall"):
            yield Label(self._title, markup=False)
            yield Static(text, id="keys")

"""Documents of every kind become text with their pages; broken and hostile ones are told of and harm nothing."""

from __future__ import annotations

import functools
import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headwater.errors import UsageError
from headwater.records import Draft
from headwater.sources import Batch, Fault
from headwater.sources.convert import Converter, format_of
from headwater.sources.files import read
from made_documents import docx, html, mixed, notebook, pdf, pptx, xlsx, zipped


@pytest.fixture(scope="module")
def converter() -> Iterator[Converter]:
    with Converter(seconds=240) as made:
        yield made


def load(path: Path, converter: Converter) -> tuple[list[Draft], list[Fault]]:
    with read(path, converter=converter) as reading:
        batches: list[Batch] = list(reading)
    return [d for b in batches for d in b.drafts], [f for b in batches for f in b.faults]


def text_of(converter: Converter, name: str, data: bytes) -> str:
    form = format_of(name, data[:65_536])
    assert form is not None
    return converter.convert(data, form).text


def page_of(draft: Draft, phrase: str) -> int:
    return 1 + draft.value.count("\f", 0, draft.value.index(phrase))


def test_every_phrase_of_mixed_documents_is_found_on_its_page(tmp_path: Path, converter: Converter) -> None:
    for made in mixed(int(os.environ.get("HEADWATER_TEST_DOCUMENTS", "24"))):
        path = tmp_path / made.name
        path.write_bytes(made.data)
        (draft,), faults = load(path, converter)
        assert not faults
        assert draft.key == made.name
        for phrase, page in made.phrases.items():
            assert phrase in draft.value, made.name
            if page is not None:
                assert page_of(draft, phrase) == page, made.name
                assert draft.attributes["pages"] == max(p for p in made.phrases.values() if p is not None)


def test_a_document_says_its_title_format_and_author(converter: Converter) -> None:
    found = converter.convert(docx(["Text."], title="The runbook"), "office")
    assert (found.format, found.pages) == ("docx", None)
    assert (found.attributes["title"], found.attributes["author"]) == ("The runbook", "Ada")
    assert converter.convert(pdf([["x"]], title="A report"), "pdf").attributes["title"] == "A report"


def test_word_keeps_headings_lists_and_tables_in_order(converter: Converter) -> None:
    assert text_of(converter, "a.docx", docx(["First."])) == "# Notes\n\nFirst.\n\n- an item\n\nleft cell | right cell"


def test_slides_have_titles_and_notes(converter: Converter) -> None:
    text = text_of(converter, "a.pptx", pptx([("One", "a\nb"), ("Two", "c")], notes="say this"))
    assert text == "# One\n\na\nb\n\nNotes: say this\n\f\n# Two\n\nc\n\nNotes: say this"


def test_rows_of_a_sheet_carry_their_headers(converter: Converter) -> None:
    sheets = {"Stock": [["Name", "Price"], ["Widget", 3.5], ["Gadget", None]], "N": [[1, 2], [3]]}
    text = text_of(converter, "a.xlsx", xlsx(sheets))
    assert text == "# Stock\n\nName | Price\nName: Widget; Price: 3.5\nName: Gadget\n\f\n# N\n\n1 | 2\n3"


def test_a_long_sheet_is_read_whole(converter: Converter) -> None:
    text = text_of(converter, "a.xlsx", xlsx({"S": [["Name", "Note"], *([f"n{i}", f"t{i}"] for i in range(4000))]}))
    assert text.endswith("Name: n3999; Note: t3999")


def test_a_page_is_its_main_text(converter: Converter) -> None:
    body = (
        "<main><h2>Head &amp; shoulders</h2><p>One <b>bold</b>\n word.<p>Next<ul><li>a<li>b</ul>"
        "<table><tr><th>k<th>v<tr><td>x<td>y</table><pre>if x:\n    y</pre></main>"
    )
    text = text_of(converter, "a.html", html(body))
    assert text == "## Head & shoulders\n\nOne bold word.\n\nNext\n\n- a\n- b\n\nk | v\nx | y\n\n```\nif x:\n    y\n```"
    latin = '<html><head><meta charset="iso-8859-1"></head><body><p>Grüße</p></body></html>'.encode("latin-1")
    assert text_of(converter, "b.htm", latin) == "Grüße"


def test_a_notebook_has_its_cells_and_short_outputs(converter: Converter) -> None:
    cells = [("markdown", "# Study"), ("code", "print('x')")]
    text = text_of(converter, "a.ipynb", notebook(cells, output="x\n"))
    assert text == "# Study\n\n```python\nprint('x')\n```\n\n```\nx\n```"
    assert "yyy" not in text_of(converter, "a.ipynb", notebook(cells, output="y" * 5000))


def test_a_format_is_told_by_bytes_before_names() -> None:
    assert format_of("report.txt", pdf([["x"]])[:8192]) == "pdf"
    assert format_of("a", docx(["x"])[:8192]) == "office"
    assert format_of("page.txt", b"  <!DOCTYPE html><html>") == "html"
    assert format_of("x.json", notebook([("code", "1")])) == "notebook"
    assert format_of("access.log", b"<html> was asked for\n") is None
    assert format_of("slack.zip", zipped({"users.json": b"[]"})[:8192]) is None
    assert format_of("a.json", b'{"value": "cells"}\n') is None


def test_telling_a_format_takes_no_time_whatever_the_bytes() -> None:
    assert format_of("a.txt", b"<!---->" * 9000 + b"<p>") is None  # were it slow, it would take for ever
    assert format_of("a.txt", b"<!-- a --> " * 9 + b"<html>") == "html"


def test_a_pdf_encrypted_without_a_password_is_read(converter: Converter) -> None:
    assert text_of(converter, "a.pdf", pdf([["for all to read"]], password="")) == "for all to read"


def test_source_code_stays_as_it_is(tmp_path: Path, converter: Converter) -> None:
    path = tmp_path / "tool.rs"
    path.write_text("# not a heading\n---\nfn main() {}\n")
    (draft,), _ = load(path, converter)
    assert draft.value == path.read_text()
    assert draft.attributes == {"title": "tool.rs", "format": "code", "language": "rust"}


# ---------------------------------------------------------------------- broken and hostile

WORD = "word/document.xml"
TYPES = {"[Content_Types].xml": b"<Types/>"}
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def word(body: str, before: str = "") -> bytes:
    return zipped({**TYPES, WORD: f"{before}<w:document {W}><w:body>{body}</w:body></w:document>".encode()})


def laughs() -> bytes:
    entities = '<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    return word("<w:p><w:r><w:t>&a9;</w:t></w:r></w:p>", f"<!DOCTYPE x [{entities}]>")


def lying_sheet() -> bytes:
    rows = b"".join(b'<row r="%d"><c r="XFD%d"><v>1</v></c></row>' % (n, n) for n in range(1, 20_000))
    sheet = b'<worksheet xmlns="%s"><sheetData>%s</sheetData></worksheet>'
    names = b"http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    out = io.BytesIO(xlsx({"S": [["a"]]}))
    with zipfile.ZipFile(out) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    return zipped({**parts, "xl/worksheets/sheet1.xml": sheet % (names, rows)})


@functools.cache
def hostile() -> dict[str, tuple[str, bytes, str]]:
    """Name of the case -> file name, bytes, what the reason must say."""
    whole = pdf([["some text"]] * 3)
    office = docx(["some text"])
    return {
        "empty": ("a.pdf", b"", "empty"),
        "zeros": ("a.docx", bytes(5000), "empty"),
        "a PDF cut off": ("a.pdf", whole[:500], "damaged PDF"),
        "a PDF of noise": ("a.pdf", b"%PDF-1.7\n" + bytes(range(256)) * 40, "damaged PDF"),
        "a locked PDF": ("a.pdf", pdf([["x"]], password="secret"), "password"),
        "a PDF of pictures": ("a.pdf", pdf([[], []]), "only images"),
        "text named PDF": ("a.pdf", b"just words\n" * 20, "none at all"),
        "a zip cut off": ("a.docx", office[: len(office) // 2], "damaged"),
        "a zip named docx": ("a.docx", zipped({"notes.txt": b"x"}), "zip archive without"),
        "no main part": ("a.pptx", zipped({**TYPES, "ppt/slides/slide1.xml": b"<x/>"}), "zip archive without"),
        "XML cut off": ("a.docx", zipped({**TYPES, WORD: f"<w:document {W}><w:body>".encode()}), "no XML"),
        "a billion laughs": ("a.docx", laughs(), "entities"),
        "XML a million deep": ("a.docx", word("<w:p>" * 300_000), "nested deeper"),
        "a zip bomb": ("a.docx", zipped({**TYPES, WORD: bytes(200 << 20)}), "bomb"),
        "a thousand bombs": ("a.xlsx", zipped({**TYPES, **{f"xl/{n}": bytes(1 << 20) for n in range(60)}}), "bomb"),
        "too many parts": ("a.docx", zipped({**TYPES, **{f"word/{n}": b"" for n in range(20_001)}}), "parts"),
        "a locked docx": ("a.docx", OLE + "EncryptedPackage".encode("utf-16-le") * 9, "password"),
        "an old doc": ("a.doc", OLE + b"x" * 4000, "before 2007"),
        "a sheet that lies": ("a.xlsx", lying_sheet(), "cells"),
        "a damaged workbook": ("a.xlsx", zipped({**TYPES, "xl/workbook.xml": b"<workbook"}), "damaged workbook"),
        "an empty workbook": ("a.xlsx", xlsx({"S": []}), "no cells"),
        "a broken notebook": ("a.ipynb", b'{"cells": [{"cell_type": "code", ', "no JSON"),
        "a deep notebook": ("a.ipynb", b'{"cells": ' + b"[" * 100_000, "no JSON"),
        "a page of scripts": ("a.html", b"<html><script>x</script></html>", "no text"),
    }


@pytest.mark.parametrize("case", list(hostile()))
def test_a_hostile_document_is_a_fault_with_its_reason(case: str, tmp_path: Path, converter: Converter) -> None:
    name, data, reason = hostile()[case]
    path = tmp_path / name
    path.write_bytes(data)
    drafts, faults = load(path, converter)
    assert not drafts
    assert len(faults) == 1
    assert reason in faults[0].reason
    assert text_of(converter, "fine.html", html("<p>still here</p>")) == "still here"


def test_a_page_nested_without_end_is_read(converter: Converter) -> None:
    assert text_of(converter, "a.html", b"<html><body>" + b"<div>" * 10_000 + b"deep down") == "deep down"


def test_what_takes_too_long_or_too_much_is_ended_and_the_next_is_fine() -> None:
    body = b"<p>" + b"<b>x" * 2_000_000
    with Converter(seconds=0.05) as slow, pytest.raises(UsageError, match=r"longer than 0.05 s"):
        slow.convert(b"<html>" + body, "html")
    with Converter(seconds=240, memory_bytes=160 << 20) as small:
        with pytest.raises(UsageError, match=r"memory|was ended"):
            small.convert(json.dumps({"cells": [{"cell_type": "markdown", "source": ["x"] * 9_000_000}]}).encode(), "notebook")
        assert small.convert(html("<p>next</p>"), "html").text == "next"


def test_a_child_that_dies_is_replaced(converter: Converter) -> None:
    converter.convert(html("<p>a</p>"), "html")
    child = converter._child
    assert child is not None
    child.kill()
    assert converter.convert(html("<p>b</p>"), "html").text == "b"


def test_a_page_within_a_form_and_remarks_within_the_text_are_read(converter: Converter) -> None:
    said = "<p>The amber door is locked at ten in the evening by the guard.</p>"
    page = f"<!doctype html><html><body><form><label>Name</label><h1>Doors</h1>{said}<button>Go</button></form></body></html>"
    found = text_of(converter, "a.html", page.encode())
    assert "amber door" in found
    assert "Name" not in found
    assert "Go" not in found
    page = (
        f"<!doctype html><html><body><main>{said * 3}<aside>Never prop it.</aside></main><aside>Buy now</aside></body></html>"
    )
    found = text_of(converter, "a.html", page.encode())
    assert "Never prop it." in found
    assert "Buy now" not in found
    page = f"<!doctype html><html><body>{said * 9}<form><p>Subscribe to us</p></form></body></html>"
    assert "Subscribe" not in text_of(converter, "a.html", page.encode())


def test_what_stands_beside_the_text_of_office_documents_is_read(converter: Converter) -> None:
    import docx as word
    import openpyxl
    from openpyxl.comments import Comment
    from pptx import Presentation
    from pptx.chart import data as charts
    from pptx.enum.chart import XL_CHART_TYPE
    from pptx.util import Inches

    def saved(document: Any) -> bytes:
        out = io.BytesIO()
        document.save(out)
        return out.getvalue()

    letter: Any = word.Document()
    letter.sections[0].header.paragraphs[0].text = "Project Falcon"
    letter.sections[0].footer.paragraphs[0].text = "7"
    letter.add_paragraph("The rope is cut.")
    found = text_of(converter, "a.docx", saved(letter))
    assert found.split("\n\n") == ["The rope is cut.", "Project Falcon"]
    show: Any = Presentation()
    made: Any = charts
    data = made.CategoryChartData()
    data.categories = ["Northern region"]
    data.add_series("Sold ropes", (1,))
    slide = show.slides.add_slide(show.slide_layouts[5])
    slide.shapes.add_chart(XL_CHART_TYPE.PIE, Inches(1), Inches(1), Inches(3), Inches(3), data)
    assert "Sold ropes, Northern region" in text_of(converter, "a.pptx", saved(show))
    book: Any = openpyxl.Workbook()
    book.active.append(["Rope", "cut"])
    book.active["A1"].comment = Comment("who did it?", "ann")
    book.create_sheet("Other").append(["no", "rope"])
    first, second = text_of(converter, "a.xlsx", saved(book)).split("\f")
    assert "Comment: who did it?" in first
    assert "Comment" not in second


def test_a_notebook_of_odd_cells_is_read(converter: Converter) -> None:
    cells = [{"cell_type": "heading", "level": "x", "source": "Ropes"}, {"cell_type": "raw", "source": None}, 5]
    assert text_of(converter, "a.ipynb", json.dumps({"cells": cells, "nbformat": 4}).encode()) == "# Ropes"

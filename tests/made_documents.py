"""Documents for tests, made by the writers people use; each has a phrase of its own on every page."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Made:
    """A document: its file's name, its bytes, and where each phrase stands (None where the format has no pages)."""

    name: str
    data: bytes
    phrases: Mapping[str, int | None]


def phrase(kind: str, n: int, page: int) -> str:
    """A phrase that nothing else has."""
    return f"{kind}quartz{n}x{page} amber{kind}{n * 31 + page}"


def pdf(pages: Sequence[Sequence[str]], *, password: str | None = None, title: str | None = None) -> bytes:
    from reportlab.lib.pdfencrypt import StandardEncryption
    from reportlab.pdfgen import canvas

    out = io.BytesIO()
    made = canvas.Canvas(out, encrypt=StandardEncryption(password, strength=128) if password is not None else None)
    if title:
        made.setTitle(title)
    for lines in pages:
        for n, line in enumerate(lines):
            made.drawString(72, 740 - 14 * n, line)
        made.showPage()
    made.save()
    return out.getvalue()


def docx(paragraphs: Sequence[str], *, title: str = "", heading: str = "Notes") -> bytes:
    import docx as writer

    made = writer.Document()
    made.core_properties.title, made.core_properties.author = title, "Ada"
    made.add_heading(heading, 1)
    for text in paragraphs:
        made.add_paragraph(text)
    made.add_paragraph("an item", style="List Bullet")
    table = made.add_table(1, 2)
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "left cell", "right cell"
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def pptx(slides: Sequence[tuple[str, str]], *, notes: str = "") -> bytes:
    import pptx as writer

    made = writer.Presentation()
    for title, body in slides:
        slide = made.slides.add_slide(made.slide_layouts[1])
        slide.shapes.title.text, slide.placeholders[1].text = title, body
        if notes:
            slide.notes_slide.notes_text_frame.text = notes
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def xlsx(sheets: Mapping[str, Sequence[Sequence[object]]]) -> bytes:
    import openpyxl

    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in sheets.items():
        sheet = made.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def notebook(cells: Sequence[tuple[str, str]], *, output: str = "") -> bytes:
    import nbformat
    from nbformat import v4

    made = v4.new_notebook(metadata={"language_info": {"name": "python"}})
    for kind, source in cells:
        if kind == "code":
            outputs = [v4.new_output("stream", text=output)] if output else []
            made.cells.append(v4.new_code_cell(source, outputs=outputs))
        else:
            made.cells.append(v4.new_markdown_cell(source))
    return nbformat.writes(made).encode()


def html(body: str, *, title: str = "A page") -> bytes:
    menu = "<nav><a href=/>Home of navigation</a></nav><script>var scripted = 1</script>"
    foot = "<footer>the small print</footer>"
    return f"<!doctype html><html lang=en><head><title>{title}</title></head><body>{menu}{body}{foot}</body></html>".encode()


def _pdf(n: int) -> Made:
    found = {phrase("pdf", n, page): page for page in range(1, 2 + n % 7)}
    filler = [f"Filler line {i} of a page about nothing in particular, long enough to be read." for i in range(25)]
    return Made(f"r{n}.pdf", pdf([[*filler[: n % 25], text, *filler[n % 25 :]] for text in found]), found)


def _docx(n: int) -> Made:
    texts = [phrase("docx", n, i) for i in range(3)]
    return Made(f"r{n}.docx", docx([f"About {t} and more." for t in texts]), dict.fromkeys(texts))


def _pptx(n: int) -> Made:
    found = {phrase("pptx", n, page): page for page in range(1, 3 + n % 5)}
    return Made(f"r{n}.pptx", pptx([(f"Slide on {p}", text) for text, p in found.items()]), found)


def _xlsx(n: int) -> Made:
    found = {phrase("xlsx", n, page): page for page in range(1, 3)}
    return Made(f"r{n}.xlsx", xlsx({f"Sheet{p}": [["Name", "Note"], [f"row{n}", t]] for t, p in found.items()}), found)


def _html(n: int) -> Made:
    text = phrase("html", n, 0)
    return Made(f"r{n}.html", html(f"<main><h1>Topic {n}</h1><p>It says <b>{text}</b>.</p></main>"), {text: None})


def _notebook(n: int) -> Made:
    text = phrase("ipynb", n, 0)
    return Made(f"r{n}.ipynb", notebook([("markdown", f"# Study {n}\n{text}"), ("code", "print(1)")]), {text: None})


def _markdown(n: int) -> Made:
    text = phrase("md", n, 0)
    return Made(f"r{n}.md", f"---\nauthor: Ada\n---\n# Note {n}\n\nIt is {text}.\n".encode(), {text: None})


def _code(n: int) -> Made:
    text = phrase("py", n, 0)
    return Made(f"r{n}.py", f"# {text}\n\ndef f{n}():\n    return {n}\n".encode(), {text: None})


KINDS: Sequence[Callable[[int], Made]] = (_pdf, _docx, _pptx, _xlsx, _html, _notebook, _markdown, _code)


def mixed(count: int) -> list[Made]:
    """`count` documents of all kinds in turn."""
    return [KINDS[n % len(KINDS)](n) for n in range(count)]


def zipped(parts: Mapping[str, bytes], *, store: bool = False) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED if store else zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return out.getvalue()

"""The converting child: `python -m headwater.sources.conversion` turns documents into text until its input ends.

A request is `>IQ` (length of the header, of the document), a JSON header `{format, seconds, memory}` and the document's
bytes; a reply `>I` (length) and JSON: `{text, pages, attributes, format}` or `{fault, ends?}`. The child opens no file, gets a
limit of memory before it reads the first document, and is ended by an alarm where a document takes too long. One that
ran out of memory or met an error of its own says so and ends: the next document gets a fresh one.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
from typing import IO, Any

from headwater.sources.formats import Text, Unreadable

REQUEST, REPLY = struct.Struct(">IQ"), struct.Struct(">I")


def convert(data: bytes, format: str) -> tuple[Text, str]:
    """The text of a document and its true format. Raises Unreadable."""
    if format == "pdf":
        from headwater.sources.formats import pdf

        return pdf.read(data), format
    if format == "html":
        from headwater.sources.formats import html

        return html.read(data), format
    if format == "notebook":
        from headwater.sources.formats import notebook

        return notebook.read(data), format
    if format == "ole":
        raise Unreadable(_ole(data))
    return _office(data)


def _office(data: bytes) -> tuple[Text, str]:
    from headwater.sources.formats import sheets, slides, word
    from headwater.sources.formats.package import Package

    package = Package(data)
    if "word/document.xml" in package.names:
        return word.read(package), "docx"
    if "ppt/presentation.xml" in package.names:
        return slides.read(package), "pptx"
    if "xl/workbook.xml" in package.names:
        return sheets.read(data, package), "xlsx"
    raise Unreadable("a zip archive without a Word, PowerPoint or Excel document in it; unpack it, and name the files")


def _ole(data: bytes) -> str:
    if "EncryptedPackage".encode("utf-16-le") in data:
        return "an encrypted Office document that needs a password; save it without one"
    return "a binary Office file of before 2007 (.doc, .xls, .ppt); save it as .docx, .xlsx or .pptx"


def main() -> int:
    """Serve requests on standard input until it ends."""
    replies = os.fdopen(os.dup(1), "wb")  # what a library prints must not end up among the replies
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    limited = False
    while head := sys.stdin.buffer.read(REQUEST.size):
        header_bytes, size = REQUEST.unpack(head)
        header = json.loads(sys.stdin.buffer.read(header_bytes))
        data = sys.stdin.buffer.read(size)
        if not limited:
            limited = True
            _limit(int(header["memory"]))
        signal.alarm(int(header["seconds"]) + 5)  # the parent is quicker, where it lives
        reply, healthy = _reply(data, header["format"])
        signal.alarm(0)
        _send(replies, reply)
        if not healthy:
            return 1
    return 0


def _reply(data: bytes, format: str) -> tuple[dict[str, Any], bool]:
    """What to answer, and whether another document may follow."""
    try:
        text, true_format = convert(data, format)
    except Unreadable as error:
        return {"fault": str(error)}, True
    except MemoryError:
        return {"fault": "takes more memory than a document may; split it", "ends": True}, False
    except Exception as error:  # the top of the child's loop: no document takes others with it
        said = f"cannot be read ({type(error).__name__}: {str(error)[:200]}); save it anew"
        return {"fault": said, "ends": True}, False
    return {"text": text.text, "pages": text.pages, "attributes": dict(text.attributes), "format": true_format}, True


def _send(replies: IO[bytes], reply: dict[str, Any]) -> None:
    body = json.dumps(reply).encode("ascii")
    replies.write(REPLY.pack(len(body)) + body)
    replies.flush()


def _limit(memory_bytes: int) -> None:
    """Bound this process: memory on top of what it has, no files written, no core dumped."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "darwin":  # where it is not enforced and may be refused
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


if __name__ == "__main__":
    sys.exit(main())

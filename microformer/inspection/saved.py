"""A view as one HTML file that opens without a server or a network: the page's own code, and the answers it shows.

The parts are those of the built page (static/). Nothing in the data can end the element that holds it.
"""

import base64
import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microformer.errors import FileError
from microformer.files import read_text
from microformer.inspection import frames

STATIC = Path(__file__).parent / "static"
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)


def page(title: str, selection: str, answers: Mapping[str, bytes], listing: Mapping[str, Any]) -> str:
    """The file.

    Args:
        title: of the document.
        selection: what is looked at, as in the address after #.
        answers: the frame of each question, by the page's own key for it.
        listing: the runs, as /api/runs says them.

    Raises:
        FileError: the page was not built.
    """
    packed = {key: base64.b64encode(frame).decode("ascii") for key, frame in answers.items()}
    data = frames.to_json({"selection": selection, "runs": listing, "frames": packed})
    inside = [
        f'<script type="application/json" id="saved">{_in_json(data)}</script>',
        f'<script type="module">{_in_script(part("app.js"))}</script>',
    ]
    text = part("index.html")
    # The built page loads its two files; here they stand in their place. Scripts at the end, where the page is there.
    text = re.sub(r"<script\b[^>]*\bsrc=[^>]*>\s*</script>", "", text)
    text = re.sub(r"<link\b[^>]*\brel=[\"']?stylesheet[^>]*>", "", text)
    text = re.sub(r"<title>.*?</title>", lambda _: f"<title>{html.escape(title)}</title>", text, flags=re.S)
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    text = re.sub(r"<head\b[^>]*>", lambda found: f"{found[0]}{policy}", text, count=1)
    text = text.replace("</head>", f"<style>{_in_style(part('app.css'))}</style></head>", 1)
    before, end, after = text.rpartition("</body>")
    return f"{before}{''.join(inside)}{end}{after}"


def part(name: str) -> str:
    """A file of the built page.

    Raises:
        FileError: it was not built.
    """
    if not (STATIC / name).is_file():
        raise FileError(f"the page was not built: there is no {STATIC / name}.", "npm --prefix web run build")
    return read_text(STATIC / name)


def _in_json(text: str) -> str:
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _in_script(code: str) -> str:
    # In strings and patterns a backslash before these changes nothing, and outside of them they don't occur.
    return re.sub(r"<(/script|!--)", r"<\\\1", code, flags=re.I).replace("<script", "\\x3cscript")


def _in_style(code: str) -> str:
    return re.sub(r"</(style)", r"<\\/\1", code, flags=re.I)

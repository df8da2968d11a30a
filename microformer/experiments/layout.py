"""Tables of words, for a page: as Markdown and as HTML. Knows nothing of what they say."""

import html
from collections.abc import Collection, Mapping, Sequence
from typing import Any

Words = Mapping[str, str]


def texts(rows: Sequence[Mapping[str, Any]], formats: Mapping[str, str]) -> list[dict[str, str]]:
    """Values as words.

    Args:
        rows: by the names of their columns.
        formats: how a column's numbers are written; another's stand as they are, and what is not known is a dash.
    """
    return [
        {name: "–" if value is None else format(value, formats.get(name, "")) for name, value in row.items()}
        for row in rows
    ]


def markdown(rows: Sequence[Words], right: Collection[str] = ()) -> str:
    """A table for a page in Markdown; "" without rows.

    Args:
        rows: all with the same columns.
        right: the columns that stand to the right.
    """
    if not rows:
        return ""
    lines = [list(rows[0]), ["---:" if name in right else "---" for name in rows[0]]]
    lines += [list(row.values()) for row in rows]
    return "".join("| " + " | ".join(word.replace("|", "\\|") for word in line) + " |\n" for line in lines)


def markup(rows: Sequence[Words], right: Collection[str] = ()) -> str:
    """The same in HTML, for a notebook."""
    if not rows:
        return ""

    def line(kind: str, words: Words) -> str:
        cells = (
            f'<{kind} style="text-align:{"right" if name in right else "left"}">{html.escape(word)}</{kind}>'
            for name, word in words.items()
        )
        return f"<tr>{''.join(cells)}</tr>"

    head = line("th", {name: name for name in rows[0]})
    return f"<table><thead>{head}</thead><tbody>{''.join(line('td', row) for row in rows)}</tbody></table>"

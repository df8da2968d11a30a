"""`tokenize`: a text's tokens and their ids."""

import argparse
import json
import sys
from pathlib import Path

from microformer.cli.showing import console
from microformer.cli.words import add_unknown
from microformer.errors import SettingsError


def add(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("text", nargs="*", metavar="TEXT", help="what to cut into tokens [standard input]")
    verb.add_argument(
        "--tokenizer", metavar="PATH", help="a folder or file with one [data/vocab.json, else the latest run's]"
    )
    verb.add_argument("--run", metavar="RUN", help="the tokenizer of this run")
    add_unknown(verb)
    verb.add_argument("--json", action="store_true", help="as JSON")


def act(args: argparse.Namespace) -> int:
    from microformer import runs, tokenization

    if args.tokenizer and args.run:
        raise SettingsError("--tokenizer and --run both name the tokenizer.", "give one of them.")
    if args.tokenizer:
        if args.tokenizer in tokenization.KINDS:
            raise SettingsError(
                f"--tokenizer {args.tokenizer} is a kind, and a tokenizer of one is wanted.",
                f"make it first: microformer prepare --tokenizer {args.tokenizer}.",
            )
        tokenizer = tokenization.load_published(Path(args.tokenizer))
    elif args.run is None and (prepared := Path("data", "vocab.json")).is_file():
        tokenizer = tokenization.load(prepared)
    else:
        tokenizer = runs.find(args.run).tokenizer
    text = " ".join(args.text) if args.text else sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    ids = tokenizer.encode(text, args.unknown).tolist()
    pieces = [tokenizer.decode([token]) for token in ids]
    if args.json:
        rows = [{"id": token, "text": piece} for token, piece in zip(ids, pieces, strict=True)]
        print(json.dumps({"kind": tokenizer.kind, "vocab_size": tokenizer.vocab_size, "tokens": rows}))
        return 0
    _show_pieces(ids, pieces)
    size = len(text.encode("utf-8", "ignore"))
    each = f": {size / len(ids):.2f} bytes a token" if ids else ""
    print(f"\n{tokenizer.kind}, {tokenizer.vocab_size:,} tokens · {len(ids):,} for {len(text):,} characters{each}")
    return 0


def _show_pieces(ids: list[int], pieces: list[str]) -> None:
    """Prints each token's text, spaces and ends of lines as marks, over its id: on a terminal in colours that take
    turns."""
    from rich.text import Text

    screen, drawn = console(100)
    marks = str.maketrans({" ": "·", "\n": "↵", "\t": "→", "\r": "←"})
    above, below = Text(), Text()
    for at, (token, piece) in enumerate(zip(ids, pieces, strict=True)):
        shown = Text(piece.translate(marks) or "∅")
        width = max(shown.cell_len, len(str(token))) + 1
        if above.cell_len + width > screen.width and above:
            screen.print(above, below, sep="\n", soft_wrap=True)
            above, below = Text(), Text()
        shown.stylize(("black on cyan", "black on green", "black on yellow", "black on magenta")[at % 4])
        above.append_text(shown).append(" " * (width - shown.cell_len))
        below.append(f"{token:<{width}}", style="dim")
    screen.print(above, below, sep="\n", soft_wrap=True)
    print(drawn.getvalue(), end="")

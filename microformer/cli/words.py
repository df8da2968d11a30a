"""What several verbs take: numbers, choices, settings as flags. Knows argparse, and no verb."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from microformer.errors import SettingsError, nearest
from microformer.settings import GROUPS, convert


def number(flag: str, kind: type[int] | type[float]) -> Callable[[str], float | int]:
    """What turns a flag's word into a number."""

    def convert(word: str) -> float | int:
        try:
            return kind(word)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise SettingsError(f"{flag} {word!r} is not {what}.", "give one, such as 1.") from None

    return convert


def one_of(flag: str, *words: str) -> Callable[[str], str]:
    """What takes one of some words for a flag."""

    def convert(word: str) -> str:
        if word in words:
            return word
        meant = nearest(word, words)
        hint = f"did you mean {meant}? " if meant else ""
        raise SettingsError(f"{flag} {word!r} is not known.", f"{hint}There are: {', '.join(words)}.")

    return convert


def may_begin_with_dash(verb: argparse.ArgumentParser, *flags: str) -> None:
    """Says that what follows these flags is their value, be it -val_loss."""
    verb.set_defaults(dashed=flags)


def add_settings(verb: argparse.ArgumentParser, groups: Sequence[str], besides: Sequence[str] = ()) -> None:
    """A flag for each setting of some groups."""
    for group in groups:
        kind = GROUPS[group]
        shown = verb.add_argument_group(f"{group} settings", "as in config.py; these win over it")
        for field in fields(kind):
            if field.name in besides:
                continue
            flag = "--" + field.name.replace("_", "-")
            about = f"{field.metadata['about']} [{field.default}]".replace("%", "%%")
            if isinstance(field.default, bool):
                off = "--no" + flag[1:]
                shown.add_argument(flag, nargs="?", const="true", metavar="true|false", help=f"{about}; or {off}")
                shown.add_argument(off, dest=field.name, action="store_const", const="false", help=argparse.SUPPRESS)
            else:
                shown.add_argument(flag, metavar=_METAVARS.get(field.name, "X"), help=about)


_METAVARS = {
    "epochs": "X",
    "max_steps": "N",
    "max_minutes": "X",
    "seed": "N",
    "eval_every": "N",
    "checkpoint_every": "N",
}


def given(args: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of settings, converted."""
    names = [field.name for kind in GROUPS.values() for field in fields(kind)]
    said = {name: getattr(args, name, None) for name in names}
    return {
        name: convert(name, value) if isinstance(value, str) else value
        for name, value in said.items()
        if value is not None
    }


def add_trust(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--trust-code",
        action="store_true",
        help="run a run's own components, though nothing was trained with them here",
    )


def add_unknown(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--unknown", type=one_of("--unknown", "error", "skip", "replace"), default="error", metavar="WHAT",
        help="what becomes of characters not in the vocabulary: error, skip or replace (é: e) [error]",
    )  # fmt: skip

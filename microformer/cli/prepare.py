"""`prepare`: text → token tensors in data/."""

import argparse

from microformer.cli.showing import BytesShown
from microformer.cli.words import add_settings, given
from microformer.errors import SettingsError


def add(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--input", nargs="+", metavar="PATH",
        help="files, folders, patterns, addresses, hf:owner/name:split:column, or - for standard input",
    )  # fmt: skip
    verb.add_argument("--config", metavar="FILE", help="a config file or the name of a ready one [config.py]")
    add_settings(verb, ["data"])
    verb.add_argument(
        "--vocab-size", metavar="N", help="size of a vocabulary that is learned (bpe, wordpiece, unigram)"
    )


def act(args: argparse.Namespace) -> int:
    from microformer import settings

    chosen = settings.resolve(args.config, given(args))
    if args.input and "corpus" in given(args):
        raise SettingsError("--input and --corpus both name the text.", "give one of them.")
    from microformer import pipeline

    with BytesShown() as progress:
        prepared = pipeline.prepare(chosen, args.input or (), progress)
    print(prepared.summary())
    return 0

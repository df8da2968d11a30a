"""The `microformer` command: a thin table of verbs, one file each. Reads the command line and prints; every verb's work
is elsewhere.

words    flags that several verbs have
showing  tables and progress

Torch is imported inside the verbs that need it, so that `--help`, `runs` and a mistyped flag answer at once.
"""

import argparse
import errno
import io
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

from microformer import devices
from microformer.cli import (
    check,
    compare,
    corpora,
    doctor,
    eval,
    export,
    generate,
    import_,
    inspect,
    new,
    prepare,
    report,
    runs,
    scaling,
    sweep,
    tokenize,
    tokenizers,
    train,
)  # fmt: skip
from microformer.cli.showing import drop_output
from microformer.errors import INTERRUPTED, MicroformerError, SettingsError, nearest


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and gives its exit code: 0, 1 after a check that found something, 2 for what the user can
    mend, 130 after Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    devices.share_cores()
    _speak_utf8()
    try:
        try:
            return _run([word for word in argv if word != "--debug"])
        finally:
            sys.stdout.flush()  # here, where a closed pipe is understood, and not when Python ends
    except MicroformerError as error:
        if debug:
            raise
        print(f"error: {error.sentence}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as missing:
        if debug or missing.name is None or missing.name.partition(".")[0] == "microformer":
            raise
        print(f"error: the package {missing.name!r} is missing.\nhint: pip install -e .", file=sys.stderr)
        return 2
    except BrokenPipeError:
        drop_output()  # whoever read has seen enough
        return 0
    except OSError as error:
        # Files say their names, and ours are explained where they are written: what is left is standard output.
        if debug or error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        drop_output()
        print(f"error: can't write the output: {error.strerror}.\nhint: send it elsewhere.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED


def _speak_utf8() -> None:
    """Files and pipes are UTF-8 on every system; what a terminal can't show is shown as a question mark."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")


def _run(argv: list[str]) -> int:
    parser = _parser()
    if argv and not argv[0].startswith("-") and argv[0] not in _VERBS:
        meant = nearest(argv[0], _VERBS)
        hint = f"did you mean {meant}? " if meant else ""
        raise SettingsError(f'there is no verb "{argv[0]}".', f"{hint}`microformer --help` lists them all.")
    if not argv:
        parser.print_help()
        return 0
    parser.set_defaults(parser=parser)
    known, unknown = parser.parse_known_args(argv)
    if unknown:
        raise _unknown(unknown[0], known.parser)
    return known.action(known)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="microformer",
        description="A transformer language model to read in an afternoon, train in minutes and take apart.",
        epilog="`microformer VERB --help` says more. --debug shows an error's traceback.",
        formatter_class=_Aligned,
    )
    parser.add_argument("--version", action="version", version=_version())
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", parser_class=_Parser)
    for name, (about, module) in _VERBS.items():
        verb = verbs.add_parser(name, help=about, description=about, allow_abbrev=False)
        module.add(verb)
        verb.set_defaults(action=module.act, parser=verb)
    return parser


class _Aligned(argparse.HelpFormatter):
    """Leaves room for the indentation of verbs, which argparse forgets: the longest would have its words below it."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if action.nargs == argparse.PARSER:
            self._action_max_length += 2


class _Parser(argparse.ArgumentParser):
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        # To argparse -val_loss would be a flag; joined to the one before it, it is that one's value.
        words = list(sys.argv[1:] if args is None else args)
        for flag in self.get_default("dashed") or ():
            for at in [place for place, word in enumerate(words[:-1]) if word == flag][::-1]:
                words[at : at + 2] = [f"{flag}={words[at + 1]}"]
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message.removeprefix('argument ')}.", f"`{self.prog} --help` says what is taken.")


def _unknown(word: str, parser: argparse.ArgumentParser) -> SettingsError:
    if not word.startswith("-"):
        return SettingsError(f"{word!r} is one word too many.", f"`{parser.prog} --help` says what is taken.")
    name = word.split("=")[0]
    known = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    meant = nearest(name, known)
    listed = f"`{parser.prog} --help` lists them all."
    what = "setting" if parser.prog.endswith("train") else "option"
    return SettingsError(
        f'there is no {what} "{name.lstrip("-")}".', f"did you mean {meant}? {listed}" if meant else listed
    )


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"microformer {version('microformer')}"
    except PackageNotFoundError:
        return "microformer, not installed"


class _Verb(Protocol):
    """A module of this folder: one verb."""

    def add(self, verb: argparse.ArgumentParser) -> None:
        """Gives the verb its flags."""
        ...

    def act(self, args: argparse.Namespace) -> int:
        """Does it, and gives the exit code."""
        ...


_VERBS: dict[str, tuple[str, _Verb]] = {
    "prepare": ("text → token tensors in data/", prepare),
    "train": ("train a model (prepares first if needed)", train),
    "generate": ("write text with a trained model", generate),
    "eval": ("the exact loss of a run over a split or a text", eval),
    "import": ("another program's model as a run here", import_),
    "export": ("a run's model for another program", export),
    "inspect": ("look inside a run's model, on a page in the browser", inspect),
    "runs": ("the runs here: list, filter, sort; tag, delete, tell apart", runs),
    "report": ("runs, or a comparison, as one HTML page", report),
    "compare": ("does it help? arms × seeds, intervals, a verdict", compare),
    "sweep": ("a search for better settings", sweep),
    "scaling": ("how the loss falls with size and time on this machine", scaling),
    "corpora": ("the corpora that have a name", corpora),
    "tokenize": ("a text's tokens and their ids", tokenize),
    "tokenizers": ("kinds and sizes of tokenizers on one text", tokenizers),
    "new": ("a start for a component of your own", new),
    "check": ("whether a component of your own does what its slot asks", check),
    "doctor": ("whether all is well here, and what to do", doctor),
}

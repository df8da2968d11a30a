"""`runs`: the runs here: listed, filtered, sorted; tagged, deleted, told apart."""

import argparse
import json
import sys
from typing import TYPE_CHECKING

from microformer.cli.showing import asked, table
from microformer.cli.words import may_begin_with_dash, number
from microformer.errors import RunError, SettingsError, nearest

if TYPE_CHECKING:
    from microformer.runs import Run


def add(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("pattern", nargs="?", metavar="PATTERN", help='of names: "base-*" [all]')
    verb.add_argument(
        "--where", metavar="WHAT",
        help='only these: "val_loss<1.6 attention=softmax tag=best"; figures and settings, with = != < <= > >=',
    )  # fmt: skip
    verb.add_argument(
        "--sort", metavar="NAME", help="by a figure or a setting; -NAME: the largest first [last written]"
    )
    verb.add_argument("--columns", metavar="A,B", help="figures and settings to show, such as val_loss,learning_rate")
    verb.add_argument("--last", type=number("--last", int), metavar="N", help="only the N last written to")
    verb.add_argument("--json", action="store_true", help="as JSON")
    does = verb.add_argument_group("or, to one or some of them")
    does.add_argument("--tag", nargs=2, metavar=("RUN", "WORD"), help="give it a tag, such as keep")
    does.add_argument("--untag", nargs=2, metavar=("RUN", "WORD"), help="take that tag away")
    does.add_argument("--delete", nargs="+", metavar="RUN", help="delete them, by name or pattern; asks first")
    does.add_argument("--yes", action="store_true", help="with --delete: don't ask")
    does.add_argument("--diff", nargs=2, metavar=("RUN", "OTHER"), help="what tells two apart")
    may_begin_with_dash(verb, "--sort")


def act(args: argparse.Namespace) -> int:
    _check(args)
    if args.tag or args.untag:
        return _tag(args.tag or args.untag, away=bool(args.untag))
    if args.delete:
        return _delete(args.delete, args.yes)
    if args.diff:
        return _diff(args.diff, args.json)
    return _list(args)


def _check(args: argparse.Namespace) -> None:
    does = [name for name in ("tag", "untag", "delete", "diff") if getattr(args, name)]
    if len(does) > 1:
        raise SettingsError(f"--{does[0]} and --{does[1]} are two things to do.", "give one, then the other.")
    listing = [f"--{name}" for name in ("where", "sort", "columns", "last") if getattr(args, name) is not None]
    listing += [repr(args.pattern)] if args.pattern is not None else []
    if does and listing:
        raise SettingsError(f"{listing[0]} is for the list of runs, and --{does[0]} names its own.", "leave it out.")
    if args.yes and not args.delete:
        raise SettingsError("--yes answers --delete, and there is none.", "leave it out.")
    if args.last is not None and args.last < 1:
        raise SettingsError(f"--last {args.last} can't be: it is 1 or more.", "leave it out for all.")


def _list(args: argparse.Namespace) -> int:
    from microformer import runs
    from microformer.experiments import runs as listed

    found = listed(args.pattern or "*")
    if args.where:
        found = found.where(args.where)
    if args.last:
        found = found.last(args.last)
    if args.sort:
        found = found.sort(*args.sort.split(","))
    if args.columns:
        found = found.show(*(name.strip() for name in args.columns.split(",") if name.strip()))
    if args.json:
        columns = found.shown if args.columns or "tags" in found.shown else (*found.shown, "tags")
        print(json.dumps([{name: row[name] for name in columns} for row in found], indent=2))
    elif found:
        table(found.texts(), dict.fromkeys(found.numbers, ""))
    elif not (there := [run.name for run in runs.all_runs()]):
        print("there is no run yet; train one: microformer train")
    elif args.pattern and not len(listed(args.pattern)):
        meant = nearest(args.pattern, there)
        print(f"no run is called {args.pattern!r}" + (f"; did you mean {meant!r}?" if meant else "."))
    else:
        print(f"none of them is: {args.where}")
    return 0


def _tag(words: list[str], away: bool) -> int:
    from microformer.experiments.listing import matching

    name, word = words
    for run in matching([name]):
        tags = set(run.tags)
        if away and word not in tags:
            meant = nearest(word, tags)
            hint = f"did you mean {meant!r}?" if meant else f"it has: {', '.join(run.tags) or 'none'}."
            raise RunError(f"the run {run.name!r} has no tag {word!r}.", hint)
        run.write_tags(tags - {word} if away else tags | {word})
        print(f"{run.name}: {' '.join(run.tags) or 'no tags'}")
    return 0


def _delete(names: list[str], yes: bool) -> int:
    from microformer.experiments.listing import matching

    found = matching(names)
    for run in found:
        with run.lock():  # none is deleted where one of them is being trained
            pass
    sizes = [_megabytes(run.size) for run in found]
    if not yes:
        if not sys.stdin.isatty():
            raise SettingsError("nobody can be asked whether to delete it.", "add --yes to delete without a question.")
        for run, size in zip(found, sizes, strict=True):
            print(f"{run.folder} ({_about(run)}{size})")
        what = "it" if len(found) == 1 else f"these {len(found)} runs"
        if asked(f"delete {what}, for good? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was deleted.")
            return 0
    for run, size in zip(found, sizes, strict=True):
        run.delete()
        print(f"deleted {run.folder} ({size})")
    return 0


def _about(run: "Run") -> str:
    """What one would want to know of it before it is gone."""
    from microformer.errors import MicroformerError

    try:
        ended = run.info["ended"]
        tags = f"tagged {' '.join(run.tags)}, " if run.tags else ""
        return f"{tags}{ended['step']:,} steps, " if ended else f"{tags}{run.state}, "
    except (MicroformerError, KeyError, TypeError):
        return "damaged, "


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _diff(names: list[str], as_json: bool) -> int:
    from microformer import runs
    from microformer.experiments.listing import differences, shown

    pair = [runs.find(name) for name in names]
    rows = differences(*pair)
    if as_json:
        print(json.dumps({"one": pair[0].name, "other": pair[1].name, "differences": rows}, indent=2))
        return 0
    if all(row["part"] == "figures" for row in rows):
        print("settings, model, data, code, versions and machine are the same.\n")
    names = [run.name for run in pair]
    names = names if names[0] != names[1] else [str(run.folder) for run in pair]
    before, lines = "", []
    for row in rows:
        part, before = "" if row["part"] == before else row["part"], row["part"]
        values = dict(zip(names, (shown(row["what"], row[which]) for which in ("one", "other")), strict=True))
        lines.append({"": part, "what": row["what"], **values})
    table(lines, {})
    return 0

"""The process in which W&B's library works: lines of JSON in, one in answer to `begin` and to `end`.

    python -m microformer.trackers.wandb_process

Where W&B can't be reached, the answer says so, and another process begins offline: the library of this one goes on
trying. Where the lines end without an `end`, the training was killed, and
what it had sent is kept.

What a resumed run has of later steps goes: an offline part is cut back (wandb_files.py). What W&B's server has stays
there, as it can't be cut; those steps are not logged a second time when they are made again.
"""

import base64
import html
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from microformer.trackers import wandb_files

# Seconds for W&B's server to answer.
_INIT = 20
# Seconds for what is still to be sent when a killed training leaves this process behind.
_FINISH = 30


def main(lines: Iterable[str], answer: Callable[[Mapping[str, Any]], None]) -> None:
    """Does what the lines say, until they end."""
    run, after = None, -1
    held: list[Mapping[str, Any]] = []  # what is of one step
    for line in lines:
        message = json.loads(line)
        match message["what"]:
            case "begin":
                try:
                    run, after = _begin(message)
                except Exception as error:
                    if os.environ.get("WANDB_MODE", "online") != "online":
                        raise
                    answer({"unreachable": " ".join(str(error).split())[:150] or type(error).__name__})
                    return
                for row in message["rows"]:
                    if row["step"] > after:
                        run.log({name: one for name, one in row.items() if name != "step"}, step=row["step"])
                answer({"url": run.url or ""})
            case "end":
                assert run is not None
                _log(run, held)
                run.summary["ended"] = message["how"]
                _finish(run, 0)
                answer({})
                return
            case _:
                assert run is not None
                if message["step"] <= after:
                    continue
                if held and held[0]["step"] != message["step"]:
                    _log(run, held)
                    held = []
                held.append(message)
    if run is not None:
        _log(run, held)
        _finish(run, 1)


def _finish(run: Any, exit_code: int) -> None:
    """Ends the run; what is kept offline is on the disk then."""
    import wandb

    run.finish(exit_code=exit_code)
    if run.offline:
        wandb.teardown()  # what writes the files is a program of its own, and is still at it


def _begin(message: Mapping[str, Any]) -> tuple[Any, int]:
    """The run, and the last step that it has and that can't be taken back."""
    import wandb

    folder = Path(message["folder"])
    names = {
        "dir": str(folder), "id": message["id"], "name": message["name"], "config": message["config"],
        "project": os.environ.get("WANDB_PROJECT", "microformer"), "resume": "allow",
    }  # fmt: skip
    # Nothing is printed but by the training; older versions can't be told how long to wait at the end.
    ours: dict[str, Any] = {"silent": True, "console": "off", "init_timeout": _INIT, "finish_timeout": _FINISH}
    known = wandb.Settings()
    said = {name for name in ours if f"WANDB_{name.upper()}" in os.environ}
    settings = wandb.Settings(**{name: one for name, one in ours.items() if hasattr(known, name) and name not in said})
    if hasattr(settings, "allow_media_symlink"):
        settings.allow_media_symlink = False  # pictures are files that are gone at once
    if os.environ.get("WANDB_MODE", "online") == "online":
        run = wandb.init(settings=settings, **names)
        return run, run.starting_step - 1
    try:
        last = wandb_files.cut_back(folder / "wandb", message["id"], message["step"])
    except Exception as error:  # written by a version whose files are others: what is there is taken for whole
        print(f"{folder / 'wandb'} can't be cut back: {error!r}", file=sys.stderr)
        last = message["step"]
    return wandb.init(settings=settings, **names), last


def _log(run: Any, messages: Sequence[Mapping[str, Any]]) -> None:
    """Logs all that there is of a step; at once, for each call takes the library some milliseconds."""
    if messages:
        with ExitStack() as stack:
            values = [stack.enter_context(_logged(message)) for message in messages]
            run.log({name: one for each in values for name, one in each.items()}, step=messages[0]["step"])


@contextmanager
def _logged(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What W&B is to log, and while inside."""
    import wandb

    match message["what"]:
        case "scalars":
            yield message["values"]
        case "text":
            yield {message["name"]: wandb.Html(f"<pre>{html.escape(message['text'])}</pre>")}
        case "image":
            # A file, which is copied as it is; pixels would be packed a second time.
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "image.png"
                path.write_bytes(base64.b64decode(message["png"]))
                yield {message["name"]: wandb.Image(str(path))}
        case "histogram":
            yield {message["name"]: wandb.Histogram(np_histogram=(message["counts"], message["edges"]))}
        case what:
            raise ValueError(what)


def _alone() -> None:
    # What the library prints must not stand among the answers; nor may it, or a process that it starts, read the lines.
    lines, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # Where pandas is installed, the library loads it, a quarter of a second, to ask of what we log if it is a table.
    sys.modules.setdefault("pandas", None)  # type: ignore[assignment]

    def answer(what: Mapping[str, Any]) -> None:
        print(json.dumps(what), file=answers, flush=True)

    try:
        main(lines, answer)
    except Exception as error:
        traceback.print_exc()
        answer({"failed": f"{type(error).__name__}: {error}"})
    sys.stderr.flush()
    os._exit(0)  # the library would wait without end for what could not be sent; it is on the disk


if __name__ == "__main__":
    _alone()

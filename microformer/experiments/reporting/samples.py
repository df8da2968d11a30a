"""What a model wrote on its way: one prompt and one seed, from snapshot to snapshot. Changes no run."""

from collections.abc import Callable
from dataclasses import dataclass

from microformer.errors import CodeError, MicroformerError
from microformer.runs import Run

# Of the snapshots, which may be twenty, so many are shown before the best.
_MOST = 5


@dataclass(frozen=True)
class Sample:
    """A text.

    Args:
        which: the checkpoint, in words.
        prompt, text: what was given, and what came of it.
    """

    which: str
    prompt: str
    text: str


@dataclass(frozen=True)
class Samples:
    """What was written.

    Args:
        about: how it was asked.
        found: from the first steps to the best.
        missing: why there are none, in a sentence; "" where there are.
        answer: of a task, what would have been right.
        kept: samples.txt, where nothing could be written now.
    """

    about: str = ""
    found: tuple[Sample, ...] = ()
    missing: str = ""
    answer: str = ""
    kept: str = ""


def written(
    run: Run,
    prompt: str | None,
    most: int,
    temperature: float,
    seed: int,
    tell: Callable[[str], None] = lambda line: None,
) -> Samples:
    """What the run's checkpoints write.

    Args:
        prompt: None for the beginning of a line, or a question of the task that was held out.
        most: tokens; 0 for no samples.
        temperature, seed: as in `generate`; a task is answered at temperature 0.
        tell: called with a line before it takes its time.

    Returns:
        the samples, or the reason why there are none: code of its own that is not trusted here, a damaged checkpoint.
    """
    if not most:
        return Samples()
    try:
        return _written(run, prompt, most, temperature, seed, tell)
    except MicroformerError as error:
        path = run.folder / "samples.txt"
        try:
            kept = path.read_text(encoding="utf-8") if path.is_file() and not path.is_symlink() else ""
        except (OSError, UnicodeDecodeError):
            kept = ""
        hint = f" ({error.hint})" if error.hint and isinstance(error, CodeError) else ""
        return Samples(missing=f"{error.sentence}{hint}", kept=kept)


def _written(
    run: Run, prompt: str | None, most: int, temperature: float, seed: int, tell: Callable[[str], None]
) -> Samples:
    from microformer.pipeline.text import generate, held_out_question

    checkpoints = chosen(run)
    if not checkpoints:
        return Samples(missing="it has no checkpoint yet.")
    about, answer = f"temperature {temperature:g}, seed {seed}", ""
    if prompt is None and (question := held_out_question(run)):
        prompt, answer, most = question[0], question[1], question[2]
        temperature, about = 0.0, "a question held out, the likeliest answer"
    elif prompt is None:
        prompt = _first_words(run)
    tell(f"{run.name}: {len(checkpoints)} samples of {most} tokens")
    found = []
    for which in checkpoints:
        one = Run(run.folder, which, run.trust_code)
        text = generate(one, prompt, max_new_tokens=most, temperature=temperature, seed=seed, unknown="replace")
        begin = text[: len(prompt)] if text.startswith(prompt) else ""
        label = f"step {int(which):,}" if which.isdecimal() else _best(run)
        found.append(Sample(label, begin, text[len(begin) :]))
    return Samples(about, tuple(found), answer=answer)


def chosen(run: Run) -> list[str]:
    """The checkpoints that write: snapshots from early to late, as evenly as they were kept, and the best."""
    index = run.index
    steps = [int(name.removeprefix("step-")) for name in index["snapshots"]]
    last = index["best"] or index["last"]
    end = int(last.rpartition("-")[2]) if last else 0
    steps = [step for step in steps if step < end] if last else steps
    if len(steps) > _MOST:
        places = sorted({round(place * (len(steps) - 1) / (_MOST - 1)) for place in range(_MOST)})
        steps = [steps[place] for place in places]
    return [str(step) for step in steps] + (["best"] if last else [])


def _best(run: Run) -> str:
    index = run.index
    which = "best" if index["best"] else "last"
    return f"{which}, step {int(index[which].rpartition('-')[2]):,}"


def _first_words(run: Run) -> str:
    from microformer.pipeline.report import first_words

    return first_words(run)

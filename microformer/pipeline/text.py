"""From a run to text, and from a text to its loss under a run. Reads the run folder, and data/ only where asked to."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Integer
from torch import Tensor

from microformer import baselines, corpora, devices, evaluation, generation
from microformer.errors import DataError, GenerationError, notice
from microformer.models.model import Microformer
from microformer.models.spec import LinearAttention
from microformer.pipeline.losses import by_class, surprising
from microformer.pipeline.preparing import data_of
from microformer.runs import Run
from microformer.tokenization import Unknown

# A token's operations are played back where so many tokens are to come, and each takes so few multiplications that what
# Python does between is a good part of its time. So fast, a reader does not notice that they come some at a time.
_MANY = 64
_SMALL = 1e8
_AT_A_TIME = 8


def generate(
    run: Run,
    prompt: str,
    *,
    max_new_tokens: int = 500,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int = 0,
    unknown: Unknown = "error",
    precision: str = "float32",
) -> str:
    """The prompt and what the run's model makes of it.

    Args:
        run: from `load_run` or `train`.
        prompt: the beginning of the text.
        max_new_tokens: how many tokens are added.
        temperature, top_k, top_p, min_p: see `generation.Sampler`.
        seed: the same one gives the same text.
        unknown: whether characters that the vocabulary lacks are refused, skipped or replaced.
        precision: see `stream_text`.

    Raises:
        MicroformerError: an empty prompt, an unknown character, a value out of range.
    """
    sampler = generation.Sampler(temperature, top_k, top_p, min_p)
    options: dict[str, Any] = {"seed": seed, "unknown": unknown, "precision": precision}
    pieces = stream_text(run, [prompt], sampler, max_new_tokens, **options)
    return as_read(run, prompt, unknown) + "".join(piece for _, piece in pieces)


def as_read(run: Run, prompt: str, unknown: Unknown = "error") -> str:
    """The prompt without what the model can't read.

    Raises:
        DataError: an unknown character that is not to be skipped.
    """
    return run.tokenizer.decode(run.tokenizer.encode(prompt, unknown).tolist())


def stream_text(
    run: Run,
    prompts: Sequence[str],
    sampler: generation.Sampler,
    max_new_tokens: int,
    *,
    seed: int = 0,
    unknown: Unknown = "error",
    stop: str = "",
    compile: bool = False,
    precision: str = "float32",
) -> Iterator[tuple[int, str]]:
    """Continues prompts together: (row, the next piece of its text), as each is made.

    Args:
        compile: whether what is done for each token is compiled first: worth it for thousands of them.
        precision: of the model's work, float32 or bfloat16: half the memory to read for each token, and another text.
        stop: a row's text ends before the first place where this comes in what was generated; "" for nowhere.
    """
    check_memory(run, len(prompts))
    ids = [run.tokenizer.encode(prompt, unknown).tolist() for prompt in prompts]
    for prompt, encoded in zip(prompts, ids, strict=True):
        if not encoded:
            what = "has no character that the model knows" if prompt else "is empty"
            raise GenerationError(f"the prompt {what}.", "give at least one character of the text it learned from.")
        encoded[:0] = run.tokenizer.beginning
        if len(encoded) > run.spec.max_seq_len and not run.spec.carries:
            seen = len(encoded) - generation.window_start(len(encoded), run.spec.max_seq_len)
            notice(
                f"the prompt has {len(encoded):,} tokens, more than the context of {run.spec.max_seq_len:,}; "
                f"the model sees its last {seen:,}."
            )
    decoders = [run.tokenizer.decoder() for _ in prompts]
    for decoder, encoded in zip(decoders, ids, strict=True):
        for token_id in encoded:
            decoder.push(token_id)  # what comes after may hang on it: a space between two words, say
    held = [""] * len(prompts)  # text that may be the beginning of `stop`
    open_rows = set(range(len(prompts)))
    if compile and run.settings.model.memory != "none":
        notice("a model with a memory can't be compiled: its tensors change their sizes. It goes on without.")
        compile = False
    operations = len(ids) * run.model.num_parameters()
    model = _in_precision(run.model, precision)
    step = _step(run, model, sampler, max_new_tokens, operations, compile)
    with run.explained(), devices.threads_for(operations):
        for made in generation.stream(model, ids, sampler, max_new_tokens, seed=seed, step=step):
            for row, chosen in enumerate(made):
                if chosen is None or row not in open_rows:
                    continue
                if chosen == run.tokenizer.end_of_document:
                    open_rows.discard(row)
                    if rest := held[row] + decoders[row].finish():
                        yield row, rest
                    continue
                held[row] += decoders[row].push(chosen)
                if stop and stop in held[row]:
                    open_rows.discard(row)
                    held[row] = held[row].split(stop)[0]
                piece, held[row] = _releasable(held[row], stop if row in open_rows else "")
                if piece:
                    yield row, piece
            if not open_rows:
                return
    for row in sorted(open_rows):
        if rest := held[row] + decoders[row].finish():
            yield row, rest


def _in_precision(model: Microformer, precision: str) -> Microformer:
    """The model as it works in a precision."""
    if precision == "float32":
        return model
    if precision != "bfloat16":
        raise GenerationError(f"precision {precision!r} can't be written in.", "use float32 or bfloat16.")
    if not devices.Machine().has_bfloat16("cpu"):
        notice("this processor has no units for bfloat16: float32 is faster here.")
    return model.kept_in(torch.bfloat16)


def _step(
    run: Run, model: Microformer, sampler: generation.Sampler, new: int, operations: int, compile: bool
) -> generation.Step | None:
    """The fastest way to a token that pays for so many; None for the one that every model has."""
    plain, context = partial(generation.next_ids, model, sampler), run.spec.max_seq_len
    most = _AT_A_TIME if operations <= _SMALL else 1
    if compile:
        code = partial(devices.compiled_work, what="generation")
        return generation.Recorded(plain, context, most, code, room=context)
    # A component of one's own may look at more than tensors that keep their sizes. In bfloat16 a sum over a recording's
    # room, of which a part is empty, can be rounded to another number than one without: half a text would be another.
    steady = run.settings.model.memory == "none" and not run.spec.own and model.compute_dtype == torch.float32
    return generation.Recorded(plain, context, most) if steady and new >= _MANY and operations <= _SMALL else None


def held_out_question(run: Run, data: corpora.Prepared | None = None) -> tuple[str, str, int] | None:
    """Of a run on a task: a question that was held out, its right answer, and how many tokens that is; None of a text.

    Args:
        data: the run's own; None: as they lie here.

    Raises:
        MicroformerError: it is a task, and its data are not at hand.
    """
    if data is None:
        if not str(run.info["data"]["corpus"]).startswith("task:"):
            return None
        data = data_of(run)
    ids = (data.train if data.val is None else data.val)[: data.example]
    counted = data.counted(ids)
    if data.example == 1 or counted is None:
        return None
    question, answer = (run.tokenizer.decode(part.tolist()) for part in (ids[~counted], ids[counted]))
    return question, answer, int(counted.sum())


def check_memory(run: Run, texts: int) -> None:
    """Raises GenerationError where what is remembered of so many texts is more than there is room for."""
    there = devices.memory_available()
    spec = run.spec
    # Keys and values of each layer, twice: the room for them grows by doubling.
    kept = sum(not isinstance(layer.attention, LinearAttention) for layer in spec.layers) * spec.loops
    needed = texts * kept * 2 * spec.kv_heads * spec.d_head * (spec.max_seq_len + spec.kept) * 4 * 2
    if there is not None and needed > there:
        raise GenerationError(
            f"{texts:,} texts together take about {needed / 1e9:,.1f} GB, and {there / 1e9:,.1f} GB are free.",
            "ask for fewer at a time: --num-samples.",
        )


def _releasable(text: str, stop: str) -> tuple[str, str]:
    """The part of `text` that can't be the beginning of `stop`, and the rest."""
    kept = next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)
    return text[: len(text) - kept], text[len(text) - kept :]


def evaluate(
    run: Run,
    *,
    split: str = "val",
    text: str | None = None,
    context: Literal["blocks", "sliding"] = "blocks",
    stride: int | None = None,
    unknown: Unknown = "error",
    beside: bool = False,
) -> dict[str, Any]:
    """The exact loss of a run's model over a split of its data, or over a text.

    Args:
        split: `train`, `val` or `test`, of the data the run was trained on.
        text: scored instead of a split; its first token has nothing before it and is not scored.
        context, stride: see the evaluation module.
        unknown: whether characters of `text` that the vocabulary lacks are refused, left out or replaced.
        beside: whether to reckon, of a split, what models without a network make of the same tokens: seconds for a
            megabyte of text.

    Returns:
        nats_per_token and its standard_error (over blocks), bits_per_char, bits_per_byte, perplexity, tokens; of a
        task's split, exact_match too, and all of it of the answers alone; nats_by_position, the mean loss at each place
        of a block; nats_by_class, of letters, digits and so on, with their share; surprising, the passages that cost
        most; and, if wanted, `beside`: nats a token by uniform, unigram and n-grams, and xz's bits a byte.

    Raises:
        MicroformerError: the data is another's, there is no such split, or the text has unknown characters.
    """
    prime, counted, example, data = None, None, 1, None
    if text is not None:
        text = as_read(run, text, unknown)
        ids = torch.from_numpy(run.tokenizer.encode(text))
        first = run.tokenizer.decode(ids[:1].tolist())
        scored = text[len(first) :] if text.startswith(first) else text  # else it is a part of a character
        characters, size = len(scored), len(scored.encode("utf-8"))
    else:
        data = data_of(run)
        ids = {"train": data.train, "val": data.val, "test": data.test}[split]
        if ids is None:
            there = " and ".join(name for name in ("train", "val", "test") if getattr(data, name) is not None)
            what = {"val": "validation"}.get(split, split)
            raise DataError(f"the run's data has no {what} split.", f"it has {there}; or score a text: --text FILE.")
        characters, size = data.manifest[split]["characters"], data.manifest[split]["bytes"]
        before_it = data.val if split == "test" and data.val is not None else data.train
        prime = None if split == "train" else int(before_it[-1])
        counted, example = data.counted(ids), data.example
    model = run.model
    # In the precision that the run was validated in while it trained, so that the figures agree.
    machine = run.settings.machine
    before = model.compute_dtype
    model.compute_dtype = devices.choose("cpu", machine.precision, devices.usable_cores()).torch_dtype
    try:
        with run.explained():
            how = {"context": context, "stride": stride, "counted": counted, "example": example}
            loss = evaluation.evaluate(model, ids, prime, **how)
    finally:
        model.compute_dtype = before
    if counted is not None:
        characters = size = loss.tokens  # a token a character of ASCII
    exact = {} if loss.exact_match is None else {"exact_match": loss.exact_match}
    return {
        **exact,
        "nats_per_token": loss.nats_per_token,
        "bits_per_char": loss.bits_per(characters),
        "bits_per_byte": loss.bits_per(size),
        "perplexity": loss.perplexity,
        "tokens": loss.tokens,
        "standard_error": loss.standard_error,
        "nats_by_position": list(loss.by_position),
        "nats_by_class": by_class(run.tokenizer, ids, loss.each),
        "surprising": surprising(run.tokenizer, ids, loss.each),
        **({"beside": _beside(run, data, ids)} if beside and data is not None and counted is None else {}),
    }


def _beside(run: Run, data: corpora.Prepared, ids: Integer[Tensor, "tokens"]) -> dict[str, float]:
    """What knows no network makes of a split."""
    vocab_size = data.tokenizer.vocab_size
    orders = baselines.kneser_ney(data.train, ids, vocab_size)
    best = min(orders, key=orders.__getitem__)
    return {
        "uniform": baselines.uniform(vocab_size),
        "unigram": baselines.unigram(data.train, ids, vocab_size),
        f"Kneser-Ney, {best} tokens": orders[best],
        "xz_bits_per_byte": baselines.xz(run.tokenizer.decode(ids).encode("utf-8")),
    }

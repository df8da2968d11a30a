"""Generation: what is drawn, from what, and that neither the cache nor the company changes it."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from microformer.errors import GenerationError
from microformer.generation import Recorded, Sampler, next_ids, stream, window_start
from microformer.models.grammar import one
from microformer.models.model import Microformer
from microformer.models.spec import (
    MEMORY,
    T5,
    Alibi,
    Differential,
    Entmax15,
    Fixed,
    Gelu,
    LayerNorm,
    LayerSpec,
    Learned,
    LinearAttention,
    ModelSpec,
    MoE,
    NoPositions,
    RMSNorm,
    Rope,
    Sigmoid,
    Sinusoidal,
    Softmax,
    Sparsemax,
    Strided,
    Swiglu,
    TopK,
    Window,
)
from microformer.models.taps import Edit, Record

VOCAB, CONTEXT = 11, 8


def small_model(positions=None, context=CONTEXT, layers=None, norm=None, **changes) -> Microformer:
    """A model with opinions: its weights are random, not at their start."""
    kinds = layers or (LayerSpec(Softmax(), Gelu()),) * 2, positions or Rope(), norm or RMSNorm()
    model = Microformer(ModelSpec(VOCAB, 16, 2, 24, context, *kinds, **changes)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def generated(model, prompts, sampler=None, new=20, **options) -> list[list[int]]:
    """The new ids of each row."""
    rows: list[list[int]] = [[] for _ in prompts]
    for step in stream(model, prompts, sampler or Sampler(temperature=1.0), new, **options):
        for row, chosen in zip(rows, step, strict=True):
            if chosen is not None:
                row.append(chosen)
    return rows


# ------------------------------------------------------------------------------------------------- the stream


@pytest.mark.parametrize(
    ("positions", "context"), [(Rope(), 1), (Rope(), 3), (Rope(), 8), (Learned(), 8), (Rope(), 64)]
)
@pytest.mark.parametrize("length", [1, 8, 9, 30])
def test_the_cache_changes_no_token_within_the_context_and_far_beyond_it(positions, context, length):
    model, prompt = small_model(positions, context), [(3 * i) % VOCAB for i in range(length)]

    cached = generated(model, [prompt], new=2 * CONTEXT)

    assert cached == generated(model, [prompt], new=2 * CONTEXT, use_cache=False)
    assert len(cached[0]) == 2 * CONTEXT


@pytest.mark.parametrize("memory", ["xl(5)", "compressive(3, 4, 2)", "recurrent(2)", "tokens(2)", "knn(20, 3)"])
@pytest.mark.parametrize("length", [1, 8, 9, 30])
def test_a_memory_goes_on_without_end_with_and_without_the_cache(memory, length):
    model = small_model(memory=one(memory, MEMORY, "MEMORY"))
    prompt = [(3 * i) % VOCAB for i in range(length)]

    cached = generated(model, [prompt, prompt[:1]], new=3 * CONTEXT)

    assert cached == generated(model, [prompt, prompt[:1]], new=3 * CONTEXT, use_cache=False)
    assert cached[0] == generated(model, [prompt], new=3 * CONTEXT)[0]


@pytest.mark.parametrize("context", [1, 3, 8])
@pytest.mark.parametrize(
    "changes", [{"qk_norm": True, "ngrams": 3, "ngram_entries": 50}, {"positions": Learned(), "bias": True}], ids=str
)
def test_a_memory_of_fixed_size_changes_no_token(context, changes):
    """What compiled code is given, here not compiled: tests/test_cli.py compiles."""
    model, prompts = small_model(context=context, **changes), [[1, 2, 3, 4], [5]]

    as_it_is = lambda work, given: work  # noqa: E731
    step = Recorded(partial(next_ids, model, Sampler(temperature=1.0)), context, 3, as_it_is, room=context)

    assert generated(model, prompts, seed=3, step=step) == generated(model, prompts, seed=3)


PLAYED: dict[str, dict] = {
    "the default's": {"qk_norm": True, "ngrams": 3, "ngram_entries": 50},
    "GPT-2's": {"positions": Learned(), "bias": True, "norm": LayerNorm()},
    "shared keys": {"num_kv_heads": 1, "output_gate": True, "score_cap": 5.0},
    "parallel, twice": {"parallel": True, "loops": 2},
    "experts": {"layers": (LayerSpec(Softmax(), MoE(4, 2)),) * 2},
} | {str(kind): {"layers": (LayerSpec(kind, Gelu()), LayerSpec(Softmax(), Swiglu()))} for kind in (
    Window(3), Strided(3), Fixed(3, 1), TopK(3), Sigmoid(), LinearAttention(), Differential(),
)} | {str(kind): {"positions": kind} for kind in (Alibi(), T5(8, 12), Sinusoidal(), NoPositions())}  # fmt: skip


@pytest.mark.parametrize("changes", PLAYED.values(), ids=PLAYED)
def test_what_is_played_back_is_the_same_text(changes):
    model, prompts = small_model(context=40, **changes), [[1, 2, 3, 4], [5]]
    step = Recorded(partial(next_ids, model, Sampler(temperature=1.0)), 40, room=16)

    assert generated(model, prompts, seed=3, new=100, step=step) == generated(model, prompts, seed=3, new=100)
    assert step.possible
    assert sorted(step.recordings) == [(2, 16), (2, 32), (2, 40)]
    assert generated(model, prompts[:1], new=50, step=step) == generated(model, prompts[:1], new=50)  # another text


@pytest.mark.parametrize("most", [1, 5, 64])
def test_a_recording_chooses_some_tokens_at_a_time_and_not_more(most):
    model, made = small_model(context=40), []
    recorded = Recorded(partial(next_ids, model, Sampler(temperature=1.0)), 40, most)

    def step(ids, state, u):
        chosen, after = recorded(ids, state, u)
        made.append(chosen.shape[1])
        return chosen, after

    assert generated(model, [[1, 2], [3]], new=150, step=step) == generated(model, [[1, 2], [3]], new=150)
    assert max(made) == min(most, 31)  # of the room for 32, the prompt has the first


@pytest.mark.parametrize("kind", [Sparsemax(), Entmax15()], ids=str)
def test_what_can_not_be_played_back_is_the_same_text_too(kind):
    """These look for a border until they have found it, which takes as many rounds as it takes."""
    model, prompts = small_model(context=40, layers=(LayerSpec(kind, Gelu()),) * 2), [[1, 2, 3, 4], [5]]
    step = Recorded(partial(next_ids, model, Sampler(temperature=1.0)), 40)

    assert generated(model, prompts, seed=3, new=100, step=step) == generated(model, prompts, seed=3, new=100)
    assert not step.possible


@pytest.mark.parametrize("sampler", [Sampler(0.0), Sampler(1.0, top_k=3), Sampler(1.0, top_p=0.7, min_p=0.1)], ids=str)
def test_each_way_of_sampling_is_played_back(sampler):
    model = small_model(context=40)
    step = Recorded(partial(next_ids, model, sampler), 40)

    assert generated(model, [[1], [2]], sampler, new=60, step=step) == generated(model, [[1], [2]], sampler, new=60)
    assert step.possible


@pytest.mark.parametrize("lengths", [(1, 4), (5, 2, 1), (3, 30), (8, 9), (1, 1, 1)], ids=str)
def test_each_row_is_what_it_would_be_alone(lengths):
    model = small_model()
    prompts = [[(5 * i + row) % VOCAB for i in range(length)] for row, length in enumerate(lengths)]

    together = generated(model, prompts, seed=3)

    for row, prompt in enumerate(prompts):
        assert [together[row]] == generated(model, [prompt], seed=3 + row)


def test_a_row_is_none_while_its_prompt_is_read_and_after_its_last_token():
    steps = list(stream(small_model(), [[1], [1, 2, 3]], Sampler(), 2))

    assert [[token is not None for token in step] for step in steps] == [
        [True, False], [True, False], [False, True], [False, True],
    ]  # fmt: skip


def test_no_step_is_without_a_token():
    assert all(any(token is not None for token in step) for step in stream(small_model(), [[1], [2] * 9], Sampler(), 2))
    assert list(stream(small_model(), [[1], [2] * 9], Sampler(), 0)) == []


def test_the_first_tokens_come_while_the_last_are_still_unmade():
    made = stream(small_model(), [[1]], Sampler(), 10**9)

    assert [len(next(made)) for _ in range(3)] == [1, 1, 1]


def test_a_seed_gives_one_text_and_another_seed_another():
    model = small_model()

    assert generated(model, [[1]], seed=5) == generated(model, [[1]], seed=5)
    assert generated(model, [[1]], seed=5) != generated(model, [[1]], seed=6)
    assert len(generated(model, [[1]], seed=2**63 - 1)[0]) == len(generated(model, [[1]], seed=-1)[0]) == 20


@pytest.mark.parametrize("memory", ["none", "xl(5)"])
@pytest.mark.parametrize("shown", [1, 5, 300])
def test_a_text_that_is_gone_on_with_is_the_one_that_was_not_stopped(memory, shown):
    model, prompt = small_model(memory=one(memory, MEMORY, "MEMORY")), [1, 2, 3]
    whole = generated(model, [prompt], new=shown + 10, seed=4)[0]

    assert generated(model, [prompt + whole[:shown]], new=10, seed=4, drawn=shown) == [whole[shown:]]
    assert generated(model, [prompt + whole[:shown]], new=10, seed=4) != [whole[shown:]]


def test_a_tap_reads_and_edits_every_step_with_and_without_the_cache():
    model, name = small_model(), "blocks.1.attn.hook_z"
    record, silence = Record([name]), Edit({name: torch.zeros_like})

    assert generated(model, [[1, 2]], new=5, tap=record) == generated(model, [[1, 2]], new=5)
    assert record.activations[name].shape == (1, 1, 2, 8)
    silenced = generated(model, [[1, 2]], tap=silence)
    assert silenced == generated(model, [[1, 2]], tap=silence, use_cache=False)
    assert silenced != generated(model, [[1, 2]])


def test_where_there_is_a_tap_compiled_code_is_left_aside():
    def compiled(*_):
        raise AssertionError("called")

    model = small_model()

    assert generated(model, [[1]], tap=Record(), step=compiled) == generated(model, [[1]])


def test_generating_draws_from_no_global_state():
    before = torch.random.get_rng_state()
    generated(small_model(), [[1]])

    assert torch.equal(torch.random.get_rng_state(), before)


def test_at_temperature_0_the_likeliest_is_taken_every_time():
    model, text = small_model(context=64), [1, 2]
    chosen = generated(model, [text], Sampler(temperature=0.0), seed=1)[0]
    for token in chosen:
        with torch.no_grad():
            assert token == model(torch.tensor([text])).logits[0, -1].argmax()
        text = [*text, token]

    assert chosen == generated(model, [[1, 2]], Sampler(temperature=0.0), seed=2)[0]


@pytest.mark.parametrize("prompts", [[[]], [[1], []]], ids=str)
def test_an_empty_prompt_is_refused(prompts):
    with pytest.raises(GenerationError, match=r"the prompt is empty."):
        list(stream(small_model(), prompts, Sampler(), 1))


# ------------------------------------------------------------------------------------------------- the window


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 400))
def test_the_window_is_that_of_one_who_forgets_the_older_half_whenever_full(context, seen):
    window = list(range(min(seen, 1)))
    for token in range(1, seen):
        window.append(token)
        if len(window) > context:
            del window[: context - context // 2]

    assert window_start(seen, context) == window[0]


@settings(deadline=None)
@given(st.integers(1, 1000), st.integers(1, 5000))
def test_the_window_never_outgrows_the_context_and_keeps_at_least_its_half(context, seen):
    kept = seen - window_start(seen, context)

    assert kept <= context
    assert kept >= min(seen, context // 2 + 1)
    assert window_start(seen + 1, context) >= window_start(seen, context)


# ------------------------------------------------------------------------------------------------ the sampler

some_logits = st.lists(st.sampled_from([-30.0, -2.0, -1.0, 0.0, 0.5, 1.0, 3.0, 30.0]), min_size=1, max_size=12)
cuts = {
    "top_k": st.integers(0, 14),
    "top_p": st.sampled_from([1e-9, 0.1, 0.5, 0.9, 1.0]),
    "min_p": st.sampled_from([0.0, 0.05, 0.5, 1.0]),
}
samplers = st.builds(Sampler, temperature=st.sampled_from([0.0, 0.1, 0.8, 1.0, 5.0]), **cuts)
extreme = st.builds(Sampler, temperature=st.sampled_from([5e-324, 1e-300, 1e-40, 1e-20, 1e30, 1e300]), **cuts)


def by_hand(sampler, logits):
    """The same distribution, one token after another, in float64."""
    order = sorted(range(len(logits)), key=lambda i: -logits[i])
    if sampler.temperature == 0:
        return [float(i == order[0]) for i in range(len(logits))]
    weight = [math.exp((logit - max(logits)) / sampler.temperature) for logit in logits]
    kept = order[: sampler.top_k or None]
    kept = [i for i in kept if weight[i] >= sampler.min_p * max(weight)]
    total, running, nucleus = sum(weight[i] for i in kept), 0.0, []
    for i in kept:
        if sampler.top_p == 1 or running < sampler.top_p * total:
            nucleus.append(i)
        running += weight[i]
    return [weight[i] / sum(weight[j] for j in nucleus) if i in nucleus else 0.0 for i in range(len(logits))]


@settings(deadline=None)
@given(samplers, some_logits)
def test_the_distribution_is_the_one_reckoned_by_hand(sampler, logits):
    p = sampler.distribution(torch.tensor([logits]))[0]

    assert float(p.sum()) == pytest.approx(1, abs=1e-5)
    # Where a share falls exactly on a limit, float32 may round to either side of it.
    differs = (p - torch.tensor(by_hand(sampler, logits))).abs() > 1e-4
    assert not differs.any() or near_a_limit(sampler, logits)


def near_a_limit(sampler, logits):
    one_side, other = (
        by_hand(
            Sampler(sampler.temperature, sampler.top_k, min(1.0, sampler.top_p * c), min(1.0, sampler.min_p * c)),
            logits,
        )
        for c in (1 - 1e-5, 1 + 1e-5)
    )
    return one_side != other


@settings(deadline=None)
@given(st.one_of(samplers, extreme), some_logits, st.floats(0, 1, exclude_max=True, width=32))
def test_only_what_is_likely_at_all_is_ever_chosen(sampler, logits, u):
    row = torch.tensor([logits])

    chosen = int(sampler.choose(row, torch.tensor([u])))

    p = sampler.distribution(row)
    assert p[0, chosen] > 0
    assert p.min() >= 0
    assert p.sum().item() == pytest.approx(1, abs=1e-5)


@settings(deadline=None)
@given(some_logits, st.floats(0, 1, exclude_max=True, width=32), st.sampled_from([0.1, 1.0, 3.0]))
def test_the_one_likeliest_is_the_greedy_choice_ties_and_all(logits, u, temperature):
    row, draw = torch.tensor([logits * 6]), torch.tensor([u])
    greedy = logits.index(max(logits))

    for sampler in (Sampler(0.0), Sampler(temperature, top_k=1), Sampler(temperature, top_p=1e-9)):
        assert sampler.choose(row, draw).item() == greedy


@pytest.mark.parametrize("vocab", [3, 50, 5000])
def test_among_equals_top_k_keeps_exactly_k_and_the_first(vocab):
    p = Sampler(1.0, top_k=3).distribution(torch.zeros(2, vocab))

    assert_close(p[:, :3], torch.full((2, 3), 1 / 3))
    assert p[:, 3:].eq(0).all()


def test_draws_are_as_frequent_as_they_are_likely():
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]])
    u = (torch.arange(10_000) + 0.5) / 10_000

    chosen = Sampler(0.7).choose(logits.expand(10_000, -1), u)

    shares = torch.bincount(chosen, minlength=4) / 10_000
    assert_close(shares, torch.softmax(logits[0] / 0.7, -1), rtol=0, atol=2e-4)


def test_a_low_temperature_makes_the_likely_likelier_and_a_huge_one_makes_all_alike():
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    likeliest = [float(Sampler(t).distribution(logits)[0, 2]) for t in (1e300, 2.0, 1.0, 0.1, 1e-300)]

    assert likeliest == sorted(likeliest)
    assert likeliest[0] == pytest.approx(1 / 3)
    assert likeliest[-1] == 1


def test_rows_are_cut_each_by_its_own_likeliest():
    p = Sampler(1.0, min_p=0.5).distribution(torch.tensor([[0.0, 0.0, -9.0], [-9.0, 9.0, 0.0]]))

    assert_close(p, torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("temperature", -0.1), ("temperature", math.inf), ("temperature", math.nan), ("top_k", -1), ("top_p", 0.0),
        ("top_p", 1.1), ("top_p", math.nan), ("min_p", -0.1), ("min_p", 1.5), ("min_p", math.nan),
    ],
)  # fmt: skip
def test_an_option_out_of_range_is_refused_by_its_name_on_the_command_line(option, value):
    with pytest.raises(GenerationError, match=f"{option.replace('_', '-')} {value} can't be") as raised:
        Sampler(**{option: value})
    assert raised.value.hint

"""A model in words: the grammar of components, what can't be one model, and the way through JSON."""

import json
import math
import subprocess
import sys
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microformer.errors import SettingsError
from microformer.models.grammar import Own, one, own, per_layer
from microformer.models.spec import (
    ATTENTION,
    FEEDFORWARD,
    INIT,
    KNN,
    NORM,
    NORM_PLACEMENT,
    POSITIONS,
    Differential,
    Entmax15,
    Fixed,
    Gelu,
    GeluTanh,
    LayerNorm,
    LayerSpec,
    LinearAttention,
    MemoryTokens,
    ModelSpec,
    MoE,
    NoMemory,
    Recurrent,
    Relu2,
    RMSNorm,
    Rope,
    Sigmoid,
    Softmax,
    Sparsemax,
    Strided,
    Swiglu,
    TopK,
    Window,
)

positive = st.floats(1e-12, 1e12)
positions = st.one_of(
    st.sampled_from([POSITIONS["learned"](), POSITIONS["none"]()]),
    positive.map(Rope),
    st.builds(Rope, positive, st.floats(1e-6, 1e6)),
    st.sampled_from([POSITIONS["alibi"](), POSITIONS["t5"](), POSITIONS["t5"](4, 9)]),
    positive.map(POSITIONS["sinusoidal"]),
)
norms = st.one_of(positive.map(LayerNorm), positive.map(RMSNorm))
attentions = st.sampled_from(
    [Softmax(), Sparsemax(), Entmax15(), TopK(1), TopK(2), Sigmoid(), Window(1), Strided(2), Fixed(2, 1)]
)
layers = st.builds(LayerSpec, attentions, st.sampled_from([Gelu(), GeluTanh(), Relu2(), Swiglu(), MoE(3, 1)]))


@st.composite
def parts_of_a_model(draw):
    heads = draw(st.integers(1, 16))
    return {
        "vocab_size": draw(st.integers(1, 2**31)),
        "embed_dim": heads * 4 * draw(st.integers(1, 64)),
        "num_heads": heads,
        "ff_dim": draw(st.integers(1, 2**20)),
        "max_seq_len": draw(st.integers(2, 2**24)),
        "layers": tuple(draw(st.lists(layers, min_size=1, max_size=6))),
        "positions": draw(positions),
        "norm": draw(norms),
        "qk_norm": draw(st.booleans()),
        "tie_embeddings": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "dropout": draw(st.floats(0, 0.999)),
        "ngrams": draw(st.integers(1, 4)),
        "ngram_entries": draw(st.integers(1, 2**24)),
        "ngram_dropout": draw(st.floats(0, 0.999)),
        "num_kv_heads": draw(st.sampled_from([0, 1, heads])),
        "score_cap": draw(st.floats(0, 1000)),
        "attention_dropout": draw(st.floats(0, 0.999)),
        "output_gate": draw(st.booleans()),
        "norm_placement": draw(st.sampled_from(NORM_PLACEMENT)),
        "init": draw(st.sampled_from(INIT)),
        "residual_scalars": draw(st.booleans()),
        "embed_scale": draw(positive),
        "loops": draw(st.integers(1, 1000)),
        "memory": draw(st.sampled_from([NoMemory(), MemoryTokens(3), Recurrent(2, 3), KNN(9, 2)])),
    }


def spec_with(**changes) -> ModelSpec:
    values = {
        "vocab_size": 11, "embed_dim": 16, "num_heads": 2, "ff_dim": 24, "max_seq_len": 8,
        "layers": (LayerSpec(Softmax(), Gelu()),), "positions": Rope(), "norm": RMSNorm(),
    }  # fmt: skip
    return ModelSpec(**{**values, **changes})


@settings(deadline=None)
@given(parts_of_a_model())
def test_a_spec_comes_back_whole_from_json(parts):
    spec = ModelSpec(**parts)

    assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json(), allow_nan=False))) == spec


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(FEEDFORWARD)), st.integers(1, 4)), min_size=1, max_size=4),
    st.integers(1, 20),
    st.sampled_from([" ", "  ", "\n", "\t "]),
)
def test_a_pattern_is_repeated_until_every_layer_has_its_part(items, more, space):
    text = space.join(f"{kind}*{times}" if times > 1 else kind for kind, times in items)
    written_out = [FEEDFORWARD[kind]() for kind, times in items for _ in range(times)]
    num_layers = len(written_out) + more - 1

    parts = per_layer(f"{space}{text}{space}", FEEDFORWARD, "FEEDFORWARD", num_layers)

    assert list(parts) == (written_out * 20)[:num_layers]


def test_a_class_in_a_file_is_named_with_its_arguments_wherever_a_kind_can_be():
    mine = Own("parts/my_attention.py", "Mine", (("width", 3), ("how", "far"), ("deep", True)))
    text = 'parts/my_attention.py:Mine(width=3, how="far", deep=True)*2 softmax'
    assert per_layer(text, ATTENTION, "ATTENTION", 3) == (mine, mine, Softmax())
    assert str(mine) == "parts/my_attention.py:Mine(width=3, how='far', deep=True)"
    assert own(str(mine), "OPTIMIZER") == mine
    assert own("muon", "OPTIMIZER") is None
    windows = own("C:\\ideas\\mine.py:Mine", "SCHEDULE")
    assert windows is not None
    assert windows.file_name == "mine.py"


@pytest.mark.parametrize(
    "text",
    [
        "mine.py", "mine.py:", "mine.py:3", "my ideas/mine.py:Mine", "mine.py:Mine(3)", "mine.py:Mine(a=[1])",
        "mine.py:Mine(a=b)", "mine.py:Mine(a=1, a=2)", "mine.py:Mine(a=1e999)", "mine.py:Mine(**{'a': 1})",
        "mine.py:Mine(a=exit())", "mine.py:Mine softmax", "mine.py:Mine*0", "mine.pyx:Mine",
    ],
)  # fmt: skip
def test_a_class_in_a_file_that_is_badly_named_is_refused_with_the_way_to_write_it(text):
    said = said_of(lambda: one(text, ATTENTION, "ATTENTION"))

    assert "ATTENTION" in said
    assert "hint: " in said


def test_a_kind_takes_its_arguments_by_name_or_in_order():
    assert one("rope(base=500000)", POSITIONS, "POSITIONS") == Rope(500000.0)
    assert one("rope( 5e5 )", POSITIONS, "POSITIONS") == Rope(500000.0)
    assert one("rope()", POSITIONS, "POSITIONS") == one("rope", POSITIONS, "POSITIONS") == Rope()
    assert one("layernorm(eps=1)", NORM, "NORM") == LayerNorm(1.0)


def said_of(call) -> str:
    with pytest.raises(SettingsError) as raised:
        call()
    return str(raised.value)


def test_an_unknown_kind_is_named_with_the_nearest_one():
    assert said_of(lambda: one("rop", POSITIONS, "POSITIONS")) == (
        "POSITIONS 'rop' is not known.\n"
        "hint: did you mean 'rope'? There are: learned, sinusoidal, rope, alibi, t5, none."
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "rope(speed=3)", "rope(1, 2, 3)", "rope(1, base=2)", "rope(base=1, base=2)", "rope(base='x')",
        "rope(base=True)",
        "rope(base=1j)", "rope(base=)", "rope(**{'base': 5})", "rope(base=exit())", "rope(base=1e999)", "rope(None)",
        "rope(base=[1])", "rope(base=1" + "0" * 400 + ")", "rope(base=-1)", "rope(base=0)",
    ],
)  # fmt: skip
def test_arguments_that_a_kind_cannot_take_are_refused(text):
    assert "POSITIONS" in said_of(lambda: one(text, POSITIONS, "POSITIONS"))


@pytest.mark.parametrize(
    "text",
    ["", "  ", "gelu,swiglu", "gelu+swiglu", "gelu*", "gelu * 2", "(gelu)", "gelu(", "*2", "gelu*-1", "gelu*2.5"],
)
def test_what_is_no_pattern_is_refused(text):
    assert said_of(lambda: per_layer(text, FEEDFORWARD, "FEEDFORWARD", 8)).startswith("FEEDFORWARD")


@pytest.mark.parametrize("times", ["0", "1001", "99999999999", "9" * 10_000])
def test_absurd_repetitions_are_refused_at_once(times):
    said = said_of(lambda: per_layer(f"softmax*{times}", ATTENTION, "ATTENTION", 2))

    assert "must be repeated from 1 to 1000 times" in said


def test_a_pattern_longer_than_the_model_is_refused():
    assert said_of(lambda: per_layer("gelu*3 swiglu", FEEDFORWARD, "FEEDFORWARD", 3)) == (
        "FEEDFORWARD 'gelu*3 swiglu' describes 4 layers, and the model has 3.\n"
        "hint: shorten the pattern, or raise NUM_LAYERS."
    )


def test_a_pattern_where_one_component_fills_the_slot_is_refused():
    assert "names 2 components" in said_of(lambda: one("rope learned", POSITIONS, "POSITIONS"))


@settings(deadline=None)
@given(st.text(max_size=40))
def test_whatever_is_written_is_a_component_or_an_error_a_user_can_mend(text):
    with suppress(SettingsError):
        assert type(one(text, POSITIONS, "POSITIONS")) in POSITIONS.values()


LINEAR = (LayerSpec(LinearAttention(), Gelu()),)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"embed_dim": 130, "num_heads": 4}, "EMBED_DIM 130 can't be divided into 4 heads."),
        ({"vocab_size": 0}, "VOCAB_SIZE 0"),
        ({"max_seq_len": 2**30}, f"MAX_SEQ_LEN {2**30}"),
        ({"layers": ()}, "NUM_LAYERS 0"),
        ({"layers": (LayerSpec(Softmax(), Gelu()),) * 1001}, "NUM_LAYERS 1001"),
        ({"dropout": 1.0}, "DROPOUT 1.0"),
        ({"attention_dropout": 1.0}, "ATTENTION_DROPOUT 1.0"),
        ({"num_heads": 4, "num_kv_heads": 3}, "4 heads can't share 3 heads of keys and values"),
        ({"num_kv_heads": 3}, "NUM_KV_HEADS 3"),
        ({"score_cap": -1.0}, "SCORE_CAP -1.0"),
        ({"score_cap": math.nan}, "SCORE_CAP nan"),
        ({"layers": (LayerSpec(Window(9), Gelu()),)}, "ATTENTION window(9) is wider than the context of 8 tokens"),
        ({"layers": (LayerSpec(TopK(9), Gelu()),)}, "ATTENTION topk(9) is wider"),
        ({"num_heads": 8, "positions": Rope(base=5.0)}, "heads of 2 have one"),
        ({"layers": (LayerSpec(Strided(9), Gelu()),)}, "ATTENTION strided(9) is wider"),
        ({"layers": LINEAR, "score_cap": 1.0}, "SCORE_CAP is read by no layer"),
        (
            {"layers": (LayerSpec(LinearAttention(), Gelu()),), "attention_dropout": 0.1},
            "ATTENTION_DROPOUT is read by no",
        ),
        (
            {"layers": (LayerSpec(LinearAttention(), Gelu()),), "positions": POSITIONS["t5"]()},
            "linear attention has no",
        ),
        ({"layers": (LayerSpec(Differential(), Gelu()),), "num_heads": 8}, "heads are 2 wide"),
        ({"norm_placement": "between"}, "NORM_PLACEMENT 'between' is not known"),
        ({"loops": 0}, "LOOPS 0"),
        ({"parallel": True, "norm_placement": "post"}, "norms after each half can't be"),
        ({"embed_scale": 0.0}, "EMBED_SCALE"),
        ({"dropout": math.nan}, "DROPOUT nan"),
        ({"num_heads": 16}, "rope turns pairs of numbers"),
        ({"embed_dim": 15, "num_heads": 3, "positions": POSITIONS["sinusoidal"]()}, "EMBED_DIM 15 is odd"),
    ],
)
def test_parts_that_cannot_make_one_model_are_refused(changes, said):
    assert said in said_of(lambda: spec_with(**changes))


@pytest.mark.parametrize(
    ("embed_dim", "num_heads", "hint"),
    [
        (130, 4, "use a multiple of 4, such as 128 or 132, or set NUM_HEADS to 2, 5, 10 or 13."),
        (128, 3, "use a multiple of 3, such as 126 or 129, or set NUM_HEADS to 2, 4, 8 or 16."),
        (6, 4, "use a multiple of 4, such as 8 or 12, or set NUM_HEADS to 2 or 3."),
        (131, 4, "use a multiple of 4, such as 128 or 132."),
        (16, 4096, "use a multiple of 4096, such as 8192 or 12288, or set NUM_HEADS to 2, 4 or 8."),
    ],
)
def test_the_hint_for_heads_that_do_not_divide_holds_under_the_default_positions(embed_dim, num_heads, hint):
    assert said_of(lambda: spec_with(embed_dim=embed_dim, num_heads=num_heads)).endswith("\nhint: " + hint)

    heads = hint.partition("NUM_HEADS to ")[2].strip(".").replace(" or ", ", ")
    for one_of in filter(None, heads.split(", ")):
        assert spec_with(embed_dim=embed_dim, num_heads=int(one_of)).d_head > 1


def test_a_hand_edited_spec_is_refused_in_one_sentence():
    whole = spec_with().to_json()
    edits = [
        {"surplus": 1}, {"norm": "rmsnorm"}, {"norm": None}, {"norm": {"kind": "batchnorm"}}, {"layers": ["softmax"]},
        {"layers": 3}, {"positions": {"kind": "rope", "base": "fast"}}, {"positions": {"kind": "rope", "speed": 1.0}},
        {"positions": {"kind": ["rope"]}}, {"dropout": "none"},
    ]  # fmt: skip
    for edit in edits:
        assert "this is not a model's spec" in said_of(lambda edit=edit: ModelSpec.from_json({**whole, **edit}))
    for missing in ("vocab_size", "layers", "norm"):
        without = {name: value for name, value in whole.items() if name != missing}
        assert "this is not a model's spec" in said_of(lambda without=without: ModelSpec.from_json(without))


@pytest.mark.parametrize("edit", [{"embed_dim": 16.0}, {"embed_dim": "16"}, {"num_heads": True}, {"bias": "no"}])
def test_a_spec_with_a_number_of_the_wrong_kind_is_refused_without_the_tests_own_checks(edit):
    # The tests check every annotation, and a user's process does not: it is what they get that is looked at here.
    code = (
        "import json, sys\n"
        "from microformer.models.spec import ModelSpec\n"
        "from microformer.errors import SettingsError\n"
        "try:\n    ModelSpec.from_json(json.loads(sys.argv[1]))\n"
        "except SettingsError as error:\n    print(error.sentence)\n"
        "assert 'torch' not in sys.modules\n"
    )
    plain = json.dumps({**spec_with().to_json(), **edit})

    told = subprocess.run([sys.executable, "-c", code, plain], capture_output=True, text=True, check=True).stdout

    assert told.startswith(next(iter(edit)).upper())

"""The settings: one word in three spellings, one home for each default, and a clear sentence for what can't be."""

import io
import json
import math
import re
import subprocess
import sys
import tokenize
from collections import Counter
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import get_type_hints

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microformer.errors import SettingsError
from microformer.models.spec import Gelu, RMSNorm, Rope, Swiglu
from microformer.settings import (
    BUDGETS,
    FREQUENCIES,
    GROUPS,
    Settings,
    convert,
    each_setting,
    model_spec,
    read_config,
    resolve,
)

CONFIG = Path(__file__).parents[1] / "config.py"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """No config.py lies around unless a test writes one."""
    monkeypatch.chdir(tmp_path)


def write_config(text, name="config.py"):
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def said_of(call) -> str:
    with pytest.raises(SettingsError) as raised:
        call()
    return str(raised.value)


# ------------------------------------------------------------------------------------------------ where they live


def test_config_py_lists_every_setting_at_its_default_in_the_order_of_the_library():
    values = {"__name__": "config"}
    exec(CONFIG.read_text(encoding="utf-8"), values)
    said = {name: value for name, value in values.items() if name.isupper()}

    assert said == {name.upper(): field.default for _, name, field in each_setting()}
    assert {name: type(value) for name, value in said.items()} == {
        name.upper(): type(field.default) for _, name, field in each_setting()
    }
    assert {name.lower() for name in said} == {name for _, name, _ in each_setting()}


def test_every_setting_in_config_py_has_a_comment_of_its_own_and_no_import_stands_there():
    tokens = list(tokenize.generate_tokens(io.StringIO(CONFIG.read_text(encoding="utf-8")).readline))
    settings = {token.start[0]: token.string for token in tokens if token.string.isupper() and token.start[1] == 0}
    comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT and token.start[1]}

    assert set(settings) == set(comments)
    assert all(len(comment) > 3 for comment in comments.values())
    assert not {"import", "from"} & {token.string for token in tokens}


def test_config_py_changes_nothing_and_counts_as_nothing_said():
    assert resolve(CONFIG) == Settings()


def test_names_are_unique_across_the_groups():
    assert max(Counter(name for _, name, _ in each_setting()).values()) == 1
    assert set(BUDGETS + FREQUENCIES) <= {name for _, name, _ in each_setting()}


def test_every_setting_says_in_one_line_what_it_is():
    for _, _, field in each_setting():
        assert re.fullmatch(r"[^\n]{3,120}[^.\n]", field.metadata["about"])


def test_every_default_is_within_its_own_range():
    assert Settings().changed(Settings().flat()).flat() == Settings().flat()


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(FrozenInstanceError):
        Settings().model.embed_dim = 5  # type: ignore[misc]


def test_reading_settings_needs_no_torch():
    code = (
        "import sys\nfrom microformer import settings\nsettings.model_spec(settings.resolve('quick'), 65)\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------------ who wins over whom


def test_the_command_line_wins_over_the_config_which_wins_over_the_defaults():
    config = write_config("EMBED_DIM = 64\nNUM_LAYERS = 3\n", "mine.py")

    settings = resolve(config, {"embed_dim": 32})

    assert (settings.model.embed_dim, settings.model.num_layers, settings.model.ff_dim) == (32, 3, 256)
    assert settings.explicit == {"embed_dim", "num_layers"}


def test_the_config_py_of_the_folder_is_read_and_without_one_the_defaults_hold():
    assert resolve() == Settings()
    write_config("BATCH_SIZE = 8")
    assert resolve().training.batch_size == 8


def test_a_default_said_on_the_command_line_counts_as_said():
    assert resolve(None, {"corpus": "tinyshakespeare"}).explicit == {"corpus"}


@pytest.mark.parametrize(
    ("given", "budgets"),
    [
        ({}, (3.0, 500, 0.0)),
        ({"max_steps": 20}, (0.0, 20, 0.0)),
        ({"max_minutes": 1.5}, (0.0, 0, 1.5)),
        ({"epochs": 1, "max_minutes": 2}, (1.0, 0, 2.0)),
        ({"batch_size": 16}, (3.0, 500, 0.0)),
    ],
)
def test_a_budget_on_the_command_line_replaces_the_configs_whatever_it_was_in(given, budgets):
    config = write_config("EPOCHS = 3\nMAX_STEPS = 500\n")

    training = resolve(config, given).training

    assert (training.epochs, training.max_steps, training.max_minutes) == budgets


def test_a_ready_config_is_found_by_its_name():
    assert resolve("quick").model.embed_dim == 64
    assert said_of(lambda: resolve("quikc")) == (
        "there is no config 'quikc'.\nhint: give a file, or one of the ready ones: gpt1, gpt2, gpt2_large, "
        "gpt2_medium, gpt2_xl, llama, mingpt_micro, mingpt_mini, mingpt_nano, nanogpt, quick, shakespeare_3min, "
        "shakespeare_char, shakespeare_fast, shakespeare_gpu, text8_10min."
    )


@pytest.mark.parametrize("name", [path.stem for path in CONFIG.parent.glob("microformer/configs/[a-z]*.py")])
def test_every_ready_config_makes_a_model(name):
    assert model_spec(resolve(name), 65).num_layers > 0


def test_the_package_that_holds_the_ready_configs_is_none_itself():
    assert "there is no config '__init__'" in said_of(lambda: resolve("__init__"))


def test_a_file_is_read_whatever_it_is_called():
    assert resolve(write_config("SEED = 7", "_try.py")).training.seed == 7
    assert resolve(write_config("SEED = 8", "quick")).training.seed == 8


def test_a_run_json_is_a_config():
    settings = Settings().changed({"embed_dim": 64, "threads": 2, "eval_every": "auto", "epochs": 1.5})
    path = write_config(json.dumps({"format": 1, "settings": settings.flat()}), "run.json")

    assert resolve(path).flat() == settings.flat()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"settings": 3}', '{"settings": []}', "null", "\x00", '"settings"'], ids=repr
)
def test_what_is_no_run_json_is_refused(text):
    assert "run.json is not a run's run.json" in said_of(lambda: resolve(write_config(text, "run.json")))


def test_a_run_json_of_another_version_names_the_setting_it_has_too_many():
    path = write_config(json.dumps({"settings": {"embed_dims": 64}}), "run.json")

    assert said_of(lambda: resolve(path)).startswith(
        'there is no setting "embed_dims" in run.json.\nhint: did you mean'
    )


# ------------------------------------------------------------------------------------------------ config files


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "EMBED_DIM = 64\nNUM_HEADS = 1 / 0\n",
            "config.py can't be read: ZeroDivisionError at line 2: division by zero.",
        ),
        ("SEED = 1\n\nif True\n", "config.py can't be read: SyntaxError at line 3: expected ':'."),
        ("import json\nSEED = 1\nA = json.loads('{')", "config.py can't be read: JSONDecodeError at line 3: "),
        (
            "def half(n):\n    return n / 0\n\nFF_DIM = half(2)",
            "config.py can't be read: ZeroDivisionError at line 2: ",
        ),
        ("  SEED = 1", "config.py can't be read: IndentationError at line 1: "),
        ("import no_such_module", "config.py can't be read: ModuleNotFoundError at line 1: "),
    ],
)
def test_a_config_file_that_raises_names_the_line_to_mend(text, sentence):
    said = said_of(lambda: resolve(write_config(text)))

    assert said.startswith(sentence)
    assert said.endswith("\nhint: mend that line.")


@pytest.mark.parametrize("content", [b"CORPUS = 'caf\xe9'\n", b"SEED = 1\x00\n", b"\xff\xfeS\x00"], ids=repr)
def test_a_config_file_that_is_no_text_is_refused(content):
    Path("config.py").write_bytes(content)

    assert said_of(resolve).startswith("config.py can't be read: ")


def test_a_misspelt_constant_is_named_with_the_nearest():
    assert said_of(lambda: resolve(write_config("EMBED_DIMS = 64"))) == (
        'there is no setting "EMBED_DIMS" in config.py.\n'
        "hint: did you mean EMBED_DIM? `microformer train --help` lists them all."
    )


def test_a_setting_in_small_letters_is_not_silently_ignored():
    assert said_of(lambda: resolve(write_config("embed_dim = 64"))) == (
        "config.py sets 'embed_dim', which nothing reads.\nhint: settings are in capitals: EMBED_DIM."
    )


def test_a_config_file_may_reckon_with_names_of_its_own():
    config = write_config("import math\nwidth = 2 ** int(math.log2(70))\nembed_dim = width\nEMBED_DIM = embed_dim\n")

    assert resolve(config).model.embed_dim == 64


# -------------------------------------------------------------------------------------------- what can't be


def test_an_unknown_name_is_told_as_it_was_spelt_with_the_nearest():
    assert said_of(lambda: convert("lerning_rate", "1e-3")).endswith(
        "hint: did you mean --learning-rate? `microformer train --help` lists them all."
    )
    assert said_of(lambda: Settings().changed({"zzz": 1})) == (
        'there is no setting "zzz".\nhint: `microformer train --help` lists them all.'
    )


def test_heads_that_do_not_divide_the_width_are_told_the_way_out():
    assert said_of(lambda: resolve(None, {"embed_dim": 130})) == (
        "EMBED_DIM 130 can't be divided into 4 heads.\n"
        "hint: use a multiple of 4, such as 128 or 132, or set NUM_HEADS to 2, 5, 10 or 13."
    )


def test_every_way_out_that_is_named_can_be_taken():
    for changes in (
        {"embed_dim": 128},
        {"embed_dim": 132},
        *({"embed_dim": 130, "num_heads": n} for n in (2, 5, 10, 13)),
    ):
        resolve(None, changes)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("embed_dim", 64.0, "a whole number"),
        ("embed_dim", "64", "a whole number"),
        ("embed_dim", True, "a whole number"),
        ("embed_dim", None, "a whole number"),
        ("dropout", "0.1", "a number"),
        ("dropout", False, "a number"),
        ("dropout", math.nan, "a number"),
        ("epochs", math.inf, "a number"),
        ("epochs", 10**400, "a number"),
        ("learning_rate", "fast", 'a number or "auto"'),
        ("eval_every", 1.5, 'a whole number or "auto"'),
        ("eval_every", "often", 'a whole number or "auto"'),
        ("qk_norm", 1, "True or False"),
        ("qk_norm", "auto", "True or False"),
        ("attention", 3, "a word in quotes"),
        ("attention", ["softmax"], "a word in quotes"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(name, value, kind):
    assert said_of(lambda: Settings().changed({name: value})).startswith(f"{name.upper()} {value!r} is not {kind}.")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("embed_dim", 0, "EMBED_DIM 0 can't be: it must be from 1 to 65536."),
        ("embed_dim", 10**30, f"EMBED_DIM {10**30} can't be"),
        ("num_layers", 10**6, "NUM_LAYERS 1000000 can't be"),
        ("max_seq_len", 1, "MAX_SEQ_LEN 1 can't be"),
        ("max_seq_len", 2**40, "MAX_SEQ_LEN"),
        ("batch_size", -1, "BATCH_SIZE -1 can't be"),
        ("dropout", 1.0, "DROPOUT 1.0 can't be: it must be from 0 to 0.99."),
        ("val_fraction", 1.0, "VAL_FRACTION 1.0"),
        ("max_steps", -5, "MAX_STEPS -5 can't be: it must be 0 or more."),
        ("epochs", 1e300, "EPOCHS 1e+300 can't be"),
        ("seed", 2**63, "SEED"),
        ("threads", 0, "THREADS 0"),
        ("optimizer", "muom", "OPTIMIZER 'muom' is not known.\nhint: did you mean 'muon'? There are: muon, adamw."),
        ("trackers", "tensorbord wandb", "TRACKERS 'tensorbord' is not known.\nhint: did you mean 'tensorboard'?"),
        ("trackers", "", "TRACKERS '' is not known."),
        ("trackers", "none wandb", "TRACKERS 'none wandb' can't be.\nhint: name each once, or none alone."),
        ("trackers", "wandb wandb", "TRACKERS 'wandb wandb' can't be."),
        ("device", "tpu-v5", "DEVICE 'tpu-v5' is not known.\nhint: there are: auto, cpu, cuda, mps."),
        ("attention", "softmx", "ATTENTION 'softmx' is not known.\nhint: did you mean 'softmax'?"),
        ("feedforward", "gelu*3", "FEEDFORWARD 'gelu*3' describes 3 layers, and the model has 2."),
        ("positions", "rope(base=-1)", "POSITIONS has base -1"),
        ("norm", "", "NORM is empty."),
    ],
)
def test_a_value_out_of_range_is_refused(name, value, said):
    assert said_of(lambda: Settings().changed({name: value})).startswith(said)


def test_parts_that_do_not_divide_the_batch_are_refused():
    assert "BATCH_SIZE 32 can't be computed in 5 equal parts" in said_of(lambda: Settings().changed({"accumulate": 5}))


@pytest.mark.parametrize(
    ("name", "value", "other", "reader"),
    [
        ("vocab_size", 512, "tokenizer", "bpe"),
        ("momentum", 0.9, "optimizer", "muon"),
        ("decay", 0.2, "schedule", "wsd"),
    ],
)
def test_a_changed_setting_that_nothing_reads_is_an_error(name, value, other, reader):
    nobody = next(choice for choice in ("char", "adamw", "cosine") if choice in choices_of(other))

    said = said_of(lambda: Settings().changed({name: value, other: nobody}))
    assert said.startswith(
        f"{name.upper()} is set to {value!r}, and nothing reads it with {other.upper()} = {nobody!r}."
    )
    assert f"set {other.upper()} to {reader!r}" in said
    assert Settings().changed({name: value, other: reader}).flat()[name] == value


def choices_of(name):
    return next(field.metadata["choices"] for _, one, field in each_setting() if one == name)


def test_changes_are_judged_together_whatever_their_order():
    changes = {"embed_dim": 96, "num_heads": 3, "batch_size": 30, "accumulate": 5}

    for order in (list(changes), list(changes)[::-1]):
        assert Settings().changed({name: changes[name] for name in order}).model.num_heads == 3


# --------------------------------------------------------------------------------------------- words and values


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("embed_dim", "256", 256), ("epochs", "2", 2.0), ("epochs", "1e-1", 0.1), ("learning_rate", "auto", "auto"),
        ("learning_rate", "3e-4", 3e-4), ("eval_every", "auto", "auto"), ("eval_every", "50", 50),
        ("qk_norm", "false", False), ("qk_norm", "Yes", True), ("bias", "1", True), ("device", "auto", "auto"),
        ("attention", "softmax*2", "softmax*2"), ("corpus", "12", "12"),
    ],
)  # fmt: skip
def test_a_word_of_the_command_line_becomes_the_value_its_setting_wants(name, text, value):
    converted = convert(name, text)

    assert (converted, type(converted)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("embed_dim", "64.0", "a whole number"), ("embed_dim", "wide", "a whole number"),
        ("embed_dim", "", "a whole number"), ("embed_dim", "auto", "a whole number"), ("epochs", "many", "a number"),
        ("threads", "x", 'a whole number or "auto"'),
        ("qk_norm", "maybe", "True or False"), ("embed_dim", "9" * 5000, "a whole number"),
    ],
)  # fmt: skip
def test_a_word_that_is_no_such_value_is_refused(name, text, kind):
    assert f"is not {kind}." in said_of(lambda: convert(name, text))


# -------------------------------------------------------------------------------------------------- properties


def values_of(name, field):
    """Values that one setting takes."""
    kind, meta = (
        get_type_hints(next(group for group in GROUPS.values() if name in group.__annotations__))[name],
        field.metadata,
    )
    least, most = meta["least"], meta["most"]
    if meta["choices"]:
        return st.sampled_from(meta["choices"])
    if kind is bool:
        return st.booleans()
    if kind is str:
        return {
            "attention": st.sampled_from(["softmax", "softmax*2 topk(k=2)", "entmax15", "sigmoid sparsemax"]),
            "positions": st.sampled_from(["rope", "learned", "none", "alibi", "t5(8)", "rope(stretch=2.0)"]),
            "feedforward": st.sampled_from(["gelu", "relu2 swiglu", "geglu relu"]),
            "norm": st.sampled_from(["rmsnorm", "layernorm(eps=1e-05)"]),
            "memory": st.sampled_from(["none", "xl", "xl(3)", "compressive", "recurrent(2)", "tokens(2)", "knn(k=4)"]),
        }.get(name, st.text(min_size=1))
    number = (
        st.integers(least, most or 10**6)
        if kind is int or "int" in str(kind)
        else st.floats(least, 1000 if most is None else min(most, 1000))
    )
    return st.one_of(st.just("auto"), number) if "auto" in str(kind) else number


def sensible(values):
    """The same values made to fit each other."""
    heads = values["num_heads"] % 16 + 1
    values |= {"num_heads": heads, "embed_dim": 4 * heads * (values["embed_dim"] % 64 + 1), "num_layers": 6}
    values["num_kv_heads"] = "auto" if values["num_kv_heads"] == "auto" else math.gcd(heads, values["num_kv_heads"])
    if values["positions"] == "learned" and values["memory"].startswith(("xl", "compressive")):
        values["positions"] = "none"
    if values["memory"] not in ("none", "tokens(2)"):
        values |= {"compile": False, "data_order": "streams"}
    values["parallel"] = values["parallel"] and values["norm_placement"] != "post"
    values["accumulate"] = values["accumulate"] % 64 + 1
    values["batch_size"] = values["accumulate"] * (values["batch_size"] % 8 + 1)
    if values["schedule"] == "constant":
        values["final_rate"] = 0.0
    if not values["epochs"] and not values["max_steps"]:
        values["warmup"] %= 1
    values["diagnostics"] = values["diagnostics"] and values["probe_steps"] > 0
    for _, name, field in each_setting():
        other, readers = field.metadata["read_when"] or (name, (values[name],))
        if values[other] not in readers:
            values[name] = field.default
    return values


every_setting = st.fixed_dictionaries({name: values_of(name, field) for _, name, field in each_setting()})


@hypothesis.settings(deadline=None)
@given(every_setting.map(sensible))
def test_settings_come_back_whole_from_their_flat_form_and_through_json(values):
    settings = Settings().changed(values)

    assert settings.flat() == values
    assert Settings().changed(settings.flat()).flat() == values
    assert Settings().changed(json.loads(json.dumps(settings.flat()))).flat() == values
    assert settings.explicit == set(values)


@hypothesis.settings(deadline=None)
@given(
    st.sampled_from([name for _, name, _ in each_setting()]),
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())),
)
def test_any_value_at_all_is_taken_or_refused_in_a_sentence_that_names_the_setting(name, value):
    try:
        assert Settings().changed({name: value}).flat()[name] == value
    except SettingsError as error:
        told = str(error)
    else:
        told = name.upper()
    assert name.upper() in told


def test_the_model_that_settings_describe():
    settings = Settings().changed({"feedforward": "gelu swiglu", "num_layers": 3, "positions": "rope(base=500)"})

    spec = model_spec(settings, vocab_size=65, max_seq_len=40)

    assert (spec.vocab_size, spec.max_seq_len, spec.num_layers) == (65, 40, 3)
    assert [layer.feedforward for layer in spec.layers] == [Gelu(), Swiglu(), Gelu()]
    assert (spec.positions, spec.norm, spec.qk_norm) == (Rope(500.0), RMSNorm(), True)
    assert model_spec(settings, vocab_size=65).max_seq_len == 128


def test_reading_a_config_says_what_it_says_and_no_more():
    assert read_config(write_config("SEED = 5\nEPOCHS = 12.0")) == {"seed": 5, "epochs": 12.0}
    assert read_config(None) == {"seed": 5, "epochs": 12.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory": "xl", "data_order": "shuffled"}, "DATA_ORDER 'shuffled' has none"),
        ({"memory": "knn", "data_order": "shuffled"}, "DATA_ORDER 'shuffled' has none"),
        ({"memory": "xl", "positions": "learned"}, "end with the context"),
        ({"memory": "compressive", "positions": "sinusoidal"}, "end with the context"),
        ({"memory": "tokens", "attention": "linear"}, "linear attention keeps no keys"),
        ({"memory": "recurrent(8, segments=1)"}, "SEGMENTS 1 can't be"),
        ({"memory": "knn(4, 9)"}, "K 9 can't be"),
        ({"memory": "compressive(rate=1)"}, "RATE 1 can't be"),
        ({"memory": "xl*2"}, "names 2 components"),
        ({"memory": "xl", "compile": True}, "MEMORY xl grows"),
        ({"feedforward": "moe", "compile": True}, "moe's experts get more tokens or fewer"),
        ({"feedforward": "moe(2, 3)"}, "K 3 can't be"),
        ({"feedforward": "moe(balance=-1)"}, "balance -1"),
        ({"diagnostics": True, "probe_steps": 0}, "DIAGNOSTICS looks at the model every PROBE_STEPS steps"),
        ({"memory": "xl(100)", "attention": "window(300)"}, "wider than the context of 228 tokens"),
    ],
    ids=str,
)
def test_memories_and_experts_that_can_not_be_are_refused_when_settings_are_read(changes, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        Settings().changed(changes)


def test_a_memory_lets_a_window_reach_beyond_the_context_and_knn_goes_with_linear_attention():
    Settings().changed({"memory": "xl(200)", "attention": "window(300)"})
    Settings().changed({"memory": "knn", "attention": "linear"})
    Settings().changed({"memory": "recurrent", "positions": "learned"})

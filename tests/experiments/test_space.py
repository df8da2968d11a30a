"""A sweep's file: what it may say, and how a mistake in it is told."""

from pathlib import Path

import pytest

from microformer.errors import FileError, SettingsError
from microformer.experiments.space import Between, read_plan

GOOD = """[sweep]
method = "random"
trials = 7
seeds = 2
steps = 50
pruner = "median"

[space]
learning_rate = { low = 0.001, high = 0.1, log = true }
NUM_LAYERS = { low = 1, high = 4 }
attention = ["softmax", "window(64)*1 softmax"]
tie-embeddings = [true, false]
num_kv_heads = ["auto", 2]
weight_decay = { low = 0, high = 0.35, step = 0.1 }
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(text: str, *given):
    Path("sweep.toml").write_text(text, encoding="utf-8")
    return read_plan("sweep.toml", *given)


def refused(text: str, *given) -> tuple[str, str]:
    with pytest.raises(SettingsError) as told:
        plan(text, *given)
    return told.value.sentence, told.value.hint


def test_a_file_says_base_method_budget_and_space():
    Path("mine.py").write_text("EMBED_DIM = 64\nEPOCHS = 9.0\n", encoding="utf-8")

    found = plan('[sweep]\nbase = "mine.py"\n' + GOOD.removeprefix("[sweep]\n"))

    assert (found.method, found.trials, found.seeds, found.pruner, found.name) == ("random", 7, 2, "median", "sweep")
    assert found.base.model.embed_dim == 64
    assert (found.base.training.max_steps, found.base.training.epochs) == (
        50,
        0.0,
    )  # one budget, in place of the base's
    assert found.space == {
        "learning_rate": Between(0.001, 0.1, log=True),
        "num_layers": Between(1, 4),
        "attention": ("softmax", "window(64)*1 softmax"),
        "tie_embeddings": (True, False),
        "num_kv_heads": ("auto", 2),
        "weight_decay": Between(0.0, 0.3, step=0.1),  # what lies beyond the last step is never tried
    }
    assert plan(GOOD, 99, 3).trials == 99


def test_config_py_here_is_the_base_where_none_is_named():
    Path("config.py").write_text("EMBED_DIM = 48\nNUM_HEADS = 4\n", encoding="utf-8")

    assert plan(GOOD).base.model.embed_dim == 48


@pytest.mark.parametrize(
    ("before", "after", "line", "sentence", "hint"),
    [
        ("trials = 7", "trials = 7 8", 3, "is not TOML", "quotation marks"),
        ("trials = 7", "trials = softmax", 3, "is not TOML", "quotation marks"),
        ("trials = 7", 'trials = "7"', 3, 'trials "7" is not a whole number, 1 or more', "trials = 3"),
        ("trials = 7", "trials = true", 3, "trials true is not a whole number", "trials = 3"),
        ("trials = 7", "trails = 7", 3, 'there is no "trails" in [sweep]', "did you mean trials?"),
        ("trials = 7", "embed_dim = 7", 3, 'there is no "embed_dim" in [sweep]', "below [space]"),
        ('"random"', '"randm"', 2, 'method "randm" is not grid, random or tpe', "did you mean 'random'?"),
        ("steps = 50", "steps = 50\nminutes = 1", 6, "steps and minutes both", "leave one out"),
        ("steps = 50", 'base = "nowhere.py"', 5, "there is no config 'nowhere.py'", "ready ones"),
        ("learning_rate", "lerning_rate", 9, 'there is no setting "lerning_rate"', "did you mean learning_rate?"),
        ("learning_rate", "seed", 9, "a seed is luck", "seeds = 3"),
        ("learning_rate", "val_fraction", 9, "losses are of other texts", "set it in the base"),
        ("learning_rate", "max_steps", 9, "steps in [sweep] says already", "leave one out"),
        ("low = 0.001", "low = 0.1", 9, "learning_rate's low, 0.1, is not below its high, 0.1", "exchange them"),
        ("low = 0.001", "low = 0", 9, "low is 0, which has no logarithm", "above 0"),
        ("low = 0.001", 'low = "small"', 9, "LEARNING_RATE 'small' is not a number", "LEARNING_RATE is"),
        ("low = 0.001", "lwo = 0.001", 9, 'there is no "lwo" in a range', "did you mean low?"),
        ("low = 0.001, ", "", 9, "learning_rate has no low", "low ="),
        ("high = 0.1,", "high = 1000,", 9, "LEARNING_RATE 1000.0 can't be: it must be from 0 to 100", ""),
        ("log = true", "log = 1", 9, "log 1 is neither true nor false", "log = true"),
        ("log = true", "log = true, step = 0.1", 9, "both log and a step", "leave one out"),
        ("low = 1, high = 4", "low = 1, high = 4.5", 10, "NUM_LAYERS 4.5 is not a whole number", ""),
        ("low = 1, high = 4", "low = 1, high = 4, step = 0.5", 10, "step 0.5 is not a whole number", ""),
        ('["softmax", "window', '["sofmax", "window', 11, "ATTENTION 'sofmax' is not known", "did you mean 'softmax'?"),
        ('["softmax", "window', '["softmax", "softmax", "window', 11, 'attention has "softmax" twice', "leave one out"),
        ("[true, false]", "[true, 1]", 12, "TIE_EMBEDDINGS 1 is not True or False", ""),
        ("[true, false]", "[[true]]", 12, "[True] is no value of a setting", ""),
        ("[true, false]", "[]", 12, "tie-embeddings has no choices", "[first, second]"),
        ("[true, false]", "true", 12, "tie-embeddings true is neither choices nor a range", "[first, second]"),
        ("[true, false]", "{ low = false, high = true }", 12, "TIE_EMBEDDINGS is no number", "list it"),
        ("tie-embeddings", "num-layers", 12, "num-layers is there twice", "leave one out"),
        ("[space]", "[spice]", 8, "there is no [spice]", "[sweep] and [space]"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(before, after, line, sentence, hint):
    assert before in GOOD

    told = refused(GOOD.replace(before, after, 1))

    assert told[0].startswith(f"sweep.toml, line {line}")
    assert sentence in told[0]
    assert hint in told[1]


def test_a_file_that_ends_too_soon_has_its_last_line_and_one_that_is_not_there_its_name():
    assert refused("[space]\nnum_layers = [1, 2\n")[0].startswith("sweep.toml, line 2, is not TOML: ")
    assert refused("[sweep]\ntrials = 3\n")[0] == "sweep.toml: there is nothing to look for."
    with pytest.raises(FileError, match=r"nowhere\.toml"):
        read_plan("nowhere.toml")


def test_tables_of_their_own_and_dotted_keys_have_their_lines_too():
    nested = "[space.learning_rate]\nlow = 0.1\nhigh = 0.01\n"
    dotted = 'about = """\nlearning_rate = 3\n"""\nspace.learning_rate.low = 0.1\nspace.learning_rate.high = 0.01\n'

    assert refused(nested)[0].startswith("sweep.toml, line 1: learning_rate's low")
    assert refused(dotted)[0].startswith("sweep.toml, line 1: there is no [about]")
    assert refused(dotted.split('"""\n', 2)[2])[0].startswith("sweep.toml, line 1: learning_rate's low")


def test_a_grid_knows_its_cells_and_each_is_there_once():
    found = plan(
        '[sweep]\nmethod = "grid"\n[space]\noptimizer = ["muon", "adamw"]\nmomentum = [0.9, 0.95]\n'
        "num_layers = { low = 1, high = 2 }\n"
    )

    # AdamW reads no momentum: its cells are told apart by the layers alone.
    assert found.trials == 6
    assert found.cells() == [
        {"optimizer": "muon", "momentum": 0.9, "num_layers": 1},
        {"optimizer": "muon", "momentum": 0.9, "num_layers": 2},
        {"optimizer": "muon", "momentum": 0.95, "num_layers": 1},
        {"optimizer": "muon", "momentum": 0.95, "num_layers": 2},
        {"optimizer": "adamw", "num_layers": 1},
        {"optimizer": "adamw", "num_layers": 2},
    ]


@pytest.mark.parametrize(
    ("more", "given", "line", "sentence"),
    [
        ("learning_rate = { low = 0.1, high = 0.2 }", (), 4, "a grid can't go through all numbers between 0.1 and 0.2"),
        (
            "num_layers = { low = 1, high = 8, log = true }",
            (),
            4,
            "a grid can't go through all numbers between 1",
        ),
        ("num_layers = [1, 2]", (5,), 1, "nothing reads how many trials"),
        ("max_seq_len = { low = 2, high = 900 }\nembed_dim = { low = 1, high = 900 }", (), 3, "this grid has 809,100"),
    ],
)
def test_what_no_grid_can_go_through_is_refused(more, given, line, sentence):
    told = refused(f'[sweep]\nmethod = "grid"\n[space]\n{more}\n', *given)

    assert told[0].startswith(f"sweep.toml, line {line}")
    assert sentence in told[0]


def test_numbers_are_tried_with_four_digits_and_stay_within_their_range():
    rates = Between(0.0012346, 0.0123456, log=True)

    assert rates.taken(0.00555555) == 0.005556
    assert rates.taken(0.0012346) == 0.001235
    assert Between(0.0012344, 1.0).taken(0.0012344) == 0.0012344  # 0.001234 would be below
    assert rates.taken(0.0123456) == 0.0123456  # 0.01235 would be above
    assert Between(0.0, 1.0, step=0.1).cells() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert Between(2, 9, step=3).cells() == [2, 5, 8]

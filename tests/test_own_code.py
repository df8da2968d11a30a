"""Components of the user's own: written from the docs, checked, trained, resumed; refused where they must be."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from small_runs import TINY, book, command, info, resume, rows, stopped_at, train, without_picture_and_sample

from microformer import evaluate, generate, load_run, own_code, pipeline, runs, templates
from microformer.errors import CodeError, SettingsError
from microformer.experiments import Arm, train_all
from microformer.models.grammar import Own
from microformer.settings import Settings, model_spec
from microformer.training.loop import Loop

DOCS = Path(__file__).parent.parent / "docs"
SOFTMAX = """\
import torch

from microformer.models.kernels import Kernel


class Mine(Kernel):
    def pattern(self, scores):
        return torch.softmax(scores, dim=-1)
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder with a book, and a list of trusted files of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(own_code, "trusted", lambda: tmp_path / "home" / "microformer" / "trusted")
    Path("book.txt").write_text(book())
    without_picture_and_sample(monkeypatch)
    return tmp_path


def written(text, name="mine.py") -> Path:
    Path(name).write_text(text, encoding="utf-8")
    return Path(name)


def error(capsys) -> str:
    return capsys.readouterr().err


def weights(run):
    return safetensors.torch.load_file(runs.find(run).checkpoint("last") / "model.safetensors")


def assert_same_run(one, other):
    first, second = weights(one), weights(other)
    assert rows(one) == rows(other)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def on_another_machine(monkeypatch):
    """The list of trusted files is another, empty one, and nothing was run yet."""
    for name in [name for name in sys.modules if name.startswith("own_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(own_code, "trusted", lambda: Path("another home"))


# ----------------------------------------------------------------------------------------------------- from the docs


def from_the_docs() -> str:
    """The attention that docs/own.md writes."""
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / "own.md").read_text(encoding="utf-8"), re.M | re.S)
    return next(block for block in blocks if block.startswith("# my_attention.py"))


def test_an_attention_of_20_lines_from_the_docs_is_checked_trained_and_resumed_to_the_same_bits(capsys):
    assert len(written(from_the_docs(), "my_attention.py").read_text().splitlines()) <= 20
    assert command("check", "my_attention.py:Squared(floor=2)", "--lengths", "none") == 0
    assert "all contracts kept" in capsys.readouterr().out

    Path("config.py").write_text('ATTENTION = "my_attention.py:Squared(floor=2) softmax"\n')
    sizes = {"num_layers": 2, "eval_every": 5}
    assert train("--run", "whole", max_steps=20, **sizes) == 0
    assert train("--run", "parts", max_steps=10, **sizes) == 0
    assert resume("--run", "parts", max_steps=20) == 0
    assert info("whole")["model"]["layers"][0]["attention"] == {
        "kind": "own", "file": "my_attention.py", "name": "Squared", "arguments": {"floor": 2},
    }  # fmt: skip
    assert info("whole")["model"]["layers"][1]["attention"] == {"kind": "softmax"}
    assert info("parts")["ended"]["step"] == 20
    assert train("--run", "again", max_steps=20, **sizes) == 0
    assert_same_run("whole", "again")


def test_the_forward_that_the_docs_write_out_is_the_kernels_own(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / "own.md").read_text(encoding="utf-8"), re.M | re.S)
    whole = next(block for block in blocks if "def forward" in block)
    written("from microformer.models.kernels import Kernel\n\n\n" + whole)

    assert command("check", "mine.py:Mine", "--lengths", "none") == 0
    assert "all contracts kept" in capsys.readouterr().out


def test_the_shortest_context_is_tried_too():
    written(SOFTMAX)
    assert train("--run", "r", attention="mine.py:Mine", max_seq_len=2, max_steps=3) == 0


def test_a_run_that_was_stopped_goes_on_with_its_own_copy_to_the_same_bits(monkeypatch):
    written(SOFTMAX)
    assert train("--run", "whole", attention="mine.py:Mine") == 0
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", stopped_at(7))
        assert train("--run", "cut", attention="mine.py:Mine") == 130
    Path("mine.py").unlink()

    assert resume("--run", "cut") == 0

    assert_same_run("whole", "cut")


def test_who_goes_on_after_a_change_of_the_file_is_told_that_the_run_keeps_its_copy(capsys):
    written(SOFTMAX)
    train("--run", "r", attention="mine.py:Mine")
    assert resume("--run", "r", max_steps=14) == 0
    assert "has changed" not in error(capsys)
    written(SOFTMAX + "\n# another\n")
    assert resume("--run", "r", max_steps=16) == 0
    assert "mine.py has changed, and the run 'r' goes on with its own copy" in error(capsys)


def test_an_own_softmax_trains_as_the_built_in_one_does():
    written(SOFTMAX)
    train("--run", "own", attention="mine.py:Mine")
    train("--run", "built-in")

    losses = [[row["train_loss"] for row in rows(run) if "train_loss" in row] for run in ("own", "built-in")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert own_code.bound(load_run("own").spec, load_run("own").code).own[0][1].loaded.__name__ == "Mine"


# --------------------------------------------------------------------------------------------- the starts, every slot


@pytest.mark.parametrize("slot", templates.SLOTS)
def test_the_start_of_every_slot_is_short_keeps_every_contract_and_trains(slot, capsys):
    assert command("new", slot, "my_idea.py") == 0
    assert "microformer check my_idea.py:MyIdea" in capsys.readouterr().out
    assert len(Path("my_idea.py").read_text(encoding="utf-8").splitlines()) <= 45
    assert command("check", "my_idea.py:MyIdea", "--lengths", "none") == 0
    given = {slot: "my_idea.py:MyIdea", "max_steps": 6} | ({"learning_rate": 0.003} if slot == "optimizer" else {})
    assert train("--run", "r", **given) == 0

    Path("my_idea.py").unlink()
    shutil.rmtree("data")
    assert generate(load_run("r"), "The ", max_new_tokens=30).startswith("The ")
    assert evaluate(load_run("r"), text="The cat sat on a mat.")["tokens"] == 20
    assert list(info("r")["code"]) == ["my_idea.py"]


def test_a_start_is_not_written_over_a_file_nor_under_a_name_that_no_class_could_have(capsys):
    written("mine")
    assert command("new", "attention", "mine.py") == 2
    assert "mine.py is there already" in error(capsys)
    assert Path("mine.py").read_text() == "mine"
    for slot, name, said in (
        ("atention", "a.py", "did you mean attention?"), ("norm", "a.txt", "is no name"),
        ("norm", "2.py", "is no name"), ("norm", "my norm.py", "is no name"),
    ):  # fmt: skip
        assert command("new", slot, name) == 2
        assert said in error(capsys)
        assert not Path(name).exists()


# ------------------------------------------------------------------------------------------------------- half-written


NORM = """\
import torch

from microformer.models.norms import Norm


class Mine(Norm):
    def __init__(self, model):
        super().__init__()
        {init}

    def forward(self, x):
        {forward}
"""
ATTENDS = """\
    def forward(self, q, k, v, order, state, tap):
        k, v, state = self.remember(k, v, state)
        {first}
        return {z}, state

    def pattern"""


def attends(first: str, z: str = "self.as_written(q, k, v, self.added(order), tap)") -> str:
    return SOFTMAX.replace("    def pattern", ATTENDS.format(first=first, z=z))


# What would be no error of Python's, and is wrong all the same: the component, its slot, and what is said.
SILENT = {
    "what it keeps is in no checkpoint": (
        NORM.format(init="self.norm = torch.nn.BatchNorm1d(model.embed_dim, affine=False)",
                    forward="return self.norm(x.mT).mT"), "norm", "in training",
    ),
    "a count in an attribute": (
        NORM.format(init="self.used = 0", forward="self.used += self.training; return x / (1 + self.used)"), "norm",
        "a training pass changed what the next one gives: what it keeps besides parameters is in no checkpoint",
    ),
    "a look ahead in training alone": (
        attends("if self.training: return (q @ k.mT).softmax(-1) @ v, state"), "attention",
        "leaks into earlier positions in training",
    ),
    "a look ahead in long texts alone": (
        attends("v = v - v.mean(2, keepdim=True) / 2 if q.shape[2] > 40 else v"), "attention", "token 32 leaks into",
    ),
    "a change in place": (NORM.format(init="pass", forward="x -= x.mean(-1, keepdim=True); return x"), "norm",
                          "Mine changes what it is given in place"),
    "no mask for a token alone": (
        attends("s = (q @ k.mT + self.added(order))", "s.softmax(-1) @ v"), "attention", "NoneType",
    ),
    "a parameter without a role": (
        NORM.format(init="self.norm = torch.nn.LayerNorm(model.embed_dim)", forward="return self.norm(x)"), "norm",
        "has no role",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SILENT)
def test_what_is_wrong_without_an_error_is_found_before_a_training_and_by_a_check(what, capsys):
    text, slot, said = SILENT[what]
    written(text)

    assert train("--run", "r", max_seq_len=64, **{slot: "mine.py:Mine"}) == 2
    assert said in error(capsys)
    assert not Path("runs").exists()
    assert command("check", "mine.py:Mine", "--lengths", "none") in (1, 2)
    shown = capsys.readouterr()
    assert said.replace("token 32", "token 1") in re.sub(r"\s+", " ", shown.out + shown.err)


def test_an_attention_that_drops_nothing_is_found_by_a_check(capsys):
    written(attends("s = self.patterns(q, k, self.added(order), tap)", 'tap("hook_pattern", s) @ v'))

    assert command("check", "mine.py:Mine", "--lengths", "none", "--json") == 1

    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["detail"].split(" [")[0] for row in rows if not row["kept"]] == [
        "Mine does the same with ATTENTION_DROPOUT and without: self.dropped(pattern) is for it, or scores = False for "
        "an attention without"
    ]


def test_an_optimizer_is_tried_before_a_training(capsys):
    command("new", "optimizer", "lion.py")
    text = Path("lion.py").read_text(encoding="utf-8")
    forgetful = text.replace("    mean.lerp_", '    self.state[one]["n"] = 1\n                mean.lerp_')
    for wrong, said in (
        (text.replace("super().__init__(params, lr=lr, weight_decay=0.0)", "pass"), "has no attribute 'param_groups'"),
        (text.replace('alpha=-group["lr"]', "alpha=-0.01"), "At a rate of 0 nothing moves; but"),
        (forgetful, "a checkpoint keeps tensors"),
    ):
        Path("lion.py").write_text(wrong, "utf-8")
        assert train(optimizer="lion.py:Lion", learning_rate=0.001) == 2
        assert said in error(capsys)
        assert not Path("runs").exists()


def test_own_positions_that_are_added_end_with_the_context(capsys):
    written("""\
from microformer.models.linear import Embedding
from microformer.models.positions import PositionKind


class Mine(PositionKind):
    def __init__(self, model):
        super().__init__()
        self.table = Embedding(model.max_seq_len, model.embed_dim, std=0.1)

    def embed(self, position):
        return self.table(position.clamp_min(0))
""")

    assert command("check", "mine.py:Mine", "--lengths", "none") == 0
    assert "refused in one with a memory that is carried" in capsys.readouterr().out
    assert train(positions="mine.py:Mine", memory="xl(8)") == 2
    assert "this memory reaches beyond it" in error(capsys)


BROKEN = {
    "the end of the program": ("raise SystemExit(3)\n", "mine.py ends the program while it is run: SystemExit(3)"),
    "a mistake of grammar": ("class Mine(:\n    pass\n", "mine.py, line 1: "),
    "a name that is not there": ("x = 1\nclass Mine(Kernel):\n    pass\n", "mine.py, line 2: NameError"),
    "an error while it is run": ("\n\nraise ValueError('not\\ntoday')\n", "mine.py, line 3: ValueError: not."),
    "no such class": ("class Min:\n    pass\n", "mine.py has no class 'Mine'.\nhint: did you mean Min?"),
    "of no slot": ("class Mine:\n    pass\n", "mine.py, line 1: Mine is no Kernel.\nhint: from microformer.models."),
    "imported, not its own": ("from microformer.models.kernels import Softmax as Mine\n", "has no class 'Mine'"),
    "another file": ("import torch\nimport helpers.more\n", "mine.py, line 2: 'helpers.more' can't be imported"),
    "a file beside it": ("def f():\n    from . import helpers\n", "mine.py, line 2: '.' can't be imported"),
    "nothing said": (
        SOFTMAX.replace("pattern", "patern"), "mine.py, line 6 (Mine): NotImplementedError: a kernel says what",
    ),
    "an error in its code": (
        SOFTMAX.replace("torch.softmax(scores", "torch.softmax(scores + torch.zeros(3, 5)"),
        "mine.py, line 8: RuntimeError: The size of tensor",
    ),
    "another shape": (
        SOFTMAX.replace("    def pattern", "    def forward(self, *given):\n"
        "        z, state = super().forward(*given)\n        return z.mT, state\n\n    def pattern"),
        "mine.py, line 6 (Mine) breaks a contract: Every part gives what its slot asks for",
    ),
    "arguments it doesn't take": (SOFTMAX, "mine.py, line 6 (Mine): TypeError: "),
    "a parameter without a role": (
        SOFTMAX.replace("    def pattern", "    def __init__(self, model):\n        super().__init__(model)\n"
        "        self.w = torch.nn.Linear(2, 2)\n\n    def pattern"),
        "mine.py, line 6 (Mine): Linear's parameter 'weight', of shape [2, 2], has no role.",
    ),
    "a parameter that nothing reads": (
        SOFTMAX.replace("    def pattern", "    roles = {'w': 'gain'}\n\n    def __init__(self, model):\n"
        "        super().__init__(model)\n        self.w = torch.nn.Parameter(torch.ones(1))\n\n    def pattern"),
        "breaks a contract: Every parameter gets a finite gradient that is not all zero; but none reaches",
    ),
    "a look ahead": (
        SOFTMAX.replace("scores, dim", "scores.nan_to_num(neginf=0), dim"),
        "mine.py, line 6 (Mine) breaks a contract: Changing a later token never changes an earlier logit; but token 8 "
        "leaks into 8 earlier positions, 0 the first",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_half_written_is_told_with_file_and_line_before_time_goes_into_anything(what, capsys):
    text, said = BROKEN[what]
    written(text)
    named = "mine.py:Mine(width=3)" if what == "arguments it doesn't take" else "mine.py:Mine"

    assert train("--run", "r", attention=named) == 2

    told = error(capsys)
    assert said in told
    assert "Traceback" not in told
    assert not Path("data").exists()
    assert not Path("runs").exists()


def test_a_file_that_is_missing_is_named_with_the_nearest(capsys):
    written(SOFTMAX, "my_attention.py")
    assert train(attention="my_atention.py:Mine") == 2
    assert "did you mean my_attention.py?" in error(capsys)


def test_an_error_that_comes_in_the_middle_of_a_training_has_its_line_and_leaves_the_run_to_be_read(capsys):
    written(
        SOFTMAX.replace(
            "    def pattern(self, scores):",
            """\
    def pattern(self, scores):
        if self.training and scores.shape[0] == 4 and (seen := globals().get("seen", 0)) > 60:
            raise ArithmeticError("enough")
        globals()["seen"] = globals().get("seen", 0) + 1""",
        )
    )

    assert train("--run", "r", attention="mine.py:Mine", max_steps=200, checkpoint_every=5) == 2

    assert f"{Path('runs/r/code/mine.py')}, line 9: ArithmeticError: enough." in error(capsys)
    assert load_run("r", checkpoint="last").model.num_parameters() > 0


def test_two_files_of_one_name_that_differ_are_refused_and_two_alike_are_one(capsys):
    for folder, text in (("a", SOFTMAX), ("b", SOFTMAX + "\n# another\n"), ("c", SOFTMAX)):
        Path(folder).mkdir()
        written(text, f"{folder}/mine.py")

    assert train(attention="a/mine.py:Mine b/mine.py:Mine", num_layers=2) == 2
    assert "have one name" in error(capsys)
    assert train("--run", "r", attention="a/mine.py:Mine c/mine.py:Mine", num_layers=2) == 0
    assert list(info("r")["code"]) == ["mine.py"]


def test_what_a_component_declares_of_itself_is_held_to_the_rest_of_the_settings(capsys):
    written(SOFTMAX.replace("    def", "    scores = False\n    keeps_keys = False\n\n    def"))
    for given, said in (
        ({"positions": "alibi"}, "Mine has no scores that a position's bias could be added to"),
        ({"score_cap": 5.0}, "SCORE_CAP is read by no layer: Mine makes no pattern"),
        ({"memory": "xl(8)"}, "Mine keeps no keys that a memory could hold on to"),
    ):
        assert train(attention="mine.py:Mine", **given) == 2
        assert said in error(capsys)

    command("new", "memory", "keep.py")
    for given, said in (
        ({"data_order": "shuffled"}, "MEMORY keep.py:Keep goes over"), ({"compile": "true"}, "COMPILE wants"),
        ({"positions": "learned"}, "end with the context"),
    ):  # fmt: skip
        assert train(memory="keep.py:Keep", **given) == 2
        assert said in error(capsys)


@pytest.mark.parametrize("between", ["return state", "pass", "return state.next_segment(state.layers), None"])
def test_a_memory_that_begins_no_segment_is_refused_and_does_not_go_on_for_ever(between, capsys):
    written(f"""\
from microformer.models.memory import Memory


class Mine(Memory):
    carries = True

    def __init__(self, model):
        super().__init__()

    def between(self, state, written):
        {between}
""")
    for words in (["train", "--corpus", "book.txt", "--memory", "mine.py:Mine"], ["check", "mine.py:Mine"]):
        assert command(*words) == 2
        assert "mine.py, line 4 (Mine): Mine.between begins no segment." in error(capsys)


def test_an_optimizer_of_ones_own_wants_a_rate_and_a_schedule_keeps_to_shares(capsys):
    command("new", "optimizer", "lion.py")
    capsys.readouterr()
    assert train(optimizer="lion.py:Lion") == 2
    assert "LEARNING_RATE 'auto' is known for muon and adamw, and not for lion.py:Lion." in error(capsys)
    assert train(optimizer="lion.py:Lion", learning_rate=0.001, momentum=0.9) == 2
    assert "nothing reads it with OPTIMIZER" in error(capsys)
    written("from microformer.training.schedules import Schedule\n\n\nclass Mine(Schedule):\n"
            "    def share(self, progress):\n        return 2 * progress\n")  # fmt: skip
    assert train(schedule="mine.py:Mine") == 2
    assert "mine.py, line 4 (Mine) breaks a contract: At every moment" in error(capsys)
    assert train(schedule="lion.py:Lion") == 2
    assert "Lion is no Schedule" in error(capsys)


def test_an_optimizer_for_matrices_alone_leaves_the_rest_to_adamw_and_resumes_to_the_same_bits(monkeypatch):
    command("new", "optimizer", "lion.py")
    path = Path("lion.py")
    path.write_text(path.read_text(encoding="utf-8").replace("only_matrices = False", "only_matrices = True"), "utf-8")
    given = {"optimizer": "lion.py:Lion(beta=0.8)", "learning_rate": 0.002}
    assert train("--run", "whole", **given) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", stopped_at(7))
        assert train("--run", "cut", **given) == 130

    assert resume("--run", "cut") == 0

    assert_same_run("whole", "cut")
    kept = safetensors.torch.load_file(runs.find("cut").checkpoint("last") / "training.safetensors")
    assert {name.rsplit("/", 1)[1] for name in kept if "/" in name} >= {"mean", "exp_avg"}


# -------------------------------------------------------------------------------------------------------------- trust


def test_code_that_came_with_a_run_is_run_only_where_it_is_trusted(monkeypatch, capsys):
    written(SOFTMAX + "\nopen('was_run', 'a').close()\n")
    train("--run", "r", attention="mine.py:Mine")
    Path("mine.py").unlink()
    Path("was_run").unlink()
    on_another_machine(monkeypatch)

    for words in (
        ["generate", "r", "--prompt", "The "], ["eval", "r"], ["train", "--resume", "--run", "r", "--max-steps", "14"],
        ["train", "--config", "runs/r/run.json", "--run", "again"],
    ):  # fmt: skip
        assert command(*words) == 2
        said = error(capsys)
        assert "the run 'r' has code of its own, mine.py, that nothing was trained with on this machine" in said
        assert f"read {Path('runs/r/code/mine.py')} first" in said
    for reading in (lambda: load_run("r").model, lambda: load_run("r").spec):
        with pytest.raises(CodeError):
            reading()
    assert load_run("r").tokenizer.vocab_size == info("r")["model"]["vocab_size"]
    assert command("runs") == 0
    assert not Path("was_run").exists()

    assert command("generate", "r", "--prompt", "The ", "--trust-code", "--max-new-tokens", "5") == 0
    assert load_run("r", trust_code=True).model.num_parameters() > 0
    assert Path("was_run").exists()
    assert command("generate", "r", "--prompt", "The ") == 2  # to trust once is not to trust always


def test_what_only_trained_a_model_need_not_be_trusted_to_use_it(monkeypatch, capsys):
    command("new", "schedule", "fall.py")
    train("--run", "r", schedule="fall.py:Fall")
    on_another_machine(monkeypatch)

    assert command("generate", "r", "--prompt", "The ", "--max-new-tokens", "5") == 0
    assert command("eval", "r") == 0
    assert command("train", "--resume", "--run", "r", "--max-steps", "14") == 2
    assert "has code of its own" in error(capsys)


def test_who_trains_with_it_has_trusted_it(monkeypatch):
    written(SOFTMAX)
    train("--run", "r", attention="mine.py:Mine")
    on_another_machine(monkeypatch)

    assert command("train", "--resume", "--run", "r", "--max-steps", "14", "--trust-code") == 0
    assert command("eval", "r") == 0


def test_a_copy_that_was_changed_or_lost_is_refused_trusted_or_not(capsys):
    written(SOFTMAX)
    train("--run", "r", attention="mine.py:Mine")
    copy = Path("runs/r/code/mine.py")
    copy.write_text(SOFTMAX + "\nopen('was_run', 'a').close()\n")
    assert command("eval", "r", "--trust-code") == 2
    assert f"{copy} is not the code that the run 'r' was trained with" in error(capsys)

    stranger = info("r")
    stranger["code"] = {"mine.py": own_code.read([Own(str(copy), "")]).hashes["mine.py"]}
    Path("runs/r/run.json").write_text(json.dumps(stranger))
    assert command("eval", "r") == 2  # nothing in the folder can vouch for itself
    assert "that nothing was trained with" in error(capsys)
    copy.unlink()
    assert command("eval", "r", "--trust-code") == 2
    assert "there is no such file" in error(capsys)
    assert not Path("was_run").exists()

    written(SOFTMAX, str(copy))
    model = json.dumps(stranger["model"]).replace('"arguments": {}', '"arguments": {"x": [1]}')
    for damage in (
        {"code": {}}, {"code": "mine.py"}, {"code": {"../../mine.py": "0"}}, {"code": {str(copy.absolute()): "0"}},
        {"model": json.loads(model)},
    ):  # fmt: skip
        Path("runs/r/run.json").write_text(json.dumps({**stranger, **damage}))
        assert command("eval", "r", "--trust-code") == 2


def test_a_run_is_repeated_with_its_own_copy_whatever_became_of_the_file():
    written(SOFTMAX)
    train("--run", "r", attention="mine.py:Mine")
    written("raise SystemExit('another file')\n")

    assert command("train", "--config", "runs/r/run.json", "--run", "again") == 0
    assert_same_run("r", "again")
    written(SOFTMAX.replace("class Mine", "class Other"), "other.py")
    assert command("train", "--config", "runs/r/run.json", "--run", "o", "--attention", "other.py:Other") == 0
    assert list(info("o")["code"]) == ["other.py"]


def test_a_comparison_trains_anew_once_the_file_has_changed():
    base = Settings().changed({**TINY, "corpus": "book.txt", "max_steps": 4, "epochs": 0.0})
    arms = (Arm("base"), Arm("mine", {"attention": "mine.py:Mine"}))
    with pytest.raises(CodeError, match="there is no such file"):
        train_all(base, arms, [1])
    assert not Path("runs").exists()

    written(SOFTMAX)
    first, again = train_all(base, arms, [1]), train_all(base, arms, [1])
    written(SOFTMAX.replace("softmax(scores", "softmax(2 * scores"))
    changed = train_all(base, arms, [1])

    assert [cell.reused for cell in first + again + changed] == [False, False, True, True, True, False]
    assert first[1].failed is None
    assert changed[1].loss != first[1].loss


# -------------------------------------------------------------------------------------------------------------- check


def test_a_check_names_what_is_broken_and_in_which_model(capsys):
    # It sees one token ahead, and drops the positions' bias.
    written(
        SOFTMAX.replace(
            "    def pattern",
            """\
    def forward(self, q, k, v, order, state, tap):
        k, v, state = self.remember(k, v, state)
        ahead = order.where.key[None, :] > order.where.query[:, None] + 1 if order.where.key.dim() == 1 else None
        mask = None if ahead is None else torch.zeros(ahead.shape).masked_fill(ahead, float("-inf"))
        return self.as_written(q, k, v, mask, tap), state

    def pattern""",
        )
    )

    assert command("check", "mine.py:Mine", "--lengths", "none") == 1

    said = capsys.readouterr().out
    assert re.search(r"BROKEN +Changing a later token never changes an earlier logit", said)
    assert "token 1 leaks into position 0 (and so on, 11 of 11 tokens) [the default]" in said
    assert "Mine does the same with POSITIONS = 'alibi' and without" in said
    assert "contracts broken" in said


def test_a_check_that_breaks_in_one_model_alone_says_in_which(capsys):
    written(
        SOFTMAX.replace(
            "    def pattern(self, scores):",
            """\
    def pattern(self, scores):
        if scores.shape[-1] > 20:
            scores = scores.flip(-1)""",
        )
    )

    assert command("check", "mine.py:Mine", "--lengths", "none", "--json") == 1

    found = json.loads(capsys.readouterr().out)
    row = next(row for row in found["rows"] if row["contract"].startswith("Changing a later token"))
    assert "[a longer text, one layer]" in row["detail"]
    assert not row["kept"]
    assert not found["kept"]
    assert found["slot"] == "attention"
    assert len(found["models"]) == 8


def test_a_check_says_what_a_component_costs_beside_the_default(capsys):
    written(SOFTMAX)

    assert command("check", "mine.py:Mine", "--lengths", "16,300", "--json") == 0

    found = json.loads(capsys.readouterr().out)
    assert [cost["length"] for cost in found["costs"]] == [16, 300]
    assert (
        found["costs"][1]["mb"] > 1.2 * found["costs"][1]["mb_default"]
    )  # all of its scores, which the fused road has not
    assert all(cost["ms"] > 0 and cost["ms_default"] > 0 for cost in found["costs"])


def test_what_can_not_be_checked_is_refused(capsys):
    written("class Mine:\n    pass\n")
    for named, said in (
        ("mine.py:Mine", "mine.py, line 1: Mine is of no slot"), ("softmax", "names no class in a file"),
        ("mine.py", "can't be read"), ("mine.py:Mine(3)", "write each by its name"), ("no.py:A", "no such file"),
    ):  # fmt: skip
        assert command("check", named) == 2
        assert said in error(capsys)


def test_a_check_of_a_broken_optimizer_and_a_broken_schedule_finds_it(capsys):
    command("new", "optimizer", "lion.py")
    path = Path("lion.py")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("self.state[one].setdefault", "self.means.setdefault").replace(
        "self.beta, self.gamma =", "self.means = {}\n        self.beta, self.gamma ="
    ).replace('.setdefault("mean"', ".setdefault(one"), "utf-8")  # fmt: skip
    capsys.readouterr()
    assert command("check", "lion.py:Lion", "--lengths", "none") == 1
    assert "is all that it remembers in self.state?" in capsys.readouterr().out

    written("import random\nfrom microformer.training.schedules import Schedule\n\n\nclass Mine(Schedule):\n"
            "    def share(self, progress):\n        return random.random()\n")  # fmt: skip
    assert command("check", "mine.py:Mine") == 1
    assert "does not depend on what was asked before" in capsys.readouterr().out


def test_from_python_a_check_is_a_value():
    written(SOFTMAX)

    found = pipeline.check("mine.py:Mine", lengths=())

    assert found.kept
    assert found.slot == "attention"
    assert found.costs == ()


def test_a_component_that_was_not_loaded_can_not_be_built():
    spec = model_spec(Settings().changed({"attention": "mine.py:Mine"}), vocab_size=5)

    with pytest.raises(SettingsError, match="was not loaded"):
        spec.own[0][1].build(spec)

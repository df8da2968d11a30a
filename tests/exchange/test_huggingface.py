"""To Hugging Face and back: what transformers loads is this model, and what comes back is it to the bit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from small_runs import book, command, flags, info, train, without_checks, without_picture_and_sample
from their_models import original
from torch.testing import assert_close

from microformer import load_run

TEXT = book() + "Été, naïve façade — 漢字 🙂\n\n\tand  two   spaces; (what?) DON'T\n"
AWKWARD = ["Été 漢字🙂", "  two   spaces\t\n\n", "DON'T (what?) — the cat", "\n", "a"]

# The default, and one of each kind that transformers has.
KINDS = {
    "Qwen3": {},
    "Llama": {"qk_norm": False, "num_kv_heads": 1, "positions": "rope(base=700)", "norm": "rmsnorm(eps=0.001)"},
    "GPT2": {"config": "nanogpt"},
    "OpenAIGPT": {"config": "gpt1", "ff_dim": 64},
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_picture_and_sample(monkeypatch)
    Path("book.txt").write_text(TEXT, "utf-8")
    return tmp_path


def trained(run="one", config=None, **given):
    words = ["--config", config] if config else []
    # A rate at which what begins at 0 is something after a few steps.
    settings = {"tokenizer": "char", "learning_rate": 0.05, "max_steps": 20, "warmup": 0.0, "accumulate": 1, **given}
    assert train("--run", run, *words, **settings) == 0
    return load_run(run)


def same_logits(run, theirs, within=1e-5):
    ids = torch.randint(0, run.spec.vocab_size, (2, run.spec.max_seq_len), generator=torch.Generator().manual_seed(3))
    ours = run.model(ids).logits
    assert ours.std() > 0.1  # or any two would be equal
    assert_close(theirs(ids).logits, ours, rtol=0, atol=within)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_loads_what_was_exported_with_the_same_logits_and_it_comes_back_to_the_bit(kind, here):
    run = trained(**KINDS[kind])

    assert command("export", "one", "--to", "huggingface", "--output", "first") == 0
    assert command("import", "first", "--run", "back") == 0
    assert command("export", "back", "--to", "huggingface", "--output", "second") == 0

    theirs = transformers.AutoModelForCausalLM.from_pretrained("first")
    assert type(theirs).__name__.startswith(kind)
    same_logits(run, theirs)
    names = sorted(path.name for path in Path("first").iterdir())
    assert names == ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                     "tokenizer_config.json"]  # fmt: skip
    assert all(Path("first", name).read_bytes() == Path("second", name).read_bytes() for name in names)
    back = load_run("back")
    assert back.tokenizer.to_dict() == run.tokenizer.to_dict()
    written = [made.generate(run.tokenizer.encode("The "), 12) for made in (_writer(run), _writer(back))]
    assert written[0] == written[1] == _theirs_greedy(theirs, run, "The ", 12)


class _writer:
    def __init__(self, run):
        self.run = run

    def generate(self, ids, new):
        from microformer import generate

        return generate(self.run, self.run.tokenizer.decode(ids), max_new_tokens=new, temperature=0.0)


def _theirs_greedy(theirs, run, prompt, new):
    ids = torch.tensor([run.tokenizer.encode(prompt).tolist()])
    length = ids.shape[1] + new
    made = theirs.generate(ids, max_length=length, do_sample=False, pad_token_id=0)
    return run.tokenizer.decode(made[0].tolist())


@pytest.mark.parametrize("documents", [False, True], ids=["one text", "documents"])
@pytest.mark.parametrize("kind", ["char", "byte", "bpe", "wordpiece", "unigram"])
def test_autotokenizer_gives_the_same_ids_and_the_same_text(kind, documents, here):
    if documents:
        rows = [json.dumps({"text": part}) for part in TEXT.split("\n\n")]
        Path("book.jsonl").write_text("\n".join(rows), "utf-8")
    trained(tokenizer=kind, corpus="book.jsonl" if documents else "book.txt")
    ours = load_run("one").tokenizer

    assert command("export", "one", "--to", "huggingface", "--output", "out") == 0

    theirs = transformers.AutoTokenizer.from_pretrained("out")
    for text in [TEXT, *AWKWARD]:
        ids = ours.encode(text.replace("\n\n", " ") if documents else text, "skip").tolist()
        kept = ours.decode(ids)
        assert theirs(kept)["input_ids"] == ids
        assert theirs.decode(ids) == kept
    assert theirs.eos_token_id == ours.end_of_document
    assert (ours.end_of_document is not None) == documents
    assert command("import", "out", "--run", "back") == 0
    back = load_run("back").tokenizer
    assert back.encode(TEXT, "skip").tolist() == ours.encode(TEXT, "skip").tolist()
    assert back.end_of_document == ours.end_of_document


def test_the_default_model_leaves_by_every_door(here):
    """That of config.py as it is in the repository; what each of the files gives is in the tests of its format."""
    config = Path(__file__).parents[2] / "config.py"
    steps = ["--max-steps", "1", "--threads", "1", "--device", "cpu", "--precision", "float32"]
    assert command("train", "--config", config, "--corpus", "book.txt", "--run", "default", *steps) == 0
    with without_checks():
        for door in ("huggingface", "safetensors", "gguf", "onnx"):
            assert command("export", "default", "--to", door) == 0
    names = {"default-huggingface", "default.safetensors", "default.gguf", "default.onnx"}
    assert {path.name for path in Path("exports").iterdir()} == names
    assert all(Path("exports", name).stat().st_mode & 0o777 == Path("book.txt").stat().st_mode & 0o777
               for name in names if "." in name)  # fmt: skip


def test_an_unknown_character_is_an_error_there_too(here):
    trained()
    assert command("export", "one", "--to", "huggingface", "--output", "out") == 0
    with pytest.raises(Exception, match="Missing"):
        transformers.AutoTokenizer.from_pretrained("out")("Ω")


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.fixture
def theirs(here):
    """A folder of theirs, with a tokenizer of as many characters."""
    folder = here / "theirs"
    original("Llama, fewer keys, another base").save_pretrained(folder)
    from microformer import tokenization

    characters = tokenization.train("char", ["".join(map(chr, range(48, 48 + 61)))])
    characters.to_library().save(str(folder / "tokenizer.json"))
    return folder


def changed_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def changed_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def _cut_short(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    whole = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(whole[: len(whole) // 2])


NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda at: changed_weights(at, lambda all: all.pop(NAME)), f"lacks the tensor '{NAME}'"),
        (lambda at: changed_weights(at, lambda all: all.update(extra=all[NAME].clone())),
         "a tensor too many, 'model.extra'"),
        (lambda at: changed_weights(at, lambda all: all.update({NAME: all[NAME][:9].clone()})),
         f"has '{NAME}' in shape [9, 48], where its configuration says [80, 48]"),
        (lambda at: changed_weights(at, lambda all: all.update({NAME: all[NAME].to(torch.int8)})),
         f"has '{NAME}' in torch.int8"),
        (lambda at: (at / "model.safetensors").unlink(), "holds no weights"),
        (lambda at: (at / "model.safetensors").write_bytes(b"cut short"), "can't be read as safetensors"),
        (lambda at: _cut_short(at), "can't be read: "),
        (lambda at: changed_config(at, model_type="mamba"), "holds a model of the type 'mamba'"),
        (lambda at: changed_config(at, hidden_size="wide", head_dim=None), "describes no llama"),
        (lambda at: changed_config(at, rope_parameters={"rope_type": "yarn", "factor": 4.0}), "of the type 'yarn'"),
        (lambda at: changed_config(at, attention_bias=True), "a model here has both or neither"),
        (lambda at: changed_config(at, rope_scaling={"type": "linear", "factor": 2.0}), "of the type 'linear'"),
        (lambda at: changed_config(at, head_dim=24), "head_dim 24, which no model here has"),
        (lambda at: changed_config(at, quantization_config={}), "quantization_config"),
        (lambda at: (at / "config.json").write_text("{"), "is damaged"),
        (lambda at: (at / "config.json").write_text('{"model_type": "gpt2"}'), "describes no gpt2: it lacks 'n_embd'"),
        (lambda at: (at / "tokenizer.json").unlink(), "holds no tokenizer that can be read here"),
        (lambda at: (at / "tokenizer.json").write_text("{"), "is damaged"),
        (lambda at: _tokens(at, 70), "the tokenizer has 70 tokens, and the model knows 61"),
    ],
)  # fmt: skip
def test_a_folder_that_is_wrong_is_refused_by_what_is_wrong_with_it_and_makes_no_run(break_it, said, theirs, capsys):
    break_it(theirs)

    assert command("import", "theirs", "--run", "new") == 2

    told = capsys.readouterr().err
    assert said in told
    assert "hint: " in told
    assert not Path("runs").exists()


def _tokens(folder, number):
    from microformer import tokenization

    characters = tokenization.train("char", ["".join(map(chr, range(48, 48 + number)))])
    characters.to_library().save(str(folder / "tokenizer.json"))


def test_a_vocabulary_that_was_padded_keeps_its_numbers(theirs, capsys):
    _tokens(theirs, 50)

    assert command("import", "theirs", "--run", "new") == 0

    assert (
        "the vocabulary was padded, or is another model's: 11 of the model's 61 tokens stand" in capsys.readouterr().err
    )
    run = load_run("new")
    assert run.tokenizer.vocab_size == run.spec.vocab_size == 61
    assert run.tokenizer.decode([0, 55, 1]) == "01"
    same_logits(run, original("Llama, fewer keys, another base"))
    assert command("generate", "new", "--prompt", "01", "--max-new-tokens", "5") == 0
    assert command("export", "new", "--to", "huggingface", "--output", "out") == 0
    assert load_file("out/model.safetensors")["lm_head.weight"].shape[0] == 61


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_kept_in_float32_and_it_is_said(dtype, theirs, capsys):
    changed_weights(theirs, lambda all: all.update({name: one.to(dtype) for name, one in all.items()}))

    assert command("import", "theirs", "--run", "new") == 0

    assert f"the weights are in {str(dtype)[6:]}; they are kept in float32 here" in capsys.readouterr().err
    assert all(one.dtype == torch.float32 for one in load_run("new").model.parameters())
    same_logits(load_run("new"), original("Llama, fewer keys, another base"), within=0.05)


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "pickles"])
def test_weights_in_shards_and_the_older_pickles_are_read(safe, theirs):
    _sharded(theirs, safe)

    assert command("import", "theirs", "--run", "new") == 0

    same_logits(load_run("new"), original("Llama, fewer keys, another base"))


def _sharded(folder, safe):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem, end = ("model", "safetensors") if safe else ("pytorch_model", "bin")
    names = sorted(weights)
    placed = {name: f"{stem}-0000{1 + (at % 2)}-of-00002.{end}" for at, name in enumerate(names)}
    for file in set(placed.values()):
        part = {name: weights[name] for name in names if placed[name] == file}
        save_file(part, folder / file) if safe else torch.save(part, folder / file)
    (folder / f"{stem}.{end}.index.json").write_text(json.dumps({"weight_map": placed}))
    return folder / f"{stem}.{end}.index.json", placed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda placed: placed.update({NAME: "../model.safetensors"}), "which is not in its folder"),
        (lambda placed: placed.update({NAME: "model-00003-of-00003.safetensors"}), "lacks the shard model-00003"),
        (lambda placed: placed.clear(), "is no index of shards"),
    ],
)
def test_an_index_of_shards_that_is_wrong_is_refused(change, said, theirs, capsys):
    index, placed = _sharded(theirs, safe=True)
    change(placed)
    index.write_text(json.dumps({"weight_map": placed}))

    assert command("import", "theirs", "--run", "new") == 2
    assert said in capsys.readouterr().err


def test_older_files_without_a_prefix_and_with_masks_and_a_second_head_are_read(here):
    """As the first GPT-2 on the hub has them."""
    model = original("GPT-2")
    model.save_pretrained("theirs")
    weights = {name.removeprefix("transformer."): one for name, one in model.state_dict().items()}
    weights |= {f"h.{i}.attn.bias": torch.ones(1, 1, 32, 32).tril() for i in range(3)}
    Path("theirs/model.safetensors").unlink()
    torch.save(weights, "theirs/pytorch_model.bin")
    _tokens(Path("theirs"), 61)

    assert command("import", "theirs", "--run", "new") == 0

    same_logits(load_run("new"), model)


def test_two_heads_that_differ_where_one_is_said_are_refused(here, capsys):
    original("GPT-2").save_pretrained("theirs")
    _tokens(Path("theirs"), 61)
    changed_weights(Path("theirs"), lambda all: all.update({"lm_head.weight": torch.zeros(61, 48)}))

    assert command("import", "theirs", "--run", "new") == 2
    assert "are one matrix, and has two that differ" in capsys.readouterr().err


def test_an_output_that_exists_is_left_as_it_is(here, capsys):
    trained()
    Path("out").mkdir()
    Path("out/mine").write_text("kept")

    assert command("export", "one", "--to", "huggingface", "--output", "out") == 2

    assert "out is there already" in capsys.readouterr().err
    assert Path("out/mine").read_text() == "kept"


def test_what_can_t_be_written_whole_leaves_nothing(here, capsys):
    trained(positions="alibi")

    assert command("export", "one", "--to", "huggingface", "--output", "out") == 2

    assert "POSITIONS alibi is in no published kind of model" in capsys.readouterr().err
    assert not [path for path in here.iterdir() if "out" in path.name]


def test_the_file_of_this_program_takes_every_model_and_gives_it_back(here, capsys):
    run = trained(
        attention="entmax15 window(4)", num_layers=2, memory="xl(8)", ngrams=3, positions="t5", tokenizer="bpe"
    )

    assert command("export", "one", "--to", "safetensors", "--output", "one.safetensors") == 0
    assert command("import", "one.safetensors", "--run", "back") == 0
    assert command("export", "back", "--to", "safetensors", "--output", "two.safetensors") == 0

    back = load_run("back")
    assert back.spec == run.spec
    assert all(torch.equal(one, back.model.get_parameter(name)) for name, one in run.model.named_parameters())
    assert back.tokenizer.to_dict() == run.tokenizer.to_dict()
    assert info("back")["settings"]["optimizer"] == "muon"
    one, two = (load_file(f"{name}.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert one.keys() == two.keys()

    shutil.copy("runs/one/checkpoints/" + run.index["last"] + "/model.safetensors", "bare.safetensors")
    assert command("import", "bare.safetensors") == 2
    assert "holds weights alone" in capsys.readouterr().err


def test_exports_have_a_place_of_their_own(here, capsys):
    trained()
    assert command("export", *flags(to="safetensors")) == 0
    assert "wrote     exports/one.safetensors" in capsys.readouterr().out.replace("\\", "/")

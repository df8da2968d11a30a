"""The `microformer` command: what it prints, refuses and suggests; and that it answers at once where it can."""

import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_runs import TINY, book, command, flags, info, resume, rows, train, without_picture_and_sample

from microformer import cli, evaluate, load_run, runs
from microformer.settings import Settings

CLONE = Path(cli.__file__).parents[2]
VERBS = (
    "prepare",
    "train",
    "generate",
    "eval",
    "inspect",
    "runs",
    "report",
    "corpora",
    "tokenize",
    "tokenizers",
    "import",
    "export",
    "new",
    "check",
    "doctor",
    "compare",
    "sweep",
    "scaling",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run `r` and no more; its data has been moved away."""
    folder = tmp_path_factory.mktemp("trained")
    before = Path.cwd()
    os.chdir(folder)
    try:
        Path("book.txt").write_text(book())
        train("--run", "r", max_steps=40)
        shutil.move("data", "kept")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """A copy of it, with a config.py that fits no more."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    (tmp_path / "config.py").write_text("EMBED_DIM = 8\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def with_data(here, trained):
    shutil.copytree(trained / "kept", here / "data", copy_function=shutil.copy2)
    return here


def typed(monkeypatch, text):
    """Standard input that is not a terminal, in UTF-8."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))


class Terminal(io.StringIO):
    """Standard input at which somebody types."""

    def isatty(self) -> bool:
        return True


def in_a_shell(*words, **options):
    """The command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(CLONE), "PYTHONUTF8": "0"}
    options = {"capture_output": True, "text": True, "encoding": "utf-8", "check": False, **options}
    return subprocess.run([sys.executable, "-m", "microformer", *words], env=environment, **options)


def refused(capsys, *words):
    """(sentence, hint) of a command that is refused as it should be."""
    capsys.readouterr()
    assert command(*words) == 2
    told = capsys.readouterr()
    assert told.out == ""
    error, hint = told.err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    return error.removeprefix("error: "), hint.removeprefix("hint: ")


# ------------------------------------------------------------------------------------------------------- what is there


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_its_help(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        command(verb, "--help")

    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: microformer {verb}")


def test_without_a_verb_all_are_listed(capsys):
    assert command() == 0

    told = capsys.readouterr().out
    assert all(f"\n    {verb} " in told for verb in VERBS)


def test_the_help_of_train_lists_every_setting(capsys):
    with pytest.raises(SystemExit):
        command("train", "--help")

    told = capsys.readouterr().out
    assert all(f"  --{name.replace('_', '-')} " in told for name in Settings().flat())


@pytest.mark.parametrize(
    "words", [["--help"], ["train", "--help"], ["--version"], ["runs"], ["train", "--lerning-rate", "1"]]
)
def test_what_needs_no_torch_does_not_wait_for_it(words, tmp_path):
    program = (
        "import sys; from microformer.cli import main\ntry: main(sys.argv[1:])\nfinally: print('torch' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(CLONE)},
        capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip

    assert found.stdout.splitlines()[-1] == "False"


def test_importing_the_package_does_not_import_torch():
    program = "import sys, microformer; print('torch' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(CLONE)}, capture_output=True, check=True
    )

    assert found.stdout.split() == [b"False"]


# ----------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("words", "sentence", "hint"),
    [
        (["trian"], 'there is no verb "trian".', "did you mean train? `microformer --help` lists them all."),
        (["x"], 'there is no verb "x".', "`microformer --help` lists them all."),
        (["--bogus"], 'there is no option "bogus".', "`microformer --help` lists them all."),
        (
            ["train", "--lerning-rate", "1e-3"],
            'there is no setting "lerning-rate".',
            "did you mean --learning-rate? `microformer train --help` lists them all.",
        ),
        (
            ["generate", "--temprature=1"],
            'there is no option "temprature".',
            "did you mean --temperature? `microformer generate --help` lists them all.",
        ),
        (["runs", "all", "of"], "'of' is one word too many.", "`microformer runs --help` says what is taken."),
        (["eval", "--split", "vla"], "--split 'vla' is not known.", "did you mean val? There are: train, val, test."),
        (
            ["generate", "--unknown", "drop"],
            "--unknown 'drop' is not known.",
            "There are: error, skip, replace.",
        ),
        (["generate", "--top-k", "few"], "--top-k 'few' is not a whole number.", "give one, such as 1."),
        (["generate", "--prompt"], "--prompt: expected one argument.", None),
        (["train", "--qk-norm", "maybe"], "QK_NORM 'maybe' is not True or False.", None),
        (["train", "--config", "quik"], "there is no config 'quik'.",
         "give a file, or one of the ready ones: gpt1, gpt2, gpt2_large, gpt2_medium, gpt2_xl, llama, mingpt_micro, "
         "mingpt_mini, mingpt_nano, nanogpt, quick, shakespeare_3min, shakespeare_char, shakespeare_fast, "
         "shakespeare_gpu, text8_10min."),
        (["prepare", "--input", "a", "--corpus", "b"], "--input and --corpus both name the text.", "give one of them."),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_what_was_probably_meant(words, sentence, hint, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    found = refused(capsys, *words)

    assert found[0] == sentence
    assert hint is None or found[1] == hint


@pytest.mark.parametrize("words", [["prepare", "--input", ""], ["train", "--corpus", ""]])
def test_an_empty_path_is_refused_and_not_taken_for_the_folder(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text(book(), encoding="utf-8")

    assert refused(capsys, *words)[0] == "the path of the text is empty."


def test_a_config_py_that_is_no_file_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config.py").mkdir()
    assert refused(capsys, "train")[0] == "config.py is a folder."

    Path("config.py").rmdir()
    Path("config.py").symlink_to("nowhere.py")
    assert refused(capsys, "train")[0] == "config.py is a link to nothing."


def test_a_config_that_raises_is_told_with_its_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config.py").write_text("SEED = 1\nEMBED_DIM = 1 / 0\n")

    assert refused(capsys, "train")[0] == "config.py can't be read: ZeroDivisionError at line 2: division by zero."


def test_debug_shows_where_an_error_comes_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(cli.MicroformerError, match="no run yet"):
        command("generate", "--debug")


# ------------------------------------------------------------------------------------------------------------ generate


def test_text_is_written_from_the_run_folder_alone(here, capsys):
    assert command("generate", "--prompt", "The", "--max-new-tokens", 30) == 0

    told = capsys.readouterr()
    assert told.out.startswith("The")
    assert len(told.out) == 34
    assert told.err == ""


def test_the_seed_decides_and_temperature_0_is_greedy(here, capsys):
    def text(*words):
        command("generate", "r", "--prompt", "The", "--max-new-tokens", 30, *words)
        return capsys.readouterr().out

    assert text("--seed", 1) == text("--seed", 1) != text("--seed", 2)
    assert text("--temperature", 0, "--seed", 1) == text("--temperature", 0, "--seed", 2)
    assert text("--top-k", 1) == text("--temperature", 0)
    assert text("--checkpoint", 1, "--temperature", 0) != text("--temperature", 0)


def test_it_writes_in_the_precision_that_is_asked_for(here, capsys):
    def text(*words):
        assert command("generate", "r", "--prompt", "The", "--max-new-tokens", 200, *words) == 0
        return capsys.readouterr().out

    assert text("--precision", "float32") == text() != text("--precision", "bfloat16")
    assert command("generate", "r", "--prompt", "The", "--precision", "bfloat") == 2
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "error: --precision 'bfloat' is not known.",
        "hint: did you mean bfloat16? There are: float32, bfloat16.",
    ]


def test_without_flags_it_asks_for_seed_string_and_temperature_until_an_empty_line(here, capsys, monkeypatch):
    typed(monkeypatch, "The\n0\nSaw\n\n\nnever read\n")

    assert command("generate", "--max-new-tokens", 10) == 0

    told = capsys.readouterr()
    assert [line[:3] for line in told.out.splitlines() if line[:3] in ("The", "Saw")] == ["The", "Saw"]
    assert told.err.count("seed string: ") == 3
    assert told.err.count("temperature [0.8]: ") == 2
    command("generate", "--prompt", "The", "--temperature", 0, "--max-new-tokens", 10)
    assert told.out.startswith(capsys.readouterr().out)


def test_with_a_temperature_given_it_asks_for_the_seed_string_alone(here, capsys, monkeypatch):
    typed(monkeypatch, "The")

    assert command("generate", "--temperature", 0, "--max-new-tokens", 5) == 0

    told = capsys.readouterr()
    assert told.out.startswith("The")
    assert "temperature [" not in told.err


def test_an_input_that_ends_at_once_writes_nothing(here, capsys, monkeypatch):
    typed(monkeypatch, "")

    assert command("generate") == 0
    assert capsys.readouterr().out == ""


def test_a_temperature_that_is_no_number_is_refused(here, capsys, monkeypatch):
    typed(monkeypatch, "The\nwarm\n")

    assert command("generate") == 2
    assert "error: the temperature 'warm' is not a number." in capsys.readouterr().err


def test_on_a_terminal_a_mistake_is_told_and_asked_again(here, capsys, monkeypatch):
    typed(monkeypatch, "Ж\n\nThe\n\n\n")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)

    assert command("generate", "--max-new-tokens", 5) == 0

    told = capsys.readouterr()
    assert "'Ж'" in told.err
    assert told.out.startswith("The")


def test_prompts_of_unequal_length_and_several_samples_come_as_they_would_alone(here, capsys):
    prompts = ["The", "Saw one dog run over green hills", "A"]
    options = ["--max-new-tokens", 20, "--temperature", 0]
    alone = []
    for prompt in prompts:
        command("generate", "--prompt", prompt, *options)
        alone.append(capsys.readouterr().out.rstrip("\n"))

    command("generate", *(word for prompt in prompts for word in ("--prompt", prompt)), *options, "--num-samples", 2)

    told = capsys.readouterr()
    texts = [text for text in told.out.split("--- ") if text]
    assert [text.split("\n", 1)[0] for text in texts] == [f"{number} of 6" for number in range(1, 7)]
    written = [text.split("\n", 1)[1].rstrip("\n") for text in texts]
    assert written == [text for text in alone for _ in range(2)]


@pytest.mark.parametrize("compiler", [None, "no-such-compiler"])
def test_compiled_code_writes_the_same_text_and_without_a_compiler_one_line_says_so(here, monkeypatch, compiler):
    words = ("generate", "r", "--prompt", "The", "--seed", "3", "--max-new-tokens", "40")
    plain = in_a_shell(*words).stdout
    cache = here / "compiled"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    if compiler:
        monkeypatch.setenv("CXX", compiler)

    able = shutil.which(os.environ.get("CXX", "g++")) is not None  # a machine without a compiler is as good a test

    told = in_a_shell(*words, "--compile")

    assert told.stdout == plain
    assert told.stderr.count("note: generation can't be compiled here") == (not able)
    assert bool(list(cache.rglob("*.so"))) == able


def test_a_compiled_training_ends_where_the_plain_one_does(here, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(here / "compiled"))
    Path("book.txt").write_text(book())
    words = ("train", "--corpus", "book.txt", *flags(**TINY, max_steps=20))

    told = [in_a_shell(*words, "--run", name, *more) for name, more in (("plain", ()), ("compiled", ("--compile",)))]

    assert [one.returncode for one in told] == [0, 0], told[1].stderr
    able = shutil.which(os.environ.get("CXX", "g++")) is not None
    assert ("can't be compiled" in told[1].stderr) == (not able)
    assert bool(list((here / "compiled").rglob("*.so"))) == able
    plain, compiled = (
        [row["train_loss"] for row in rows(name) if "train_loss" in row] for name in ("plain", "compiled")
    )
    assert compiled == pytest.approx(plain, abs=1e-3)


def test_a_text_ends_before_what_it_is_to_stop_at(here, capsys):
    options = ["--prompt", "The", "--temperature", 0, "--max-new-tokens", 40]
    command("generate", *options)
    whole = capsys.readouterr().out.rstrip("\n")
    stop = whole[10:12]

    command("generate", *options, "--stop", stop)

    assert capsys.readouterr().out == whole[: whole.index(stop, 3)] + "\n"


def test_unknown_characters_are_named_and_refused_or_skipped(here, capsys):
    sentence, hint = refused(capsys, "generate", "--prompt", "Жaß")
    assert "'Ж'" in sentence
    assert "'ß'" in sentence
    assert "--unknown skip" in hint

    assert command("generate", "--prompt", "Жaß", "--unknown", "skip", "--max-new-tokens", 5) == 0
    capsys.readouterr()
    assert refused(capsys, "generate", "--prompt", "Жß", "--unknown", "skip")[0].startswith("the prompt has no")


def test_what_is_skipped_is_not_written_either(here, capsys):
    assert command("generate", "--prompt", "The €cat", "--unknown", "skip", "--max-new-tokens", 3) == 0
    assert capsys.readouterr().out.startswith("The cat")


def test_an_empty_prompt_is_refused(here, capsys):
    assert refused(capsys, "generate", "--prompt", "")[0] == "the prompt is empty."


def test_a_prompt_longer_than_the_context_is_taken_with_one_notice(here, capsys):
    prompt = "The cat sat on a mat and saw one dog"

    assert command("generate", "--prompt", prompt, "--max-new-tokens", 5) == 0

    told = capsys.readouterr()
    assert told.out.startswith(prompt)
    assert told.err.startswith("note: the prompt has 36 tokens, more than the context of 16; the model sees its last")
    assert len(told.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--temperature", "-1"], "temperature -1.0 can't be"),
        (["--temperature", "nan"], "temperature nan can't be"),
        (["--top-p", "0"], "top-p 0.0 can't be"),
        (["--top-k", "-1"], "top-k -1 can't be"),
        (["--min-p", "2"], "min-p 2.0 can't be"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0 can't be"),
        (["--checkpoint", "99"], "has no checkpoint '99'"),
    ],
)
def test_an_option_out_of_range_is_refused(words, sentence, here, capsys):
    assert sentence in refused(capsys, "generate", "--prompt", "The", *words)[0]


def test_a_run_that_is_not_there_is_refused(here, capsys):
    assert refused(capsys, "generate", "rr") == (
        "there is no run 'rr'.", "did you mean 'r'? `microformer runs` lists them.",
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="the shell there has no such pipes")
@pytest.mark.parametrize("words", [["generate", "--prompt", "The", "--max-new-tokens", "3000"], ["runs"], ["--help"]])
def test_a_closed_pipe_ends_quietly(words, here):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as closed:
        ended = in_a_shell(*words, capture_output=False, stdout=closed, stderr=subprocess.PIPE)

    assert ended.returncode == 0
    assert ended.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("words", [["generate", "--prompt", "The"], ["runs", "--json"]])
def test_an_output_without_room_is_one_sentence(words, here):
    with open("/dev/full", "w") as full:
        ended = in_a_shell(*words, capture_output=False, stdout=full, stderr=subprocess.PIPE)

    assert ended.returncode == 2
    assert ended.stderr == "error: can't write the output: No space left on device.\nhint: send it elsewhere.\n"


@pytest.mark.skipif(sys.platform == "win32", reason="the shell there has no such pipes")
def test_a_training_whose_output_nobody_reads_any_more_goes_on(with_data):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as closed:
        words = ["train", "--run", "unread", *flags(**TINY, max_steps=6)]
        ended = in_a_shell(*words, capture_output=False, stdout=closed, stderr=subprocess.PIPE)

    assert ended.returncode == 0, ended.stderr
    assert "the training goes on without it" in ended.stderr
    assert info("unread")["ended"]["step"] == 6


def test_a_tokenizer_of_another_vocabulary_is_refused(here, capsys):
    path = Path("runs/r/tokenizer.json")
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["vocab"]["ß"] = len(tokenizer["vocab"])
    path.write_text(json.dumps(tokenizer), encoding="utf-8")

    sentence, hint = refused(capsys, "generate", "--prompt", "The")
    assert f"has {len(tokenizer['vocab'])} tokens, and the model {len(tokenizer['vocab']) - 1}" in sentence
    assert hint == "it is another run's; restore it."


def test_more_texts_than_memory_holds_are_refused(here, capsys):
    sentence, _ = refused(capsys, "generate", "--prompt", "The", "--num-samples", "100000000")

    assert sentence.startswith("100,000,000 texts together take about ")


def test_a_pipe_carries_utf_8_and_bytes_that_are_not_are_refused(here):
    ended = in_a_shell("generate", input=b"\xff\n\n", text=False, encoding=None)

    assert ended.returncode == 2
    assert b"error: " in ended.stderr
    assert b"Traceback" not in ended.stderr


# ---------------------------------------------------------------------------------------------------------------- eval


def test_eval_gives_the_loss_that_training_reported(with_data, capsys):
    assert command("eval", "r", "--json") == 0

    found = json.loads(capsys.readouterr().out)
    assert {"nats_per_token", "bits_per_char", "bits_per_byte", "perplexity", "tokens"} <= set(found)
    reported = info("r")["figures"]
    assert found["nats_per_token"] == reported["val_loss"]
    assert found["bits_per_char"] == pytest.approx(reported["bits_per_char"])
    assert found["tokens"] == len(book()) - int(0.9 * len(book()))
    assert command("eval", "r") == 0
    assert f"{found['nats_per_token']:.4f}" in capsys.readouterr().out


def test_eval_of_the_last_checkpoint_and_of_the_training_split_are_others(with_data, capsys):
    def loss(*words):
        command("eval", "--json", *words)
        return json.loads(capsys.readouterr().out)

    assert loss("--split", "train")["tokens"] == int(0.9 * len(book())) - 1
    assert loss("--checkpoint", "1")["nats_per_token"] > loss()["nats_per_token"]
    assert loss("--context", "sliding")["tokens"] == loss()["tokens"]


def test_eval_scores_any_text_without_the_data(here, capsys):
    Path("text.txt").write_text("The cat sat on a mat.\n")

    assert command("eval", "--text", "text.txt", "--json") == 0

    found = json.loads(capsys.readouterr().out)
    assert found["tokens"] == 21
    assert found["bits_per_char"] == found["bits_per_byte"]
    assert evaluate(load_run("r"), text="The cat sat on a mat.\n")["nats_per_token"] == found["nats_per_token"]


def test_eval_refuses_what_it_can_not_score(here, capsys):
    Path("text.txt").write_text("Ж")
    Path("empty.txt").write_text("")

    assert "'Ж'" in refused(capsys, "eval", "--text", "text.txt")[0]
    assert "too short" in refused(capsys, "eval", "--text", "empty.txt")[0]
    assert "can't read missing.txt" in refused(capsys, "eval", "--text", "missing.txt")[0]
    assert "no complete prepared data" in refused(capsys, "eval")[0]


def test_eval_leaves_out_what_is_to_be_skipped(here, capsys):
    Path("plain.txt").write_text("the cat sat on a mat", encoding="utf-8")
    Path("more.txt").write_text("the cat €sat on a mat€", encoding="utf-8")
    losses = []
    for name in ("plain.txt", "more.txt"):
        assert command("eval", "--text", name, "--unknown", "skip", "--json") == 0
        losses.append(json.loads(capsys.readouterr().out)["nats_per_token"])

    assert losses[0] == losses[1]


def test_eval_refuses_the_split_of_other_data(here, capsys):
    Path("other.txt").write_text(book(seed=2))
    assert command("prepare", "--input", "other.txt", "--config", "quick") == 0

    assert "trained on other data" in refused(capsys, "eval")[0]


# ----------------------------------------------------------------------------------------------- prepare, runs, corpora


def test_prepare_reads_standard_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    ended = in_a_shell("prepare", "--input", "-", input=book())

    assert ended.returncode == 0
    assert f"{len(book()):,} characters" in ended.stdout
    assert Path("data/train.pt").exists()


def test_what_was_prepared_on_request_is_trained_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text(book())
    Path("data").mkdir()
    Path("data/corpus.txt").write_text(book(seed=9))
    command("prepare", "--input", "mine.txt")

    assert command("train", "--run", "r", *flags(**TINY, max_steps=2)) == 0

    assert info("r")["data"]["corpus"] == "mine.txt"


def test_runs_lists_each_with_its_figures(here, capsys):
    assert command("runs") == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "corpus", "parameters", "steps", "seconds", "val_loss", "bits_per_char", "ended"]
    assert row.split()[:4] == ["r", "book.txt", f"{info('r')['parameters']:,}", "40"]

    assert command("runs", "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["val_loss"] == info("r")["figures"]["val_loss"]
    assert listed["ended"] == "finished"


def test_runs_goes_on_past_a_damaged_one(here, capsys):
    Path("runs/bad").mkdir()
    Path("runs/bad/run.json").write_text("{")

    assert command("runs") == 0

    told = capsys.readouterr()
    assert told.err.startswith(f"note: {Path('runs/bad')} is left out: ")
    assert told.out.splitlines()[-1].startswith("r ")


def test_where_there_is_no_run_runs_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    assert command("runs") == 0
    assert capsys.readouterr().out == "there is no run yet; train one: microformer train\n"
    assert command("runs", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_runs_are_filtered_sorted_and_shown_by_figures_and_settings(here, capsys):
    shutil.copytree("runs/r", "runs/s")
    shutil.copytree("runs/r", "runs/t")
    told = json.loads(Path("runs/s/run.json").read_text(encoding="utf-8"))
    told["settings"]["dropout"], told["figures"]["val_loss"] = 0.5, 9.0
    Path("runs/s/run.json").write_text(json.dumps(told), encoding="utf-8")
    capsys.readouterr()

    def listed(*words):
        assert command("runs", *words) == 0
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    assert listed("--sort", "-val_loss", "--columns", "dropout")[:2] == [["run", "dropout"], ["s", "0.5"]]
    assert [line[0] for line in listed("--where", "dropout=0 val_loss<9")] == ["run", "r", "t"]
    assert [line[0] for line in listed("[rt]", "--sort", "-run", "--last", "5")] == ["run", "t", "r"]
    assert listed("--where", "dropout>0.5") == [["none", "of", "them", "is:", "dropout>0.5"]]
    assert listed("rr") == [["no", "run", "is", "called", "'rr';", "did", "you", "mean", "'r'?"]]
    assert command("runs", "s", "--json", "--columns", "dropout,embed-dim") == 0
    assert json.loads(capsys.readouterr().out) == [{"run": "s", "dropout": 0.5, "embed_dim": 16}]


def test_tags_are_given_shown_asked_for_and_taken_away(here, capsys):
    assert command("runs", "--tag", "r", "keep") == 0
    assert capsys.readouterr().out == "r: keep\n"
    assert command("runs", "--where", "tag=keep") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == "keep"
    assert refused(capsys, "runs", "--untag", "r", "kep") == (
        "the run 'r' has no tag 'kep'.", "did you mean 'keep'?",
    )  # fmt: skip
    assert command("runs", "--untag", "r", "keep") == 0
    assert capsys.readouterr().out == "r: no tags\n"
    assert refused(capsys, "runs", "--tag", "r", "two words")[0] == "'two words' can't be a tag."


def test_runs_are_deleted_only_where_somebody_said_so(here, capsys, monkeypatch):
    for name in ("a-1", "a-2", "b"):
        shutil.copytree("runs/r", f"runs/{name}")
    assert refused(capsys, "runs", "--delete", "b") == (
        "nobody can be asked whether to delete it.", "add --yes to delete without a question.",
    )  # fmt: skip

    with monkeypatch.context() as patch:
        for answer, kept in (("n", True), ("", True), ("y", False)):
            patch.setattr(sys, "stdin", Terminal(f"{answer}\n"))
            assert command("runs", "--delete", "b") == 0
            assert Path("runs/b").is_dir() == kept
            told = capsys.readouterr()
            assert told.err == "delete it, for good? [y/N] "
            assert told.out.startswith(f"{Path('runs/b')} (40 steps, ")

    assert command("runs", "--delete", "a-*", "--yes") == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.rpartition(" (")[0] for line in told] == [f"deleted {Path('runs', name)}" for name in ("a-1", "a-2")]
    assert [run.name for run in runs.all_runs()] == ["r"]
    assert refused(capsys, "runs", "--delete", "a-1", "--yes")[0] == "there is no run 'a-1'."


def test_of_runs_to_be_deleted_one_that_is_being_trained_keeps_them_all(here, capsys):
    shutil.copytree("runs/r", "runs/s")

    with runs.find("s").lock():
        assert refused(capsys, "runs", "--delete", "r", "s", "--yes")[0] == (
            "another training is writing into the run 's'."
        )

    assert [run.name for run in runs.all_runs()] == ["r", "s"]


def test_two_runs_are_told_apart(here, capsys):
    shutil.copytree("runs/r", "runs/s")
    assert command("runs", "--diff", "r", "s") == 0
    assert capsys.readouterr().out.startswith("settings, model, data, code, versions and machine are the same.\n")
    told = json.loads(Path("runs/s/run.json").read_text(encoding="utf-8"))
    told["settings"]["dropout"] = 0.5
    Path("runs/s/run.json").write_text(json.dumps(told), encoding="utf-8")

    assert command("runs", "--diff", "r", "s") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == [["what", "r", "s"], ["settings", "dropout", "0.0", "0.5"]]
    assert command("runs", "--diff", "r", "s", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["differences"][0] == {"part": "settings", "what": "dropout", "one": 0.0, "other": 0.5}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--diff", "r", "r", "--delete", "r"], "--delete and --diff are two things to do."),
        (["--tag", "r", "x", "--last", "2"], "--last is for the list of runs, and --tag names its own."),
        (["r", "--delete", "r"], "'r' is for the list of runs, and --delete names its own."),
        (["--yes"], "--yes answers --delete, and there is none."),
        (["--last", "0"], "--last 0 can't be: it is 1 or more."),
        (["--last", "few"], "--last 'few' is not a whole number."),
        (["--sort", "-val_los"], "runs have no column 'val_los'."),
        (["--columns", "val_los"], "runs have no column 'val_los'."),
        (["--where", "val_loss"], "'val_loss' is no condition."),
    ],
)
def test_what_runs_can_not_do_is_told(words, said, here, capsys):
    assert refused(capsys, "runs", *words)[0] == said


def test_corpora_lists_those_that_have_a_name(capsys):
    assert command("corpora", "--json") == 0
    assert {"tinyshakespeare", "pydocs"} <= {corpus["corpus"] for corpus in json.loads(capsys.readouterr().out)}
    assert command("corpora") == 0
    assert "tinyshakespeare" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------------- scripts


def test_the_three_scripts_do_the_main_job_from_a_clone(tmp_path):
    for part in ("scripts", "microformer"):
        shutil.copytree(CLONE / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "corpus.txt").write_text(book())
    settings = [f"{name.upper()} = {value!r}\n" for name, value in {**TINY, "max_steps": 3, "epochs": 0}.items()]
    (tmp_path / "config.py").write_text("".join(settings))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def script(name, **options):
        return subprocess.run(
            [sys.executable, f"scripts/{name}.py"], cwd=tmp_path, env=environment, capture_output=True, text=True,
            encoding="utf-8", check=True, **options,
        )  # fmt: skip

    assert "vocabulary 35 (char)" in script("prepare_data").stdout
    assert "ended after 3 steps" in script("train").stdout
    assert "The" in script("generate_text", input="The\n0.5\n\n").stdout


@pytest.mark.parametrize("name", ["prepare_data", "train", "generate_text"])
def test_a_script_without_the_packages_it_needs_says_the_one_command_that_is_missing(name, here):
    # -S leaves out all that was ever installed.
    ended = subprocess.run(
        [sys.executable, "-S", CLONE / "scripts" / f"{name}.py"], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 2
    error, hint = ended.stderr.splitlines()
    assert error.startswith("error: the package '")
    assert hint == "hint: pip install -e ."


# ------------------------------------------------------------------------------------------------------------ settings


CHANGED = {
    "embed_dim": 32, "num_heads": 4, "num_layers": 2, "ff_dim": 48, "max_seq_len": 8, "attention": "entmax15",
    "num_kv_heads": 1, "score_cap": 1.0, "attention_dropout": 0.5, "output_gate": True,
    "norm_placement": "post", "residual_scalars": True, "embed_scale": 3.0, "parallel": True, "loops": 2,
    "init": "normal", "final_rate": 0.5,
    "positions": "learned", "feedforward": "gelu", "norm": "layernorm", "qk_norm": False, "tie_embeddings": True,
    "bias": True, "dropout": 0.5, "ngrams": 3, "ngram_entries": 50, "ngram_dropout": 0.5,
    "memory": "xl(8)", "data_order": "streams",
    "tokenizer": "byte", "val_fraction": 0.2, "test_fraction": 0.1, "max_bytes": 3000, "epochs": 0.02, "max_steps": 5,
    "batch_size": 8, "accumulate": 2, "optimizer": "adamw", "learning_rate": 0.001, "weight_decay": 0.5,
    "momentum": 0.5, "beta_1": 0.5, "beta_2": 0.5, "grad_clip": 0.01, "schedule": None, "warmup": 0.5, "decay": 0.9,
    "averaging": 0.9, "eval_every": 2, "patience": 1, "checkpoint_every": 5, "snapshots": False, "log_every": 3,
    "probe_steps": 3,
    "seed": 2,
}  # fmt: skip
# What is told elsewhere: corpora and encodings, time, and the machine.
ELSEWHERE = {
    "corpus",
    "encoding",
    "text_field",
    "max_documents",
    "unknown",
    "workers",
    "stop_on",
    "vocab_size",
    "max_minutes",
    "checkpoint_minutes",
    "device",
    "precision",
    "threads",
    "compile",
    "trackers",
    "diagnostics",
}


def effects(name, saved):
    """All that a run did and left, but for the echo of its settings and times. saved: what it saved on the way."""
    run = runs.find(name)
    weights = (run.checkpoint("best") / "model.safetensors").read_bytes()
    return (
        saved,
        run.probes,
        weights,
        rows(name),
        run.info["model"],
        run.info["ended"]["how"],
        run.info["data"]["fingerprint"],
    )


@contextmanager
def watched():
    """The (label, step) of each checkpoint that is written meanwhile."""
    saved, real = [], runs.Run.write_checkpoint
    with pytest.MonkeyPatch.context() as patch:
        without_picture_and_sample(patch)
        patch.setattr(runs.Run, "write_checkpoint", lambda run, *words: (saved.append(words[:2]), real(run, *words))[1])
        yield saved


# Decay is read by one schedule only; with this rate validations get worse, so that patience has something to end.
BASE = {
    "max_steps": 8,
    "schedule": "wsd",
    "eval_every": 1,
    "learning_rate": 1.0,
    "epochs": 1,
    "accumulate": 1,
    "ngrams": 2,
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A folder with prepared data, and the effects of a run whose settings are the base."""
    folder = tmp_path_factory.mktemp("plain")
    before = Path.cwd()
    os.chdir(folder)
    try:
        Path("book.txt").write_text(book())
        with watched() as saved:
            train("--run", "plain", **BASE)
        return folder, effects("plain", saved)
    finally:
        os.chdir(before)


@pytest.mark.parametrize("name", sorted(CHANGED))
def test_changing_a_constant_of_config_py_changes_the_run(name, plain, tmp_path, monkeypatch):
    folder, wanted = plain
    monkeypatch.chdir(tmp_path)
    shutil.copy2(folder / "book.txt", "book.txt")
    shutil.copytree(folder / "data", "data", copy_function=shutil.copy2)
    value = "cosine" if name == "schedule" else CHANGED[name]
    settings = {**TINY, **BASE, "corpus": "book.txt", name: value}
    if name == "schedule":
        settings.pop("decay", None)
    Path("config.py").write_text("".join(f"{key.upper()} = {each!r}\n" for key, each in settings.items()))

    with watched() as saved:
        assert command("train", "--run", "r") == 0

    assert effects("r", saved) != wanted


def test_the_same_constants_make_the_same_run(plain, monkeypatch):
    folder, wanted = plain
    monkeypatch.chdir(folder)

    with watched() as saved:
        train("--run", "again", **BASE)

    assert effects("again", saved) == wanted


def test_every_setting_is_either_changed_here_or_told_elsewhere():
    assert {*CHANGED} | ELSEWHERE == set(Settings().flat())


def test_checkpoints_are_made_by_the_clock_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text(book())
    with watched() as saved:
        train("--run", "r", checkpoint_every=1000, checkpoint_minutes=1e-9, max_steps=6, eval_every=1000)

    assert [step for label, step in saved if label == "last"] == [1, 2, 3, 4, 5, 6]
    assert resume("--run", "r", max_steps=8) == 0


def test_a_text_is_cut_into_tokens_with_the_tokenizer_that_is_there(with_data, capsys, monkeypatch):
    tokenizer = load_run("r").tokenizer
    for words in ([], ["--run", "r"], ["--tokenizer", "data/vocab.json"], ["--tokenizer", "runs/r/tokenizer.json"]):
        assert command("tokenize", "The", "cat", *words, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert [token["id"] for token in found["tokens"]] == tokenizer.encode("The cat").tolist()
        assert "".join(token["text"] for token in found["tokens"]) == "The cat"
        assert found["vocab_size"] == tokenizer.vocab_size
    typed(monkeypatch, "a\nt")
    assert command("tokenize") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["a", "↵", "t"]
    assert shown[1].split() == [str(token) for token in tokenizer.encode("a\nt").tolist()]
    assert "3 for 3 characters: 1.00 bytes a token" in shown[-1]


def test_a_text_of_many_tokens_is_shown_in_lines_that_fit(with_data, capsys):
    assert command("tokenize", "the cat sat on a mat " * 20) == 0
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 100
    assert "".join("".join(line.split()) for line in shown[:-2:2]).replace("·", " ") == "the cat sat on a mat " * 20


def test_what_can_not_be_cut_into_tokens_is_refused(here, capsys):
    for words, said in (
        (["x", "--tokenizer", "bpe"], "--tokenizer bpe is a kind"), (["€"], "the vocabulary lacks"),
        (["x", "--tokenizer", "a.json", "--run", "r"], "both name the tokenizer"), (["x", "--run", "q"], "no run 'q'"),
    ):  # fmt: skip
        assert command("tokenize", *words) == 2
        assert said in capsys.readouterr().err
    assert command("tokenize", "€a", "--unknown", "skip") == 0

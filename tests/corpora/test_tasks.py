"""Tasks: texts with known answers, the same wherever they are made, and a part that is held out."""

import itertools
import math

import pytest
import torch

from microformer import corpora
from microformer.corpora import tasks
from microformer.corpora.tasks import Copy
from microformer.corpora.tasks.base import Draw, _hash
from microformer.errors import DataError, SettingsError

SMALL = Copy(length=4, distance=9, symbols=20)


def examples(task: tasks.Task) -> list[str]:
    text = task.text()
    assert len(text) % task.example == 0
    return [text[i : i + task.example] for i in range(0, len(text), task.example)]


def few(task: tasks.Task, count: int = 500) -> list[str]:
    """Some examples, without the whole text."""
    return [task.made(Draw(str(number))) for number in range(count)]


def by_hand(task: tasks.Task, example: str) -> str:
    """The answer to an example's question, worked out in another way."""
    question = example[: -task.answer]
    match task:
        case tasks.Addition(digits=digits, reverse=reverse):
            first, second = question.rstrip("=").split("+")
            total = str(int(first) + int(second)).rjust(digits + 1, "0")
            return (total[::-1] if reverse else total) + ";"
        case tasks.Sorting():
            return "".join(symbol * question.count(symbol) for symbol in "abcdefghijklmnopqrstuvwxyz") + ";"
        case tasks.Reversal():
            return "".join(reversed(question[:-1])) + ";"
        case tasks.Copy(length=length):
            return question[1 : 1 + length]
        case tasks.Induction():
            period = next(n for n in range(1, len(question) + 1) if question[n : n + 1] in ("", question[0]))
            return "".join(example[at - period] for at in range(len(question), len(example)))
        case tasks.Modular(modulus=modulus, power=power):
            first, second = question.rstrip("=").replace("&", "+").split("+")
            numbers = [int(one) if power == 1 else int(one) * int(one) for one in (first, second)]
            return str(divmod(sum(numbers), modulus)[1]).rjust(len(str(modulus - 1)), "0") + ";"
        case tasks.Brackets():
            row, before = question[:-1], ""
            while row != before:
                row, before = row.replace("()", "").replace("[]", "").replace("{}", "").replace("<>", ""), row
            return ("n" if row else "y") + ";"
    raise AssertionError(task)


TASKS = [
    *(kind() for word, kind in tasks.TASKS.items() if word != "markov"), tasks.Addition(3, 1), tasks.Modular(113, 2),
    tasks.Brackets(20, 4), tasks.Sorting(5, 3), tasks.Induction(16, 12),
]  # fmt: skip


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_answer_is_what_another_way_of_working_it_out_gives(task):
    made = few(task)

    assert all(len(one) == task.example for one in made)
    assert [one[-task.answer :] for one in made] == [by_hand(task, one) for one in made]
    assert len({one[-task.answer :] for one in made}) > 1


def test_half_of_the_brackets_or_so_are_balanced():
    answers = [one[-2] for one in few(tasks.Brackets())]

    assert 0.4 < answers.count("y") / len(answers) < 0.7
    # And no more of them than the others can be told by counting alone.
    unbalanced = [one[:-3] for one in few(tasks.Brackets()) if one[-2] == "n"]
    alike = [row for row in unbalanced if row.count("(") == row.count(")") and row.count("[") == row.count("]")]
    assert len(alike) > 20


def test_periods_of_the_induction_task_differ_so_that_no_distance_tells():
    periods = {next(n for n in range(8, 17) if one[n] == one[0]) for one in few(tasks.Induction())}

    assert periods == set(range(8, 17))


def test_the_chain_walks_by_its_probabilities_and_its_entropy_is_what_they_say():
    chain = tasks.Markov()
    text = chain.text()
    pairs = {(a, b): 0 for a in "abcdef" for b in "abcdef"}
    for start in range(0, len(text), chain.length):
        row = text[start : start + chain.length]
        for pair in itertools.pairwise(row):
            pairs[pair] += 1
    total = sum(pairs.values())
    counted = 0.0
    for (a, b), count in pairs.items():
        of_a = sum(pairs[a, other] for other in "abcdef")
        expected = chain.transitions["abcdef".index(a)]["abcdef".index(b)]
        assert count / of_a == pytest.approx(expected, abs=0.01)
        counted -= count / total * math.log(count / of_a) if count else 0.0

    assert chain.entropy == pytest.approx(counted, abs=0.003)
    assert all(sum(row) == pytest.approx(1) for row in chain.transitions)
    assert chain.entropy < 0.8 * math.log(6)
    assert tasks.Markov(2, 16).entropy < math.log(2)


@pytest.mark.parametrize("word", ["addition", "modular"])
def test_a_task_with_fewer_examples_than_it_should_have_takes_those_there_are(word):
    task = tasks.TASKS[word]()
    made = examples(task)

    assert 8_000 < len(made) <= 10_000
    assert len(made) % 10 == 0
    assert len(set(made)) == len(made)
    learned, held_out = made[: len(made) * 9 // 10], made[len(made) * 9 // 10 :]
    assert all(_hash(one) % 10 == 0 for one in held_out)
    assert not any(_hash(one) % 10 == 0 for one in learned)


def test_sorting_holds_5000_out():
    assert len(tasks.Sorting().text()) // tasks.Sorting().example == 50_000


def test_every_copy_is_what_stands_at_its_distance():
    for one in examples(SMALL)[:200]:
        assert one[1:5] == one[10:14]
        assert len(set(one[1:5])) == 4
        assert (one[0], one[5:9], one[9]) == ("<", "....", ">")


def test_a_tenth_is_held_out_and_none_of_it_is_learned_from():
    made = examples(SMALL)
    learned, held_out = made[:18_000], made[18_000:]

    assert len(held_out) == 2_000
    assert len(set(made)) == len(made)
    assert not set(learned) & set(held_out)
    # The hash alone decides: another distance or seed would hold out the same examples of the same words.
    assert made == examples(Copy(4, 9, 20))


def test_draws_are_the_same_in_every_python():
    draw = Draw("copy 1")

    assert [draw.below(10) for _ in range(6)] == [3, 8, 9, 3, 3, 4]
    assert sorted(draw.different("abcdef", 6)) == list("abcdef")


def test_a_task_with_few_examples_says_so():
    with pytest.raises(DataError, match="has only 12 different examples, and 100 are the least"):
        Copy(length=2, distance=5, symbols=4).text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("task:copy(length=9, symbols=8)", "9 different ones of 8 symbols"),
        ("task:copy(distance=8)", "a distance of 8 with 8 symbols"),
        ("task:copy(speed=1)", "arguments that copy can't take"),
        ("task:copy(8, 119, 16, 1)", "arguments that copy can't take"),
        ("task:addition(0)", r"task:addition\(digits=0, reverse=0\) can't be"),
        ("task:addition(2, 2)", "can't be"),
        ("task:sorting(1)", "can't be"),
        ("task:reversal(8, 27)", "can't be"),
        ("task:induction(30)", "can't be"),
        ("task:induction(32, 10)", "can't be"),
        ("task:modular(5)", "can't be"),
        ("task:brackets(5)", "can't be"),
        ("task:brackets(8, 5)", "can't be"),
        ("task:markov(1)", "can't be"),
        ("task:", "is empty"),
    ],
)
def test_a_task_that_can_not_be_is_refused(name, message):
    with pytest.raises(SettingsError, match=message):
        tasks.find(name)


def test_other_names_mean_no_task():
    assert tasks.find("tinyshakespeare") is None
    assert tasks.find("copy") is None
    assert tasks.find("task:copy") == Copy()


def test_prepared_a_task_counts_its_answers_alone(tmp_path):
    data = corpora.prepare(tmp_path, corpora.Source.named("task:copy(length=4, distance=9, symbols=20)"))

    assert data.example == 14
    for ids in (data.train, data.val):
        counted = data.counted(ids)
        assert counted.view(-1, 14)[:, 10:].all()
        assert not counted.view(-1, 14)[:, :10].any()
        answer, word = ids.view(-1, 14)[:, 10:], ids.view(-1, 14)[:, 1:5]
        assert torch.equal(answer, word)
    assert (len(data.train), len(data.val)) == (18_000 * 14, 2_000 * 14)


def test_what_would_tear_a_tasks_answers_apart_is_refused(tmp_path):
    copying = corpora.Source.named("task:copy(length=4, distance=9, symbols=20)")

    with pytest.raises(SettingsError, match="counts its answers in characters"):
        corpora.prepare(tmp_path, copying, tokenizer="bpe")
    with pytest.raises(SettingsError, match=r"holds out 0\.1 of its examples"):
        corpora.prepare(tmp_path, copying, val_fraction=0.2)


def test_a_misspelt_task_is_named():
    with pytest.raises(SettingsError, match="CORPUS task: 'copi' is not known") as refused:
        corpora.prepare(".", corpora.Source.named("task:copi"))
    assert "did you mean 'copy'?" in refused.value.hint

"""Tasks: texts with known answers, the same wherever they are made, and a part that is held out."""

import pytest
import torch

from microformer import corpora
from microformer.corpora import tasks
from microformer.corpora.tasks import Copy
from microformer.corpora.tasks.base import Draw
from microformer.errors import DataError, SettingsError

SMALL = Copy(length=4, distance=9, symbols=20)


def examples(task: tasks.Task) -> list[str]:
    text = task.text()
    assert len(text) % task.example == 0
    return [text[i : i + task.example] for i in range(0, len(text), task.example)]


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
    with pytest.raises(DataError, match="has only 12 different examples, and 20,000 are wanted"):
        Copy(length=2, distance=5, symbols=4).text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("copy(length=9, symbols=8)", "9 different ones of 8 symbols"),
        ("copy(distance=8)", "a distance of 8 with 8 symbols"),
        ("copy(speed=1)", "arguments that copy can't take"),
        ("copy(8, 119, 16, 1)", "arguments that copy can't take"),
    ],
)
def test_a_task_that_can_not_be_is_refused(name, message):
    with pytest.raises(SettingsError, match=message):
        tasks.find(name)


def test_other_names_mean_no_task():
    assert tasks.find("tinyshakespeare") is None
    assert tasks.find("copying") is None
    assert tasks.find("copy") == Copy()


def test_prepared_a_task_counts_its_answers_alone(tmp_path):
    data = corpora.prepare(tmp_path, corpora.Source.named("copy(length=4, distance=9, symbols=20)"))

    assert data.example == 14
    for ids in (data.train, data.val):
        counted = data.counted(ids)
        assert counted.view(-1, 14)[:, 10:].all()
        assert not counted.view(-1, 14)[:, :10].any()
        answer, word = ids.view(-1, 14)[:, 10:], ids.view(-1, 14)[:, 1:5]
        assert torch.equal(answer, word)
    assert (len(data.train), len(data.val)) == (18_000 * 14, 2_000 * 14)


def test_what_would_tear_a_tasks_answers_apart_is_refused(tmp_path):
    copying = corpora.Source.named("copy(length=4, distance=9, symbols=20)")

    with pytest.raises(SettingsError, match="counts its answers in characters"):
        corpora.prepare(tmp_path, copying, tokenizer="bpe")
    with pytest.raises(SettingsError, match=r"holds out 0\.1 of its examples"):
        corpora.prepare(tmp_path, copying, val_fraction=0.2)


def test_a_misspelt_task_is_named():
    with pytest.raises(SettingsError, match='there is no corpus "copi"') as refused:
        corpora.prepare(".", corpora.Source.named("copi"))
    assert 'did you mean "copy"?' in refused.value.hint

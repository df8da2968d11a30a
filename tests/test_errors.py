"""What a user is told."""

import pickle

import pytest

from microformer import errors
from microformer.errors import MicroformerError, SettingsError, nearest, notice


def test_an_error_shows_its_sentence_and_under_it_the_hint():
    error = SettingsError("NUM_HEADS is 0.", "use 1 or more.")

    assert str(error) == "NUM_HEADS is 0.\nhint: use 1 or more."
    assert (error.sentence, error.hint) == ("NUM_HEADS is 0.", "use 1 or more.")


def test_an_error_without_a_hint_is_one_line():
    assert str(SettingsError("NUM_HEADS is 0.")) == "NUM_HEADS is 0."


@pytest.mark.parametrize(
    "name", ["SettingsError", "DataError", "RunError", "TrainingError", "GenerationError", "FileError"]
)
def test_everything_a_user_can_mend_is_one_family_with_exit_code_2(name):
    kind = getattr(errors, name)

    assert issubclass(kind, MicroformerError)
    assert kind("a sentence.").exit_code == 2


def test_an_error_comes_whole_through_another_process():
    error = pickle.loads(pickle.dumps(SettingsError("NUM_HEADS is 0.", "use 1 or more.")))

    assert type(error) is SettingsError
    assert str(error) == "NUM_HEADS is 0.\nhint: use 1 or more."


def test_a_notice_is_one_line_on_standard_error_and_never_in_the_results(capsys):
    notice("no network: using pydocs.")

    out, err = capsys.readouterr()
    assert (out, err) == ("", "note: no network: using pydocs.\n")


@pytest.mark.parametrize(
    ("word", "meant"), [("lerning_rate", "learning_rate"), ("embed_dims", "embed_dim"), ("zzz", None), ("", None)]
)
def test_the_nearest_known_word_is_suggested_only_when_near(word, meant):
    assert nearest(word, iter(["embed_dim", "learning_rate", "num_heads"])) == meant

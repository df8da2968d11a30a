"""Observers: early stopping counts validations, and only those."""

import json

import pytest

from microformer.training.observers import EarlyStopping, Observer


def told(stopping, *losses):
    for loss in losses:
        stopping.on_row({"step": 1, "val_loss": loss})
    return stopping.wants_to_stop()


def test_training_stops_after_so_many_validations_without_a_better_one():
    stopping = EarlyStopping(patience=3)

    assert told(stopping, 2.0, 1.0, 1.5, 1.0) is None
    assert told(stopping, 1.2) == "validation has not improved 3 times in a row"


def test_a_better_validation_starts_the_count_again():
    assert told(EarlyStopping(patience=2), 2.0, 2.1, 1.9, 2.0) is None


def test_rows_without_a_validation_do_not_count():
    stopping = EarlyStopping(patience=1)
    told(stopping, 1.0)
    for step in range(10):
        stopping.on_row({"step": step, "train_loss": 5.0})

    assert stopping.wants_to_stop() is None


def test_a_tasks_exact_match_can_be_what_has_to_improve():
    stopping = EarlyStopping(patience=2, on_exact_match=True)
    for exact, loss in ((0.1, 2.0), (0.5, 2.1), (0.5, 1.9), (0.7, 3.0), (0.6, 1.0)):
        stopping.on_row({"step": 1, "val_loss": loss, "val_exact_match": exact})
        assert stopping.wants_to_stop() is None

    stopping.on_row({"step": 2, "val_loss": 0.5, "val_exact_match": 0.7})

    assert stopping.wants_to_stop() == "validation has not improved 2 times in a row"


def test_where_every_example_is_right_it_ends_whatever_the_patience():
    stopping = EarlyStopping(patience=0, on_exact_match=True)

    stopping.on_row({"step": 1, "val_loss": 0.1, "val_exact_match": 1.0})

    assert stopping.wants_to_stop() == "every example held out is right"


def test_patience_0_never_stops():
    assert told(EarlyStopping(patience=0), 1.0, *[2.0] * 100) is None


@pytest.mark.parametrize("before", [[], [1.0], [1.0, 2.0]], ids=str)
def test_the_count_goes_on_over_a_resume(before):
    whole, first = EarlyStopping(patience=2), EarlyStopping(patience=2)
    told(whole, *before)
    told(first, *before)
    resumed = EarlyStopping(patience=2)
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))

    for loss in (1.5, 1.2):
        assert told(resumed, loss) == told(whole, loss)


def test_the_base_observer_sees_all_and_does_nothing():
    nobody = Observer()
    nobody.on_step(1, 0.5, 1.0)
    nobody.on_row({"step": 1, "train_loss": 1.0})
    nobody.load_state_dict(nobody.state_dict())

    assert nobody.wants_to_stop() is None

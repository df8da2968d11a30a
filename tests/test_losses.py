"""Which tokens are hard: by kind, and the passages that cost most."""

from itertools import pairwise

import torch

from microformer import tokenization
from microformer.pipeline.losses import by_class, class_of, surprising
from microformer.tokenization.documents import WithEnd

TEXT = "The year 1984, \n\t(naïve)\r\n" * 40
CHAR = tokenization.train("char", [TEXT])


def test_tokens_are_told_apart_by_their_first_character_that_is_no_space():
    with_end = WithEnd(CHAR)
    kinds = {token: class_of(with_end, token) for token in range(with_end.vocab_size)}

    assert kinds[with_end.end_of_document] == "end of document"
    expected = {"T": "letters", "ï": "letters", "9": "digits", ",": "punctuation", " ": "spaces", "\n": "line ends"}
    assert {text: kinds[int(CHAR.encode(text)[0])] for text in expected} == expected


def test_the_loss_of_each_kind_is_the_mean_over_its_tokens_that_were_scored():
    ids = torch.tensor(CHAR.encode("a1e 9".replace("a", "ï")).astype("int64"))
    each = torch.tensor([float("nan"), 2.0, 3.0, 0.5, 4.0])

    found = by_class(CHAR, ids, each)

    assert found == {
        "digits": {"nats": 3.0, "share": 0.5},
        "letters": {"nats": 3.0, "share": 0.25},
        "spaces": {"nats": 0.5, "share": 0.25},
    }


def test_the_passages_that_cost_most_come_first_and_do_not_overlap():
    ids = torch.tensor(CHAR.encode(TEXT).astype("int64"))
    each = torch.ones(len(ids))
    each[200:232] = 5.0
    each[500:532] = 7.0

    found = surprising(CHAR, ids, each)

    assert [one["token"] for one in found[:2]] == [500, 200]
    assert [one["nats"] for one in found[:2]] == [7.0, 5.0]
    assert found[0]["text"] == TEXT[500:532]
    assert found[0]["before"] == TEXT[484:500]
    begins = sorted(one["token"] for one in found)
    assert all(second - first >= 32 for first, second in pairwise(begins))

"""How much of validation stands in training: what is there is found, what isn't is not."""

import numpy as np
import pytest
import torch

from microformer.corpora import overlap
from microformer.corpora.overlap import shared


def random_ids(count, seed, vocab=27):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, vocab, count).astype(np.uint8))


@pytest.mark.parametrize("block", [50, 1 << 17])
def test_a_passage_that_is_in_both_is_counted_to_the_stretch(block, monkeypatch):
    monkeypatch.setattr(overlap, "_BLOCK", block)
    train, val = random_ids(5000, 1), random_ids(1000, 2)
    val[300:500] = train[4000:4200]

    found = shared(train, val, "char")

    # 200 tokens have 137 stretches of 64, and there are 937 in all.
    assert found == {"length": 64, "looked_at": 937, "shared": 137}


def test_texts_without_anything_in_common_share_nothing():
    assert shared(random_ids(100_000, 1), random_ids(10_000, 2), "char")["shared"] == 0


def test_of_a_large_text_a_sample_tells_as_much(monkeypatch):
    train, val = random_ids(200_000, 1), random_ids(40_000, 2)
    val[:20_000] = train[100_000:120_000]
    monkeypatch.setattr(overlap, "_LOOKED_AT", 5_000)

    found = shared(train, val, "bpe")

    assert found["length"] == 16
    assert 4_000 < found["looked_at"] < 6_000
    assert found["shared"] / found["looked_at"] == pytest.approx(0.5, abs=0.05)


def test_what_is_shorter_than_a_stretch_says_nothing():
    assert shared(random_ids(500, 1), random_ids(63, 2), "char") is None

"""What a loss is held against: Kneser–Ney beside one worked out slowly, and sums that must be 1."""

import lzma
import math
import random
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from microformer import baselines

TEXT = "the cat sat on the mat and the rat sat on the cat that sat at the hat of the bat and then "
VOCAB = 9


def ids_of(text) -> torch.Tensor:
    letters = sorted(set(TEXT))
    return torch.tensor([letters.index(letter) for letter in text])


def some_ids(count, seed=0, vocab=VOCAB) -> torch.Tensor:
    """Ids in which much depends on the two before."""
    draw, ids = random.Random(seed), [0, 1]
    while len(ids) < count:
        ids.append((ids[-1] * 2 + ids[-2] + draw.choice([0, 0, 0, 1, 5])) % vocab)
    return torch.tensor(ids)


def slowly(train, ids, vocab, order) -> list[float]:
    """P of each token, by the formula read from left to right, with dictionaries."""
    train, ids = train.tolist(), ids.tolist()
    counts = {n: Counter(tuple(train[at : at + n]) for at in range(len(train) - n + 1)) for n in range(1, order + 1)}
    for n in range(order - 1, 0, -1):
        raw = Counter(tuple(train[at : at + n + 1]) for at in range(len(train) - n))
        counts[n] = Counter(gram[1:] for gram in raw)
    discounts, after = {}, {}
    for n in range(1, order + 1):
        of = Counter(counts[n].values())
        share = of[1] / (of[1] + 2 * of[2]) if of[1] else 0.5
        discounts[n] = [0.0] + [
            min(max(c - (c + 1) * share * of[c + 1] / of[c] if of[c] else share, 0.0), c) for c in (1, 2, 3)
        ]
        after[n] = defaultdict(dict)
        for gram, count in counts[n].items():
            after[n][gram[:-1]][gram[-1]] = count

    def p(token, before, n):
        if n == 0:
            return 1 / vocab
        shorter = p(token, before[1:], n - 1)
        found = after[n].get(before)
        if not found:
            return shorter
        off = [discounts[n][min(count, 3)] for count in found.values()]
        own = found.get(token, 0)
        return (own - discounts[n][min(own, 3)]) / sum(found.values()) + sum(off) / sum(found.values()) * shorter

    text = train + ids
    return [p(text[at], tuple(text[at - order + 1 : at]), order) for at in range(len(train), len(text))]


@pytest.mark.parametrize(("train", "ids", "vocab"), [
    (some_ids(400), some_ids(60, 1), VOCAB),
    (ids_of(TEXT * 2), ids_of("the cat that sat on a hat ate "), len(set(TEXT))),
    (some_ids(40), some_ids(30, 2), VOCAB),
])  # fmt: skip
def test_every_order_is_what_the_formula_gives_when_it_is_worked_out_slowly(train, ids, vocab):
    found = baselines.kneser_ney(train, ids, vocab)

    assert list(found) == [1, 2, 3, 4, 5, 6, 7]
    for order, loss in found.items():
        by_hand = slowly(train, ids, vocab, order)
        assert loss == pytest.approx(-sum(map(math.log, by_hand)) / len(by_hand), rel=1e-9)


def test_the_probabilities_of_all_tokens_sum_to_1():
    train = some_ids(300)

    for before in (some_ids(9, 3), some_ids(9, 4), torch.zeros(9, dtype=torch.long)):
        total = 0.0
        for token in range(VOCAB):
            each = baselines.kneser_ney(torch.cat([train, before]), torch.tensor([token]), VOCAB)
            total += math.exp(-each[7])
        assert total == pytest.approx(1)


def test_a_longer_context_helps_where_there_is_something_to_know():
    found = baselines.kneser_ney(some_ids(4000), some_ids(500, 1), VOCAB)

    assert found[3] < found[2] - 0.2
    assert found[2] == pytest.approx(found[1], abs=0.05)  # one token alone tells nothing of such a sum
    assert found[1] == pytest.approx(baselines.unigram(some_ids(4000), some_ids(500, 1), VOCAB), abs=0.02)
    noise = torch.randint(VOCAB, (3000,), generator=torch.Generator().manual_seed(1))
    assert baselines.kneser_ney(noise[:2500], noise[2500:], VOCAB)[1] == pytest.approx(math.log(VOCAB), abs=0.02)


def test_a_large_vocabulary_has_shorter_orders_and_a_short_text_too():
    large = torch.from_numpy(np.random.default_rng(0).integers(0, 8192, 500).astype(np.int16))

    assert max(baselines.kneser_ney(large[:400], large[400:], 8192)) == 4
    assert max(baselines.kneser_ney(torch.tensor([0, 1, 0]), torch.tensor([1]), 2)) == 3


def test_xz_is_bits_a_byte_of_what_it_makes():
    text = TEXT.encode() * 20

    assert baselines.xz(text) == 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)
    assert baselines.xz(text) < baselines.xz(TEXT.encode())
    assert baselines.xz(b"") > 0

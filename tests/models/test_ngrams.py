"""Embeddings of n-grams: each n-gram has its vector, whatever the road by which its tokens came."""

import torch
from torch.testing import assert_close

from microformer.models.ngrams import NGrams

VOCAB = 5


def filled(order, entries, dropout=0.0):
    ngrams = NGrams(order, entries, VOCAB, 4, dropout)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for table in ngrams.tables:
            table.weight.normal_(generator=generator)
    return ngrams


def vectors(ngrams, ids, position=None, recent=None):
    position = torch.arange(ids.shape[1]) if position is None else position
    recent = torch.zeros(ids.shape[0], ngrams.order - 1, dtype=torch.long) if recent is None else recent
    return ngrams(ids, recent, position)


def test_where_the_table_holds_them_all_every_pair_and_every_begin_has_a_row_of_its_own():
    ngrams = filled(2, 1000)
    table = ngrams.tables[0].weight
    assert len(table) == (VOCAB + 1) ** 2
    rows = set()
    for before in [None, *range(VOCAB)]:
        for token in range(VOCAB):
            ids = torch.tensor([[token] if before is None else [before, token]])
            found = vectors(ngrams, ids)[0, -1]
            rows |= {int((table == found).all(-1).nonzero())}

    assert len(rows) == VOCAB * (VOCAB + 1)


def test_the_same_last_tokens_have_the_same_vector_and_others_another():
    ngrams = filled(3, 10_000)
    one = vectors(ngrams, torch.tensor([[4, 1, 2, 3], [0, 1, 2, 3]]))
    other = vectors(ngrams, torch.tensor([[4, 2, 2, 3]]))

    assert torch.equal(one[0, 3], one[1, 3])  # 1 2 3
    assert not torch.equal(one[0, 2], one[1, 2])  # 4 1 2 and 0 1 2
    assert not torch.equal(one[0, 3], other[0, 3])


def test_a_text_in_two_parts_is_the_text():
    ngrams = filled(4, 50)
    ids = torch.randint(VOCAB, (3, 10), generator=torch.Generator().manual_seed(2))
    whole = vectors(ngrams, ids)

    assert_close(vectors(ngrams, ids[:, 6:], torch.arange(6, 10), recent=ids[:, 3:6]), whole[:, 6:])


def test_what_came_before_a_texts_begin_is_not_seen():
    ngrams = filled(3, 50)
    ids = torch.tensor([[1, 2, 3]])
    alone = vectors(ngrams, ids)

    assert torch.equal(vectors(ngrams, ids, recent=torch.tensor([[4, 4]])), alone)
    assert not torch.equal(vectors(ngrams, ids, torch.arange(2, 5), recent=torch.tensor([[4, 4]])), alone)


def test_in_training_each_ngram_is_left_out_by_chance_and_the_sum_stays_the_same_on_average():
    ngrams = filled(3, 10_000, dropout=0.25)
    ids = torch.tensor([[1, 2, 3]])
    pair, both = vectors(filled(2, 10_000), ids)[0, 2], vectors(filled(3, 10_000), ids)[0, 2]
    torch.manual_seed(1)

    found = vectors(ngrams.train(), ids.expand(4000, 3))[:, 2] * 0.75

    for chosen, share in ((both, 0.5625), (pair, 0.1875), (both - pair, 0.1875), (0 * pair, 0.0625)):
        assert abs(float(torch.isclose(found, chosen, atol=1e-5).all(-1).float().mean()) - share) < 0.03
    assert torch.equal(vectors(ngrams.eval(), ids)[0, 2], both)


def test_a_hash_spreads_over_the_rows_that_there_are():
    ngrams = NGrams(4, 64, 65, 1)
    with torch.no_grad():
        ngrams.tables[2].weight.copy_(torch.arange(64.0)[:, None])
    ids = torch.randint(65, (1, 6400), generator=torch.Generator().manual_seed(3))
    found = vectors(ngrams, ids)[0, 4:, 0]

    counts = torch.bincount(found.long(), minlength=64)
    assert counts.min() > 50
    assert counts.max() < 160

"""Positions: what each kind tells attention of where tokens stand, against the formula it claims."""

import math

import pytest
import torch
from torch.testing import assert_close

from microformer.models import positions
from microformer.models.positions import T5, Alibi, Learned, PositionKind, Rope, Sinusoidal, rope
from microformer.models.spec import POSITIONS, Gelu, LayerSpec, ModelSpec, RMSNorm, Softmax

BASE = 10000.0


def turned_by(rope, x, position):
    return rope.turn(position, x.dtype)(x)


def heads(length, d_head, seed):
    return torch.randn(1, length, 2, d_head, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("d_head", [2, 8, 64])
def test_rope_turns_each_pair_as_a_complex_number(d_head):
    x = heads(50, d_head, seed=1)
    half = d_head // 2
    angle = torch.arange(50)[:, None].double() * BASE ** (-2 * torch.arange(half).double() / d_head)
    turned = torch.complex(x[..., :half].double(), x[..., half:].double()) * torch.polar(
        torch.ones_like(angle), angle
    ).unsqueeze(1)

    found = turned_by(Rope(50, d_head, BASE), x, torch.arange(50))

    assert_close(found, torch.cat([turned.real, turned.imag], dim=-1).float(), rtol=1e-4, atol=1e-4)


def test_a_head_of_odd_width_keeps_its_last_number():
    x = heads(9, 5, seed=1)
    rope = Rope(9, 5, BASE)

    turned = turned_by(rope, x, torch.arange(9))

    assert torch.equal(turned[..., 4], x[..., 4])
    assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert not torch.allclose(turned[:, 1:, :, :4], x[:, 1:, :, :4])


@pytest.mark.parametrize("d_head", [3, 8])
def test_under_rope_a_score_depends_on_distance_alone(d_head):
    rope, q, k = Rope(200, d_head, BASE), heads(1, d_head, seed=1), heads(1, d_head, seed=2)

    def score(query, key):
        turned = turned_by(rope, q, torch.tensor([query])) * turned_by(rope, k, torch.tensor([key]))
        return turned.sum(-1)

    for distance in (0, 1, 7, 60):
        for shift in (1, 31, 139):
            assert_close(score(distance, 0), score(distance + shift, shift), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(score(7, 0), score(8, 0))


def test_rope_changes_no_length_and_nothing_at_position_0():
    x = heads(20, 8, seed=1)
    turned = turned_by(Rope(20, 8, BASE), x, torch.arange(20))

    assert torch.equal(turned[:, 0], x[:, 0])
    assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_rope_takes_a_position_of_its_own_for_each_row():
    x = heads(4, 8, seed=1).expand(2, -1, -1, -1)
    rope, where = Rope(20, 8, BASE), torch.tensor([[0, 1, 2, 3], [9, 10, 0, 1]])

    together = turned_by(rope, x, where)

    for row in (0, 1):
        assert torch.equal(together[row : row + 1], turned_by(rope, x[row : row + 1], where[row]))


def test_sinusoids_are_the_papers_formula():
    table = Sinusoidal(30, 6, BASE).embed(torch.arange(30))

    for t in (0, 1, 13, 29):
        for i in range(3):
            angle = t / BASE ** (2 * i / 6)
            assert table[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_learned_positions_are_a_row_of_a_table_each():
    learned = Learned(5, 4)
    with torch.no_grad():
        learned.table.weight.copy_(torch.arange(20.0).view(5, 4))

    assert torch.equal(learned.embed(torch.tensor([3, 0])), torch.tensor([[12.0, 13, 14, 15], [0, 1, 2, 3]]))


@pytest.mark.parametrize(
    ("word", "kind", "embeds", "rotates"),
    [
        ("learned", Learned, True, False), ("sinusoidal", Sinusoidal, True, False), ("rope", Rope, False, True),
        ("none", PositionKind, False, False), ("alibi", Alibi, False, False), ("t5", T5, False, False),
    ],
)  # fmt: skip
def test_each_kind_says_where_it_is_felt(word, kind, embeds, rotates):
    layers = (LayerSpec(Softmax(), Gelu()),)
    built = positions.build(ModelSpec(11, 16, 2, 24, 8, layers, POSITIONS[word](), RMSNorm()))
    where, x = torch.arange(8), heads(8, 8, seed=1)

    assert type(built) is kind
    assert (built.embeds, built.rotates) == (embeds, rotates)
    assert (built.embed(where) is not None) == embeds
    assert (built.turn(where, x.dtype) is not None) == rotates
    assert built.biases == (word in ("alibi", "t5"))


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [
        (1, [2**-8]), (4, [2**-2, 2**-4, 2**-6, 2**-8]), (8, [2**-i for i in range(1, 9)]),
        (6, [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]),
    ],
)  # fmt: skip
def test_alibi_takes_from_a_score_its_distance_at_each_heads_rate(heads, slopes):
    found = Alibi(heads).bias(torch.arange(3, 6), torch.arange(6))

    for h, slope in enumerate(slopes):
        for query in range(3):
            assert found[h, query].tolist() == pytest.approx([-slope * (query + 3 - key) for key in range(6)])


@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (8, 20), (2, 5), (5, 100)])
def test_t5_has_a_bucket_for_each_near_distance_and_wider_ones_further_out(buckets, distance):
    bucket = T5(2, buckets, distance).bucket(torch.arange(300)).tolist()
    near = buckets // 2

    assert bucket[: near + 1] == list(range(near + 1))
    assert bucket == sorted(bucket)
    assert set(bucket) == set(range(buckets))
    assert bucket[distance - 1] == bucket[299] == buckets - 1
    for d in range(near, distance):
        assert bucket[d] == near + int(math.log(d / near) / math.log(distance / near) * (buckets - near) + 1e-6)


def test_t5_gives_a_pair_its_buckets_number_for_each_head_and_rows_their_own():
    kind = T5(3, 8, 20)
    key = torch.arange(6) - torch.tensor([[0], [4]])
    found = kind.bias(key[:, 4:], key)

    assert found.shape == (2, 3, 2, 6)
    assert found[0, 2, 1, 2] == kind.table.weight[int(kind.bucket(torch.tensor(3))), 2]
    assert torch.equal(found[0], found[1])  # distances do not change where a text begins


def test_a_stretched_rope_slows_the_slowest_angle_by_the_stretch_and_leaves_the_fastest():
    plain, stretched = Rope(64, 16, BASE), Rope(64, 16, BASE, stretch=4.0)

    assert_close(stretched.cos[:, 0], plain.cos[:, 0])
    assert_close(stretched.sin[40, 7], plain.sin[10, 7], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("d_head", [2, 7, 64])
def test_a_quarter_turn_by_halves_is_the_one_by_a_matrix(d_head):
    x = torch.randn(3, 5, 2, d_head)

    assert torch.equal(rope._quarter_turned(x), x @ Rope(8, d_head, 10_000.0).quarter_turn)

"""Muon: steps that are orthogonal, the same one by one as together, and that get somewhere."""

from copy import deepcopy

import pytest
import torch
from torch.testing import assert_close

from microformer.training.muon import Muon, orthogonalise


def random_matrices(count, rows, columns, seed=1):
    return torch.randn(count, rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(8, 8), (16, 4), (4, 16), (1, 5), (5, 1), (64, 24)], ids=str)
def test_singular_values_land_between_0_7_and_1_2_and_directions_stay(shape):
    matrices = random_matrices(3, *shape)
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)

    result = orthogonalise(matrices)

    # A direction a thousand times weaker than the others may take more than five rounds.
    kept = torch.linalg.svdvals(matrices) > 0.02 * matrices.norm(dim=(-2, -1))[:, None]
    values = (u.mT @ result @ v.mT).diagonal(dim1=-2, dim2=-1)
    assert values[kept].min() > 0.65
    assert values[kept].max() < 1.25
    assert_close(u @ values.diag_embed() @ v, result, rtol=1e-3, atol=1e-3)


def test_the_size_of_a_matrix_makes_no_difference_and_zero_stays_zero():
    matrices = random_matrices(2, 6, 9)

    assert_close(orthogonalise(1e4 * matrices), orthogonalise(matrices), rtol=1e-3, atol=1e-3)
    assert orthogonalise(torch.zeros(1, 4, 4)).eq(0).all()


def stepped(matrices, gradients, **options):
    parameters = [matrix.clone().requires_grad_() for matrix in matrices]
    optimizers = (
        [Muon([one], **options) for one in parameters] if options.pop("apart") else [Muon(parameters, **options)]
    )
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    return [parameter.detach() for parameter in parameters]


def test_matrices_moved_together_move_as_they_would_one_by_one():
    matrices = [*random_matrices(3, 6, 4), *random_matrices(2, 4, 6), *random_matrices(1, 5, 5)]
    gradients = [[torch.randn_like(one) for one in matrices] for _ in range(3)]

    together, apart = (stepped(matrices, gradients, lr=0.1, weight_decay=0.1, apart=how) for how in (False, True))

    for one, other in zip(together, apart, strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_matrices_on_one_another_move_as_they_would_apart():
    parts, gradients = random_matrices(3, 4, 6), random_matrices(3, 4, 6, seed=2)
    whole = parts.flatten(0, 1).clone().requires_grad_()
    whole.grad = gradients.flatten(0, 1)
    Muon([{"params": [whole], "rows": (4, 4, 4)}], lr=0.1, weight_decay=0.1).step()

    apart = stepped(list(parts), [list(gradients)], lr=0.1, weight_decay=0.1, apart=True)

    assert_close(whole.detach(), torch.cat(apart), rtol=1e-5, atol=1e-6)


def test_a_step_is_its_formula():
    (w,), (g1, g2) = random_matrices(1, 8, 2), random_matrices(2, 8, 2, seed=2)
    lr, decay, mu = 0.1, 0.5, 0.9
    m1, m2 = g1, mu * g1 + g2
    expected = w
    for g, m in ((g1, m1), (g2, m2)):
        expected = expected * (1 - lr * decay) - lr * 2 * orthogonalise((g + mu * m)[None])[0]  # sqrt(8 / 2) = 2

    (found,) = stepped([w], [[g1], [g2]], lr=lr, momentum=mu, weight_decay=decay, apart=False)

    assert_close(found, expected)


def test_a_matrix_without_a_gradient_stays_where_it_is():
    matrices = [one.clone().requires_grad_() for one in random_matrices(2, 4, 4)]
    matrices[0].grad = torch.ones(4, 4)
    before = matrices[1].detach().clone()
    Muon(matrices, lr=0.1).step()

    assert torch.equal(matrices[1], before)


def test_muon_finds_the_matrix_that_made_the_data():
    truth, x = random_matrices(1, 6, 6)[0], random_matrices(1, 200, 6, seed=2)[0]
    w = torch.zeros(6, 6, requires_grad=True)
    optimizer = Muon([w], lr=0.2, momentum=0.9)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 300)
        loss = (x @ w.T - x @ truth.T).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    assert loss.item() < 1e-3


def test_in_bfloat16_the_step_is_coarse_and_the_weights_and_momentum_are_not():
    w = random_matrices(1, 6, 6)[0].requires_grad_()
    w.grad = random_matrices(1, 6, 6, seed=2)[0]
    before = w.detach().clone()
    optimizer = Muon([w], lr=1.0, dtype=torch.bfloat16)
    optimizer.step()

    assert w.dtype == optimizer.state[w]["momentum"].dtype == torch.float32
    exact = stepped([before], [[random_matrices(1, 6, 6, seed=2)[0]]], lr=1.0, apart=False)[0]
    assert_close(w.detach(), exact, rtol=0, atol=0.05)


def test_a_saved_state_goes_on_to_the_bit():
    gradients = random_matrices(4, 5, 3, seed=2)
    whole = random_matrices(1, 5, 3)[0].requires_grad_()
    first = Muon([whole], lr=0.1)
    for gradient in gradients[:2]:
        whole.grad = gradient
        first.step()
    again = whole.detach().clone().requires_grad_()
    second = Muon([again], lr=0.1)
    second.state[again] = deepcopy(first.state[whole])
    for gradient in gradients[2:]:
        whole.grad, again.grad = gradient, gradient
        first.step()
        second.step()

    assert torch.equal(whole, again)

"""Norms per layer: of each part's gradient and weights, before a step that is logged."""

import pytest
import torch

from microformer.models.model import Microformer
from microformer.settings import Settings, model_spec
from microformer.training.norms import Norms, parts


def model(**kind):
    small = {"embed_dim": 16, "num_heads": 2, "num_layers": 2, "ff_dim": 32, "max_seq_len": 16, "init": "normal"}
    return Microformer(model_spec(Settings().changed({**small, **kind}), 30), seed=1)


def with_gradients(model_):
    ids = torch.randint(30, (2, 17), generator=torch.Generator().manual_seed(1))
    loss, _ = model_.loss_and_state(ids[:, :-1], ids[:, 1:], None, None)
    loss.backward()
    return model_


def test_parts_are_blocks_and_what_stands_around_them():
    assert list(parts(model())) == ["embed", "blocks.0", "blocks.1", "norm", "unembed"]
    assert list(parts(model(tie_embeddings=True, positions="learned", ngrams=2))) == [
        "embed", "ngrams", "positions", "blocks.0", "blocks.1", "norm",
    ]  # fmt: skip


def test_squares_of_the_parts_add_up_to_those_of_the_whole():
    watched = with_gradients(model())
    norms = Norms(watched)
    norms.on_gradients(7)

    found = norms.of(7)
    whole = torch.nn.utils.clip_grad_norm_(watched.parameters(), float("inf"))
    assert sum(found[f"grad_norm/{part}"] ** 2 for part in norms.parts) ** 0.5 == pytest.approx(float(whole), rel=1e-5)
    block = torch.cat([one.detach().flatten() for one in watched.blocks[1].parameters()])
    assert found["weight_norm/blocks.1"] == pytest.approx(float(block.norm()), rel=1e-5)


def test_what_has_no_gradient_counts_nothing():
    watched = with_gradients(model())
    watched.embed.weight.grad = None
    norms = Norms(watched)
    norms.on_gradients(1)

    assert norms.of(1)["grad_norm/embed"] == 0.0
    assert norms.of(1)["grad_norm/blocks.0"] > 0.0


def test_a_step_that_was_not_measured_has_none():
    norms = Norms(with_gradients(model()))
    assert norms.of(1) == {}
    norms.on_gradients(10)

    assert norms.of(9) == {}
    assert norms.of(10)
    assert norms.of(11) == {}

"""Every choice of component keeps the contracts, and the contracts can fail: a broken part is found."""

import dataclasses

import pytest
import torch

from microformer import contracts
from microformer.models import kernels, state
from microformer.models.feedforward import MLP
from microformer.models.grammar import one, per_layer
from microformer.models.linear import Linear
from microformer.models.norms import RMSNorm
from microformer.models.spec import (
    ATTENTION,
    FEEDFORWARD,
    MEMORY,
    NORM,
    POSITIONS,
    LayerSpec,
    ModelSpec,
    NoPositions,
)
from microformer.models.state import State
from microformer.models.taps import Scope


def small_spec(
    attention="softmax", feedforward="gelu", positions="rope", norm="rmsnorm", num_layers=2, **changes
) -> ModelSpec:
    parts = zip(
        per_layer(attention, ATTENTION, "ATTENTION", num_layers),
        per_layer(feedforward, FEEDFORWARD, "FEEDFORWARD", num_layers),
        strict=True,
    )
    sizes = {"vocab_size": 11, "embed_dim": 16, "num_heads": 2, "ff_dim": 24, "max_seq_len": 8}
    return ModelSpec(
        layers=tuple(LayerSpec(*pair) for pair in parts),
        positions=one(positions, POSITIONS, "POSITIONS"),
        norm=one(norm, NORM, "NORM"),
        **{**sizes, **changes},
    )


# Each word, and arguments with which it does what it is for in a context of 8.
ATTENTIONS = {
    **{kind: kind for kind in ATTENTION}, "topk": "topk(3)", "window": "window(3)", "strided": "strided(3)",
    "fixed": "fixed(3, 1)", "window with sinks": "window(3, sinks=2)",
}  # fmt: skip
SCORED = {kind: each for kind, each in ATTENTIONS.items() if kind != "linear"}
SPECS = {
    **{f"attention {kind}": small_spec(each) for kind, each in ATTENTIONS.items()},
    **{f"positions {kind}": small_spec(positions=kind) for kind in POSITIONS},
    **{f"positions {kind}, qk_norm": small_spec(positions=kind, qk_norm=True) for kind in POSITIONS},
    **{f"feedforward {kind}": small_spec(feedforward=kind) for kind in FEEDFORWARD},
    **{f"feedforward {kind}, bias": small_spec(feedforward=kind, bias=True) for kind in FEEDFORWARD},
    **{f"norm {kind}": small_spec(norm=kind, num_layers=1) for kind in NORM},
    **{f"norm {kind}, bias": small_spec(norm=kind, bias=True, num_layers=1) for kind in NORM},
    **{
        f"attention {kind}, two heads a key": small_spec(each, embed_dim=32, num_heads=4, num_kv_heads=2)
        for kind, each in ATTENTIONS.items()
    },
    **{
        f"attention {kind}, capped, gated": small_spec(each, score_cap=2.0, output_gate=True)
        for kind, each in SCORED.items()
    },
    "blocks that the text does not fill": small_spec(
        "window(4, sinks=1) strided(4) fixed(4, 2)", max_seq_len=14, num_layers=3
    ),
    "blocks in a long text, with a learned bias": small_spec(
        "window(5, sinks=2) fixed(6, 2)", positions="t5(8, 12)", max_seq_len=33
    ),
    "sums over many blocks": small_spec("linear", max_seq_len=150, num_layers=1),
    "linear among others": small_spec("linear window(3) differential", num_layers=3, ngrams=2, ngram_entries=50),
    "attention by layers": small_spec(attention="topk(3) entmax15*2 softmax", num_layers=5, feedforward="gelu swiglu"),
    "one head of keys": small_spec(num_heads=4, num_kv_heads=1, qk_norm=True, bias=True),
    **{
        f"norms {placement}": small_spec(norm="layernorm", norm_placement=placement, bias=True)
        for placement in ("post", "sandwich")
    },
    "post, scalars, scaled embedding": small_spec(norm_placement="post", residual_scalars=True, embed_scale=4.0),
    "pre, scalars": small_spec(residual_scalars=True),
    **{f"attention {kind}, a bias on scores": small_spec(each, positions="alibi") for kind, each in SCORED.items()},
    "a learned bias, shared keys": small_spec(positions="t5(4, 6)", num_heads=4, num_kv_heads=2),
    "stretched": small_spec(positions="rope(base=500, stretch=4)"),
    "arguments": small_spec(positions="rope(base=500)", norm="layernorm(eps=0.001)", attention="topk(k=2)"),
    "tied": small_spec(tie_embeddings=True),
    "tied, learned positions, biases": small_spec(tie_embeddings=True, positions="learned", bias=True),
    "as GPT-2": small_spec(
        positions="learned", norm="layernorm", feedforward="gelu", bias=True, tie_embeddings=True, dropout=0.1
    ),
    "as Llama": small_spec(positions="rope", norm="rmsnorm", feedforward="swiglu"),
    "a pattern over the layers": small_spec(feedforward="gelu swiglu*2 relu2", num_layers=5, qk_norm=True),
    "pairs": small_spec(ngrams=2, ngram_entries=1000),
    "n-grams that share rows": small_spec(ngrams=4, ngram_entries=50),
    "one head": small_spec(num_heads=1),
    "heads of odd width": small_spec(embed_dim=15, num_heads=3, positions="rope"),
    "a context longer than a block of the kernel": small_spec(max_seq_len=66, num_layers=1),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_every_choice_keeps_every_contract(spec):
    broken = [f"{verdict.contract} {verdict.detail}" for verdict in contracts.check(spec) if not verdict.kept]

    assert not broken, "\n".join(broken)


def broken_contracts(spec=None) -> set[str]:
    contract_of = {(contract.__doc__ or "").strip(): contract.__name__ for contract in contracts.CONTRACTS}
    verdicts = contracts.check(spec or small_spec())
    assert all(verdict.kept == (verdict.detail == "") for verdict in verdicts)
    return {contract_of[verdict.contract] for verdict in verdicts if not verdict.kept}


def test_nothing_is_found_where_nothing_is_broken():
    assert broken_contracts() == set()


def test_attention_that_looks_ahead_is_found(monkeypatch):
    class Leaky(kernels.Softmax):
        def forward(self, q, k, v, order, state, tap):
            k, v, state = self.remember(k, v, state)
            return self.as_written(q, k, v, None, tap), state

    monkeypatch.setattr(kernels, "Softmax", Leaky)

    assert {"causality", "cache"} <= broken_contracts()


def test_attention_that_leaves_out_the_positions_bias_or_the_cap_is_found(monkeypatch):
    monkeypatch.setattr(kernels.Softmax, "capped", lambda self, scores: scores)
    assert broken_contracts() == {"scores"}
    monkeypatch.undo()

    mask = kernels.Kernel.added
    monkeypatch.setattr(kernels.TopK, "added", lambda self, order: mask(self, dataclasses.replace(order, bias=None)))
    assert broken_contracts(small_spec("topk(3)")) == {"scores"}
    assert "scores" not in broken_contracts(small_spec("linear"))  # it has none, and says so


def test_a_part_that_gives_something_else_than_its_slot_asks_for_is_found(monkeypatch):
    monkeypatch.setattr(RMSNorm, "forward", lambda self, x: x.double())
    assert contracts.trial(small_spec()).detail == "RMSNorm gives float64 [2, 8, 16] for float32 [2, 8, 16]"
    monkeypatch.setattr(RMSNorm, "forward", lambda self, x: x)
    monkeypatch.setattr(MLP, "forward", lambda self, x, tap: x)
    assert contracts.trial(small_spec()).detail == "MLP gives float32 [2, 8, 16], and not (y, aux_loss)"


def test_a_trial_finds_a_look_ahead_and_a_parameter_that_nothing_reads_and_else_nothing(monkeypatch):
    assert contracts.trial(small_spec()) is None
    assert contracts.trial(small_spec(memory=one("xl(5)", MEMORY, "MEMORY"))) is None
    monkeypatch.setattr(RMSNorm, "forward", lambda self, x: x * self.gain.detach())
    assert "none reaches" in contracts.trial(small_spec()).detail
    monkeypatch.setattr(RMSNorm, "forward", lambda self, x: x.flip(1) * self.gain)
    assert "leaks into" in contracts.trial(small_spec()).detail


def test_a_mask_off_by_one_is_found(monkeypatch):
    def later_too(self):
        visible = self.key[..., None, :] <= self.query[..., :, None] + 1
        return torch.zeros(visible.shape).masked_fill_(~visible, float("-inf"))

    monkeypatch.setattr(state.Positions, "mask", property(later_too))

    assert "causality" in broken_contracts()


def test_a_norm_over_the_whole_text_is_found(monkeypatch):
    monkeypatch.setattr(RMSNorm, "forward", lambda self, x: x / x.square().mean().sqrt() * self.gain)

    assert {"causality", "batch_independence", "cache"} <= broken_contracts()


def test_a_layer_that_forgets_its_input_is_found(monkeypatch):
    monkeypatch.setattr("microformer.models.linear.Embedding.forward", lambda self, ids: self.weight[ids * 0])

    assert "causality" in broken_contracts(small_spec(positions="none"))


def test_a_parameter_that_nothing_reads_is_found(monkeypatch):
    class Heavier(MLP):
        def __init__(self, *sizes, **options):
            super().__init__(*sizes, **options)
            self.unread = Linear(2, 2, bias=False, std=1.0)

    monkeypatch.setattr("microformer.models.feedforward.MLP", Heavier)

    assert broken_contracts() == {"gradients"}


def test_a_parameter_cut_from_the_graph_is_found(monkeypatch):
    monkeypatch.setattr(RMSNorm, "forward", lambda self, x: x * self.gain.detach())

    assert "gradients" in broken_contracts()


def test_a_cache_that_drops_the_first_token_is_found(monkeypatch):
    def forgetful(self, keys, values):
        grown = [torch.cat(pair, dim=2) for pair in ((self.keys, keys), (self.values, values))]
        return state.KVCache(*(torch.cat([one[:, :, 1:2], one[:, :, 1:]], dim=2) for one in grown))

    monkeypatch.setattr(state.KVCache, "extend", forgetful)

    assert {"cache", "reset_rows"} <= broken_contracts()


def test_positions_counted_from_each_call_are_found(monkeypatch):
    whole = State.positions

    def from_zero(self, *arguments):
        where = whole(self, *arguments)
        return state.Positions(query=where.query - self.length, key=where.key - self.length)

    monkeypatch.setattr(State, "positions", from_zero)

    assert "cache" in broken_contracts(small_spec(positions="learned"))


def test_a_reset_that_does_nothing_is_found(monkeypatch):
    monkeypatch.setattr(State, "reset", lambda self, rows: self)

    assert broken_contracts() == {"reset_rows"}


def test_a_reorder_that_does_nothing_is_found(monkeypatch):
    monkeypatch.setattr(State, "reorder", lambda self, rows: self)

    assert broken_contracts() == {"reset_rows"}


def test_a_fused_road_with_another_scale_is_found(monkeypatch):
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda q, k, v, **how: fused(q * 1.01, k, v, **how)
    )

    assert "cache" in broken_contracts()  # a text in pieces takes it, however short


def test_rows_that_see_each_other_are_found(monkeypatch):
    monkeypatch.setattr(MLP, "forward", lambda self, x, tap: (x + tap("hook_post", tap("hook_pre", x)).mean(0), 0.0))

    assert "batch_independence" in broken_contracts()


def test_chance_in_the_forward_pass_is_found(monkeypatch):
    monkeypatch.setattr(Linear, "forward", lambda self, x: x @ (self.weight + torch.rand(1) * 0.1).to(x.dtype).mT)

    assert "determinism" in broken_contracts()


def test_weights_that_ignore_the_seed_are_found(monkeypatch):
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda: Seedless(generator()))

    assert "determinism" in broken_contracts()


class Seedless:
    def __init__(self, generator):
        self.generator = generator

    def manual_seed(self, _):
        return self.generator.manual_seed(7)


def test_a_spec_that_loses_a_part_on_its_way_through_json_is_found(monkeypatch):
    whole = ModelSpec.from_json
    monkeypatch.setattr(
        ModelSpec, "from_json", lambda plain: dataclasses.replace(whole(plain), positions=NoPositions())
    )

    assert broken_contracts() == {"round_trip"}


def test_a_part_that_is_coarse_in_bfloat16_is_found(monkeypatch):
    def coarse(self, x):
        return x if x.dtype == torch.float32 else x * 0

    monkeypatch.setattr(RMSNorm, "forward", coarse)

    assert "precision" in broken_contracts()


@pytest.mark.parametrize("change", ["one fewer", "one more", "another order"])
def test_an_activation_that_is_not_given_as_listed_is_found(monkeypatch, change):
    give = Scope.__call__

    def changed(self, name, tensor):
        if name == "hook_post" and change == "one fewer":
            return tensor
        if name == "hook_post" and change == "one more":
            give(self, "hook_surplus", tensor)
        if change == "another order":
            name = {"hook_pre": "hook_post", "hook_post": "hook_pre"}.get(name, name)
        return give(self, name, tensor)

    monkeypatch.setattr(Scope, "__call__", changed)

    assert broken_contracts() == {"taps"}


def test_logits_that_are_not_finite_are_found(monkeypatch):
    project = Linear.forward
    monkeypatch.setattr(Linear, "forward", lambda self, x: project(self, x) * float("inf"))

    assert "shapes" in broken_contracts()

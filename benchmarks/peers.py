"""Peers from the package index, and a clone of nanoGPT, as plain modules from ids to logits.

All have 4 layers, 4 heads and are 128 wide.

Each is trained by the one loop below, with the recipe that nanoGPT's README gives for a CPU, so that what differs is
the model's code. Peers' validations are left out of their time; ours are in ours.
"""

import importlib.util
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LAYERS, HEADS, WIDTH = 4, 4, 128


@dataclass(frozen=True)
class Recipe:
    """How a peer is trained.

    Args:
        batch, context: sequences a step, tokens a sequence.
        steps: optimizer steps; the rate warms up over 100 and falls by a cosine to a tenth.
        rate: AdamW's highest.
        bfloat16: under autocast.
        evaluations: exact validation losses, at equal parts of the run.
    """

    batch: int = 12
    context: int = 64
    steps: int = 2000
    rate: float = 1e-3
    bfloat16: bool = False
    evaluations: int = 16


class PyTorchs(nn.Module):
    """What PyTorch's own modules make: nn.TransformerEncoder, pre-norm, causal, learned positions."""

    def __init__(self, vocab: int, context: int):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.embed, self.places = nn.Embedding(vocab, WIDTH), nn.Embedding(context, WIDTH)
        self.layers = nn.TransformerEncoder(layer, LAYERS, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.unembed = nn.Linear(WIDTH, vocab, bias=False)
        for table in (self.embed, self.places):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        x = self.embed(ids) + self.places(torch.arange(ids.shape[1]))
        return self.unembed(self.layers(x, mask=mask, is_causal=True))


class HuggingFace(nn.Module):
    """transformers' GPT-2."""

    def __init__(self, vocab: int, context: int):
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel

        off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        ends = {"bos_token_id": None, "eos_token_id": None}
        self.config = GPT2Config(
            vocab_size=vocab, n_positions=context, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, **off, **ends
        )
        self.gpt2 = GPT2LMHeadModel(self.config)

    def forward(self, ids: Tensor) -> Tensor:
        return self.gpt2(ids, use_cache=False).logits

    def generate(self, ids: Tensor, new: int) -> Tensor:
        """Samples with its own cache."""
        return self.gpt2.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, do_sample=True,
            temperature=0.8, top_k=0, pad_token_id=0,
        )  # fmt: skip


class XTransformers(nn.Module):
    """x-transformers, at its defaults for a decoder."""

    def __init__(self, vocab: int, context: int):
        super().__init__()
        from x_transformers import Decoder, TransformerWrapper

        layers = Decoder(dim=WIDTH, depth=LAYERS, heads=HEADS, attn_dim_head=WIDTH // HEADS)
        self.wrapped = TransformerWrapper(num_tokens=vocab, max_seq_len=context, attn_layers=layers)

    def forward(self, ids: Tensor) -> Tensor:
        return self.wrapped(ids)


def nanogpt_module(clone: Path) -> ModuleType:
    """model.py of a clone of nanoGPT's repository."""
    described = importlib.util.spec_from_file_location("nanogpt_model", clone / "model.py")
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    sys.modules["nanogpt_model"] = module
    described.loader.exec_module(module)
    return module


def nanogpt(clone: Path) -> Callable[[int, int], nn.Module]:
    """What builds nanoGPT's model from a clone of its repository."""
    module = nanogpt_module(clone)

    class NanoGPT(nn.Module):
        def __init__(self, vocab: int, context: int):
            super().__init__()
            sizes = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "block_size": context, "vocab_size": vocab}
            self.gpt = module.GPT(module.GPTConfig(**sizes, dropout=0.0, bias=False))

        def forward(self, ids: Tensor) -> Tensor:
            return self.gpt(ids, ids)[0]  # with targets it gives the logits of every position

        def generate(self, ids: Tensor, new: int) -> Tensor:
            return self.gpt.generate(ids, new, temperature=0.8)

    return NanoGPT


def optimizer(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """nanoGPT's: AdamW, decay 0.1 on what has two axes."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [one for one in parameters if one.dim() >= 2], "weight_decay": 0.1},
        {"params": [one for one in parameters if one.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99))


def step(model: nn.Module, moved: torch.optim.Optimizer, ids: Tensor, targets: Tensor, bfloat16: bool) -> None:
    """One optimizer step, as nanoGPT's loop does it."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = model(ids)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    moved.step()
    moved.zero_grad(set_to_none=True)


def train(
    build: Callable[[int, int], nn.Module], recipe: Recipe, tokens: Tensor, val: Tensor, vocab: int, seed: int
) -> list[tuple[float, int, float]]:
    """Trains a peer; gives (seconds, steps, exact validation loss) along the run."""
    torch.manual_seed(seed)
    model = build(vocab, recipe.context)
    moved = optimizer(model, recipe.rate)
    curve, gone = [], 0.0
    for number in range(recipe.steps):
        began = time.perf_counter()
        warm = min(1.0, (number + 1) / 100)
        falling = 0.1 + 0.45 * (1 + math.cos(math.pi * number / recipe.steps))
        for group in moved.param_groups:
            group["lr"] = recipe.rate * min(warm, falling)
        starts = torch.randint(len(tokens) - recipe.context, (recipe.batch,))
        at = starts[:, None] + torch.arange(recipe.context)
        step(model, moved, tokens[at], tokens[at + 1], recipe.bfloat16)
        gone += time.perf_counter() - began
        if (number + 1) * recipe.evaluations // recipe.steps > number * recipe.evaluations // recipe.steps:
            curve.append((gone, number + 1, exact_loss(model, tokens, val, recipe.context)))
    return curve


@torch.no_grad()
def exact_loss(model: nn.Module, tokens: Tensor, val: Tensor, context: int) -> float:
    """Every validation token once, in blocks of the context, the first primed by the last training token: nats."""
    model.eval()
    text = torch.cat([tokens[-1:], val])
    total = 0.0
    whole = len(val) // context * context
    rows, followers = text[:whole].view(-1, context), text[1 : whole + 1].view(-1, context)
    blocks = list(zip(rows.split(256), followers.split(256), strict=True))
    if whole < len(val):
        blocks.append((text[whole:-1][None], text[whole + 1 :][None]))
    for ids, targets in blocks:
        total += F.cross_entropy(model(ids).flatten(0, 1).float(), targets.flatten(), reduction="sum").item()
    model.train()
    return total / len(val)

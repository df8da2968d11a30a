"""The transformer, from token ids to logits.

    x = embed(ids) (+ positions)
    for each block:  x = x + attention(norm(x));  x = x + feedforward(norm(x))
    logits = unembed(norm(x))

Radford et al. 2018 and 2019 (GPT-1, GPT-2); where the norms stand is a choice (residual.py). A model holds weights
and nothing else: what it remembers between calls is a State that the caller hands in and gets back; what looks inside
it is a tap.
"""

import copy
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from microformer.errors import MicroformerError
from microformer.models import feedforward, memory, norms, positions
from microformer.models.attention import Attention
from microformer.models.linear import Embedding, Linear, like
from microformer.models.ngrams import NGrams
from microformer.models.residual import Residual
from microformer.models.spec import LayerSpec, ModelSpec
from microformer.models.state import LayerState, State
from microformer.models.taps import Scope, Tap

# What a parameter may be to an optimizer.
ROLES = ("gain", "bias", "embedding", "unembedding", "matrix")


@dataclass(frozen=True)
class Output:
    """What a model answers.

    Args:
        logits: scores of each possible next token at each position.
        state: the memory after these tokens; None if none was handed in.
        aux_loss: what components want added to the loss in training (0 if none does), in nats.
    """

    logits: Float[Tensor, "batch pos vocab"]
    state: State | None
    aux_loss: Tensor | float


class Block(nn.Module):
    """One layer: attention, then a feed-forward, each reading the stream and adding to it.

    Or both at once, from the same reading (Wang and Komatsuzaki 2021, "GPT-J"; Chowdhery et al. 2022, "PaLM").
    """

    def __init__(self, layer: LayerSpec, model: ModelSpec, block: int):
        super().__init__()
        self.residual_1 = Residual(model)
        self.attention = Attention(layer.attention, model, block)
        self.residual_2 = None if model.parallel else Residual(model)
        self.feedforward = feedforward.build(layer.feedforward, model)

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        order: positions.Order,
        state: LayerState | None,
        tap: Scope,
    ) -> tuple[Float[Tensor, "batch pos d_model"], LayerState, Tensor | float]:
        """Args: the stream; the order of its tokens; this layer's memory; the tap. Gives the stream, the next memory
        and the auxiliary loss."""
        x = tap("hook_resid_pre", x)
        read = self.residual_1.read(x)
        attended, seen = self.attention(read, order, state, tap.within("attn"))
        attended = tap("hook_attn_out", attended)
        if self.residual_2 is None:  # in parallel
            thought, aux_loss = self.feedforward(read, tap.within("mlp"))
            added = attended + tap("hook_mlp_out", thought)
            return tap("hook_resid_post", self.residual_1.add(x, added)), seen, aux_loss
        x = tap("hook_resid_mid", self.residual_1.add(x, attended))
        thought, aux_loss = self.feedforward(self.residual_2.read(x), tap.within("mlp"))
        thought = tap("hook_mlp_out", thought)
        return tap("hook_resid_post", self.residual_2.add(x, thought)), seen, aux_loss


class Microformer(nn.Module):
    """A decoder-only transformer. Its blocks may be gone through more than once (Dehghani et al. 2019, "Universal
    Transformers"); each time has a memory and names for taps of its own, as if there were as many blocks more.

    Args:
        spec: what to build.
        seed: of the starting weights.
    """

    def __init__(self, spec: ModelSpec, seed: int = 0):
        super().__init__()
        self.spec = spec
        # The precision of activations; weights stay in float32. Whoever runs the model sets it.
        self.compute_dtype = torch.float32
        self.embed = Embedding(spec.vocab_size, spec.embed_dim, std=0.02 if spec.tie_embeddings else 1.0)
        self.ngrams = (
            NGrams(spec.ngrams, spec.ngram_entries, spec.vocab_size, spec.embed_dim, spec.ngram_dropout)
            if spec.ngrams > 1
            else None
        )
        self.positions = positions.build(spec)
        self.dropout = spec.dropout
        self.memory = memory.build(spec)
        self.blocks = nn.ModuleList(Block(layer, spec, i) for i, layer in enumerate(spec.layers))
        post = spec.norm_placement == "post"  # there the last block has normed the stream
        self.norm = nn.Identity() if post else norms.build(spec)
        self.unembed = Linear(spec.embed_dim, spec.vocab_size, bias=False, std=0.0, role="unembedding")
        if spec.tie_embeddings:
            self.unembed.weight = self.embed.weight
        self.start(seed)

    def forward(self, ids: Int[Tensor, "batch pos"], state: State | None = None, tap: Tap | None = None) -> Output:
        """The logits of each next token.

        Args:
            ids: tokens, 0 … vocab_size − 1.
            state: what was seen before them; `model.empty_state()` to begin remembering, None to remember nothing.
            tap: reads or edits activations (models/taps.py).

        Raises:
            MicroformerError: more tokens than the context holds.
        """
        x, state, aux_loss = self.hidden(ids, state, tap)
        return Output(self.unembed(x), state, aux_loss)

    def hidden(
        self, ids: Int[Tensor, "batch pos"], state: State | None = None, tap: Tap | None = None
    ) -> tuple[Float[Tensor, "batch pos d_model"], State | None, Tensor | float]:
        """The normed stream that `unembed` reads, the next state and the auxiliary loss.

        A model whose memory carries reads a text in segments as long as its context, any number of them.
        """
        now = self.empty_state() if state is None else state
        if not self.memory.carries:
            now.check_room(ids.shape[1], self.spec.max_seq_len)
            x, now, aux_loss = self._segment(ids, now, Scope(tap), full=False)
            return x, None if state is None else now, aux_loss
        read, aux_loss = [], 0.0
        while ids.shape[1]:
            left = now.segment + self.spec.max_seq_len - now.length
            piece, ids = ids[:, :left], ids[:, left:]
            # After the last piece nobody needs what it would tell the next, unless the state is kept.
            full = piece.shape[1] == left and (ids.shape[1] > 0 or state is not None)
            x, now, aux = self._segment(piece, now, Scope(tap), full)
            read.append(x)
            aux_loss = aux_loss + aux
        return torch.cat(read, dim=1), None if state is None else now, aux_loss / len(read)

    def _segment(
        self, ids: Int[Tensor, "batch pos"], before: State, scope: Scope, full: bool
    ) -> tuple[Float[Tensor, "batch pos d_model"], State, Tensor | float]:
        """As `hidden`, for tokens of one segment. full: whether it ends with them, and another may follow."""
        new, tokens = ids.shape[1], self.memory.tokens
        first = self.memory.before(before, ids.shape[0]) if before.length == before.segment else None
        last = self.memory.after(before, ids.shape[0]) if full else None
        where = before.positions(new, ids.device, tokens, 0 if last is None else tokens)
        order = self.positions.order(where, self.compute_dtype)

        x, recent = self.embed(ids), None
        if self.ngrams is not None:
            recent = before.last(self.ngrams.order - 1, ids)
            x = x + self.ngrams(ids, recent, before.since_start(new, ids.device))
        if self.spec.embed_scale != 1:
            x = x * self.spec.embed_scale
        x = scope("hook_embed", x.to(self.compute_dtype))
        if first is not None or last is not None:
            x = torch.cat([like(one, x) for one in (first, x, last) if one is not None], dim=1)
        if (added := self.positions.embed(where.query)) is not None:
            x = x + scope("hook_pos_embed", added.to(x.dtype).expand_as(x))
        if self.training and self.dropout:
            x = F.dropout(x, self.dropout)
        parts, aux_loss = [], 0.0
        for i, part in enumerate(before.layers):
            block = self.blocks[i % len(self.blocks)]
            x, part, aux = block(x, order, part, scope.within(f"blocks.{i}"))
            parts.append(part)
            aux_loss = aux_loss + aux
        x = scope("ln_final.hook_normalized", self.norm(x))
        seen = before.advanced(tuple(parts), ids, recent)
        if full:
            seen = self.memory.between(seen, None if last is None else x[:, -tokens:])
            if not isinstance(seen, State) or seen.segment != seen.length:  # else the same segment would have no end
                raise MicroformerError(
                    f"{type(self.memory).__name__}.between begins no segment.", "it returns state.next_segment(…)."
                )
        if first is not None or last is not None:
            x = x.narrow(1, 0 if first is None else tokens, new)
        return x, seen, aux_loss

    def loss(
        self, ids: Int[Tensor, "batch pos"], targets: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"] | None
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy of the targets in nats a token, plus the auxiliary loss. Arguments as below."""
        return self.loss_and_state(ids, targets, mask, None)[0]

    def loss_and_state(
        self,
        ids: Int[Tensor, "batch pos"],
        targets: Int[Tensor, "batch pos"],
        mask: Bool[Tensor, "batch pos"] | None,
        state: State | None,
    ) -> tuple[Float[Tensor, ""], State | None]:
        """The loss, and what is remembered after these tokens.

        Args:
            ids: the tokens read.
            targets: the token that follows each.
            mask: which targets count; None for all. Where none does, the loss is the auxiliary one.
            state: what was seen before; None to remember nothing.
        """
        x, state, aux_loss = self.hidden(ids, state)
        losses = token_losses(self.unembed(x), targets)
        mean = losses.mean() if mask is None else (losses * mask).sum() / mask.sum().clamp_min(1)
        return mean + aux_loss, state

    def empty_state(self) -> State:
        """The memory of a model that has seen nothing."""
        return State.empty(self.spec.depth)

    def kept_in(self, precision: torch.dtype) -> "Microformer":
        """A model to read and write with, the same to the bit as this one with that `compute_dtype`: its matrices are
        kept in that precision, so that no pass converts them. What is not a matrix is this one's own."""
        made = copy.deepcopy(self, {id(one): one for one in self.parameters()})
        made.compute_dtype = precision
        for module in made.modules():
            if isinstance(module, Linear):
                module.weight = nn.Parameter(module.weight.detach().to(precision), requires_grad=False)
        return made

    @torch.no_grad()
    def start(self, seed: int) -> None:
        """Draws all starting weights from one seed: those of every part that has a `start` of its own.

        zero: what a matrix's own class says; those that write to the stream begin at 0, so that a block does nothing.
        normal: N(0, 0.02) (GPT-1, Llama). scaled: as normal, and those that write to the stream smaller by the root of
        how often it is added to, 2 · depth (GPT-2, section 2.3).
        """
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            tied = self.spec.tie_embeddings and module is self.unembed
            if module is self or tied or not hasattr(module, "start"):
                continue
            if isinstance(module, (Linear, Embedding)) and self.spec.init != "zero":
                smaller = module.writes and self.spec.init == "scaled"
                module.std = 0.02 / (2 * self.spec.depth) ** 0.5 if smaller else 0.02
            module.start(generator)  # type: ignore[operator]

    def roles(self) -> dict[str, str]:
        """What each parameter is (matrix, embedding, unembedding, gain or bias), by its name.

        Raises:
            MicroformerError: a parameter whose module does not say, or says what can't be.
        """
        return {name: self._role(name, parameter) for name, parameter in self.named_parameters()}

    def _role(self, name: str, parameter: nn.Parameter) -> str:
        owner, _, last = name.rpartition(".")
        module = self.get_submodule(owner)
        role = getattr(module, "roles", {}).get(last)
        if role not in ROLES or (role == "matrix") > (parameter.dim() == 2):
            raise MicroformerError(
                f"{type(module).__name__}'s parameter {last!r}, of shape {list(parameter.shape)}, has "
                + (f"the role {role!r}." if role else "no role."),
                f"its class says it, such as roles = {{{last!r}: 'gain'}}: one of {', '.join(ROLES)} (of two axes). "
                "microformer.models.linear.Linear, in nn.Linear's place, says its own.",
            )
        return role

    def outputs(self) -> dict[str, tuple[int, ...]]:
        """How many rows each of the matrices has that stand on one another in a parameter, by its name."""
        return {f"{name}.weight": module.outputs for name, module in self.named_modules() if isinstance(module, Linear)}

    def num_parameters(self) -> int:
        """How many numbers are learned."""
        return sum(parameter.numel() for parameter in self.parameters())

    def tap_names(self) -> list[str]:
        """The activations that a tap can ask this model for, in the order in which they come."""
        block = ["hook_resid_pre", "attn.hook_q", "attn.hook_k", "attn.hook_v"]
        block += ["attn.hook_rot_q", "attn.hook_rot_k"] if self.positions.rotates else []
        between = ["attn.hook_z", "hook_attn_out", *([] if self.spec.parallel else ["hook_resid_mid"])]
        after = ["hook_mlp_out", "hook_resid_post"]
        names = ["hook_embed", *(["hook_pos_embed"] if self.positions.embeds else [])]
        for i in range(self.spec.depth):
            part = cast(Block, self.blocks[i % len(self.blocks)])
            attended = [f"attn.{name}" for name in part.attention.kernel.tap_names]
            thought = [f"mlp.{name}" for name in part.feedforward.tap_names]
            names += [f"blocks.{i}.{name}" for name in (*block, *attended, *between, *thought, *after)]
        return [*names, "ln_final.hook_normalized"]


def token_losses(
    logits: Float[Tensor, "batch pos vocab"], targets: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos"]:
    """−log p(target) of every token, in nats, in float32 whatever the logits' precision."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)

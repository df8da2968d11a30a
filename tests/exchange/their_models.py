"""The originals, small: Hugging Face's own classes with random weights, some of them trained a few steps there."""

import torch
import transformers
from torch.nn import functional as F

VOCAB, LENGTH = 61, 32
_SMALL = {"n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": LENGTH, "vocab_size": VOCAB}
_LLAMA = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80,
    "max_position_embeddings": LENGTH, "vocab_size": VOCAB, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
_NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": None, "eos_token_id": None}


def _gpt2(**other):
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**_SMALL, **_NO_DROPOUT, **other}))


def _llama(**other):
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**_LLAMA, **other}))


ORIGINALS = {
    "GPT-1": lambda: transformers.OpenAIGPTLMHeadModel(transformers.OpenAIGPTConfig(**_SMALL, **_NO_DROPOUT)),
    "GPT-2": _gpt2,
    "GPT-2, exact GELU, untied": lambda: _gpt2(activation_function="gelu", tie_word_embeddings=False),
    "GPT-2, another width within": lambda: _gpt2(n_inner=70, layer_norm_epsilon=1e-3),
    "Llama": _llama,
    "Llama, tied, biases": lambda: _llama(tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
    "Llama, fewer keys, another base": lambda: _llama(
        num_key_value_heads=2,
        rms_norm_eps=1e-3,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        hidden_act="gelu",
    ),
    "Qwen3": lambda: transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(**_LLAMA, num_key_value_heads=2, head_dim=12, tie_word_embeddings=False)
    ),
}


def random_ids(rows=2, length=LENGTH, seed=0):
    return torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def original(name, trained=False):
    """One of them, in eval mode. trained: a few steps on a text that repeats itself, else with weights that differ."""
    torch.manual_seed(1)
    model = ORIGINALS[name]()
    if trained:
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
        for step in range(5):
            ids = random_ids(4, LENGTH // 2, step).repeat(1, 2)
            theirs_loss(model.train(), ids).backward()
            optimizer.step()
            optimizer.zero_grad()
    else:
        with torch.no_grad():
            for one in model.parameters():  # gains and biases are 1 and 0 else, and would hide a place that is wrong
                one.add_(0.1 * torch.randn(one.shape))
    return model.eval()


def theirs_loss(model, ids):
    return F.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

"""What TransformerLens sees in a small GPT-2 of ours, kept for test_transformer_lens.py to compare with.

    python tests/inspection/make_transformer_lens.py        needs: pip install microformer transformer-lens==4.3.0

It is a program of its own, for TransformerLens wants a newer torch than the oldest that Microformer is tested with.
The model goes to TransformerLens by the way of a user: exported to Hugging Face's form, and read from that folder.
"""

import os
import tempfile
from pathlib import Path

import torch

from microformer import exchange, tokenization
from microformer.inspection.heads import repeated_tokens
from microformer.models import spec
from microformer.models.model import Microformer
from microformer.runs import save_tensors

KEPT = Path(__file__).parent / "transformer_lens.safetensors"
LETTERS = "abcdefghijklmnopqrstuvwxyz .\n"
TOKEN, RIVAL, POSITION = 3, 7, 11


def model() -> Microformer:
    """A GPT-2 of two layers whose weights, gains and biases all differ."""
    layers = (spec.LayerSpec(spec.Softmax(), spec.GeluTanh()),) * 2
    shape = spec.ModelSpec(
        len(LETTERS), 24, 4, 40, 32, layers, spec.Learned(), spec.LayerNorm(), bias=True, tie_embeddings=True,
        init="normal",
    )  # fmt: skip
    made = Microformer(shape).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return made


def main() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformer_lens import TransformerBridge
    from transformer_lens.head_detector import detect_head

    ours = model()
    ids = torch.randint(len(LETTERS), (1, 20), generator=torch.Generator().manual_seed(2))
    with tempfile.TemporaryDirectory() as name:
        tokenizer = tokenization.train("char", [LETTERS])
        exchange.huggingface.write(Path(name), ours.spec, dict(ours.named_parameters()), tokenizer)
        theirs = TransformerBridge.boot_transformers(name, device="cpu")
    theirs.enable_compatibility_mode(no_processing=True)
    kept = {f"weights.{name}": parameter for name, parameter in ours.named_parameters()}
    with torch.no_grad():
        logits, cache = theirs.run_with_cache(ids)
        kept |= {f"cache.{name}": cache[name] for name in ours.tap_names() if name in cache}
        kept |= {"ids": ids, "logits": logits, "losses": theirs(ids, return_type="loss", loss_per_token=True)}
        kept["accumulated_resid"] = cache.accumulated_resid(apply_ln=False)
        kept["logit_lens"] = cache.accumulated_resid(apply_ln=True) @ theirs.W_U + theirs.b_U
        kept["heads"] = cache.stack_head_results(layer=-1, pos_slice=POSITION)
        rest = cache.decompose_resid(layer=-1, mode="mlp", pos_slice=POSITION)
        kept["embeddings_and_mlps"] = rest
        # Of the difference of two logits, which no convention about centring and folding changes.
        for part in ("heads", "embeddings_and_mlps"):
            normed = theirs.ln_final.weight * cache.apply_ln_to_stack(kept[part], layer=-1, pos_slice=POSITION)
            kept[f"attribution.{part}"] = (normed @ (theirs.W_U[:, TOKEN] - theirs.W_U[:, RIVAL]))[:, 0]
        repeated, _ = repeated_tokens(len(LETTERS), ours.spec.max_seq_len, seed=0)
        kept["repeated"] = repeated
        again = theirs.run_with_cache(repeated)[1]
        n = repeated.shape[1] // 2
        patterns = torch.stack([again["pattern", layer][0] for layer in range(2)])
        # As the main demonstration has it, and its like.
        kept["induction"] = patterns.diagonal(1 - n, -2, -1).mean(-1)
        kept["previous_token"] = patterns.diagonal(-1, -2, -1).mean(-1)
        kept["duplicate_token"] = patterns.diagonal(-n, -2, -1).mean(-1)
        kept["first_token"] = patterns[..., 0].mean(-1)
        # This one wants a text shorter than the context, and to make its tokens itself.
        kept["shorter"] = repeated_tokens(len(LETTERS), ours.spec.max_seq_len - 2, seed=0)[0]
        theirs.to_tokens = lambda *_, **__: kept["shorter"]
        for kind in ("previous_token_head", "duplicate_token_head", "induction_head"):
            kept[f"detect_head.{kind}"] = detect_head(theirs, "a" * kept["shorter"].shape[1], kind)
    save_tensors({name: one.clone() for name, one in kept.items()}, KEPT, {"made_by": "TransformerLens 4.3.0"})
    print(f"{KEPT}: {len(kept)} tensors, {KEPT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

"""GPT-1, GPT-2 and Llama are settings of one model: the same numbers as Hugging Face's classes give."""

import inspect

import pytest
import torch
import transformers
from their_models import ORIGINALS, original, random_ids, theirs_loss
from torch.testing import assert_close

from microformer import tokenization
from microformer.exchange import families, huggingface, maps
from microformer.models.model import Microformer
from microformer.settings import Settings, model_spec, model_values, resolve

# What it is called has changed.
CACHE = "cache" if "cache" in inspect.signature(transformers.LlamaForCausalLM.forward).parameters else "past_key_values"
KNOWN = tokenization.train("char", ["".join(map(chr, range(48, 48 + 61)))])


def imported(theirs, folder):
    theirs.save_pretrained(folder)
    found = huggingface.read(folder, KNOWN)
    model = Microformer(found.spec).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(found.parameters[name])
    return model, found


@pytest.mark.parametrize("trained", [False, True], ids=["random weights", "trained a few steps there"])
@pytest.mark.parametrize("name", ORIGINALS)
def test_logits_gradients_and_cached_decoding_are_the_original_s(name, trained, tmp_path):
    theirs = original(name, trained)
    ours, found = imported(theirs, tmp_path)
    ids = random_ids()

    assert_close(ours(ids).logits, theirs(ids).logits, rtol=0, atol=1e-5)

    theirs_loss(theirs, ids).backward()
    ours.loss(ids[:, :-1], ids[:, 1:], None).backward()
    family = families.of(found.spec)
    gradients = maps.theirs(
        huggingface.pairs(found.spec, family), {name: one.grad for name, one in ours.named_parameters()}
    )
    for name, parameter in theirs.named_parameters():
        # Of its own largest, for gradients this small would pass whatever they were.
        within = 1e-4 * parameter.grad.abs().max().item() + 1e-7
        assert_close(gradients[name], parameter.grad, rtol=0, atol=within)

    with torch.no_grad():
        state, remembered = ours.empty_state(), transformers.DynamicCache()
        for at in range(12):
            one = ids[:, at : at + 1]
            output = ours(one, state)
            state = output.state
            if family == "gpt1":  # Hugging Face's has no cache
                beside = theirs(ids[:, : at + 1]).logits[:, -1:]
            else:
                beside = theirs(one, **{CACHE: remembered}, use_cache=True).logits
            assert_close(output.logits, beside, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "vocab_size", "parameters"),
    [
        ("gpt1", 40478, 116_534_784),
        ("gpt2", 50257, 124_439_808),
        ("gpt2_medium", 50257, 354_823_168),
        ("gpt2_large", 50257, 774_030_080),
        ("gpt2_xl", 50257, 1_557_611_200),
        ("llama", 32000, 6_738_415_616),
        ("nanogpt", 65, 10_745_088),
        ("mingpt_nano", 65, 97_296),
        ("mingpt_micro", 65, 826_368),
        ("mingpt_mini", 65, 2_719_104),
    ],
)
def test_a_ready_config_has_the_original_s_number_of_parameters(config, vocab_size, parameters):
    with torch.device("meta"):
        model = Microformer(model_spec(resolve(config), vocab_size))
    assert model.num_parameters() == parameters


@pytest.mark.parametrize("config", ["gpt1", "gpt2", "llama", "nanogpt", "mingpt_mini"])
def test_a_ready_config_is_of_a_published_kind(config):
    spec = model_spec(resolve(config), 65)
    assert families.of(spec) == {"gpt1": "gpt1", "llama": "llama"}.get(config, "gpt2")


def test_gpt_1_is_trained_as_its_paper_says():
    training = resolve("gpt1").training
    assert (training.learning_rate, training.warmup, training.schedule) == (2.5e-4, 2000, "cosine")
    assert (training.weight_decay, training.batch_size, training.final_rate) == (0.01, 64, 0.0)
    assert resolve("gpt1").model.dropout == resolve("gpt1").model.attention_dropout == 0.1


@pytest.mark.parametrize(("config", "writes"), [("gpt1", 0.02), ("gpt2", 0.02 / 24**0.5), ("llama", 0.02)])
def test_weights_begin_as_the_original_s(config, writes):
    sizes = {"embed_dim": 192, "num_heads": 4, "num_layers": 12, "ff_dim": 384}
    model = Microformer(model_spec(resolve(config, sizes), 500), seed=1)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            wanted = writes if name.endswith(("W_O.weight", "W_out.weight")) else 0.02
            assert parameter.std().item() == pytest.approx(wanted, rel=0.03), name
            assert abs(parameter.mean().item()) < 0.001


@pytest.mark.parametrize("config", ["gpt1", "gpt2_xl", "llama", "mingpt_nano", "text8_10min"])
def test_a_model_s_settings_are_found_again_from_its_spec(config):
    spec = model_spec(resolve(config), 65)
    assert model_spec(Settings().changed(model_values(spec)), 65) == spec


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"attention": "entmax15"}, "ATTENTION entmax15 is in no published kind of model"),
        ({"attention": "window(8) softmax"}, "ATTENTION window(size=8) softmax is"),
        ({"memory": "xl(8)"}, "MEMORY xl(length=8) is"),
        ({"ngrams": 3}, "NGRAMS 3 is"),
        ({"loops": 2}, "LOOPS 2 is"),
        ({"parallel": True}, "PARALLEL True is"),
        ({"residual_scalars": True}, "RESIDUAL_SCALARS True is"),
        ({"output_gate": True}, "OUTPUT_GATE True is"),
        ({"score_cap": 30.0}, "SCORE_CAP 30.0 is"),
        ({"embed_scale": 2.0}, "EMBED_SCALE 2.0 is"),
        ({"norm_placement": "sandwich"}, "NORM_PLACEMENT sandwich is"),
        ({"positions": "alibi"}, "POSITIONS alibi is"),
        ({"feedforward": "swiglu geglu"}, "FEEDFORWARD swiglu geglu is"),
        ({"feedforward": "relu2"}, "FEEDFORWARD relu2 with POSITIONS = 'rope' is"),
        ({"norm": "layernorm"}, "NORM layernorm with POSITIONS = 'rope' is"),
        ({"norm_placement": "post"}, "NORM_PLACEMENT post with POSITIONS = 'rope' is"),
        ({"bias": True}, "BIAS True with QK_NORM is"),
        ({"norm": "rmsnorm(eps=0.001)"}, "NORM rmsnorm(eps=0.001) with QK_NORM is"),
        ({"positions": "learned"}, "NORM rmsnorm with POSITIONS = 'learned' is"),
        ({"positions": "learned", "norm": "layernorm"}, "FEEDFORWARD swiglu with POSITIONS = 'learned' is"),
        ({"positions": "learned", "norm": "layernorm", "feedforward": "gelu"}, "QK_NORM True with"),
    ],
)
def test_a_model_of_no_published_kind_is_refused_and_its_component_named(changed, said):
    from microformer.errors import SettingsError

    with pytest.raises(SettingsError) as refused:
        families.of(model_spec(Settings().changed(changed), 65))
    assert refused.value.sentence.startswith(said)
    assert "train with" in refused.value.hint
    assert "--to safetensors takes every model" in refused.value.hint

"""What the panels show is what Python computes, and the lines they hand out compute it again."""

import pytest
import torch
from pages import TEXT, copied, inside, numbers, settled

from microformer import load_run
from microformer.generation import Sampler
from microformer.inspection import (
    direct_logit_attribution,
    edited,
    effect,
    knock_out_map,
    logit_lens,
    probes,
    residual_norms,
    trace,
)  # fmt: skip


@pytest.fixture
def seen(folder):
    with inside(folder):
        yield trace(load_run("plain"), TEXT)


def close(found, expected):
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float32), expected.float(), rtol=1e-5, atol=1e-5)


def test_the_text_is_coloured_by_the_losses_of_python(opened, seen):
    page = opened()
    settled(page)
    found = numbers(page, "strip")

    assert found["tokens"] == seen.tokens
    assert found["losses_nats"][0] == "NaN" or found["losses_nats"][0] is None
    close(found["losses_nats"][1:], seen.losses)
    close(found["probability"][1:], (-seen.losses).exp())


def test_the_sampler_of_the_page_is_that_of_python(opened, seen):
    for settings in (
        {"temperature": 0.7, "topK": 5},
        {"temperature": 1.3, "topP": 0.8},
        {"temperature": 0.9, "minP": 0.1},
        {"temperature": 0},
        {"temperature": 1.1, "topK": 9, "topP": 0.9, "minP": 0.02},
    ):
        page = opened(position=6, **settings)
        settled(page)
        found = numbers(page, "next")
        names = {"temperature": "temperature", "topK": "top_k", "topP": "top_p", "minP": "min_p"}
        sampler = Sampler(
            **{names[name]: value if name == "topK" else float(value) for name, value in settings.items()}
        )

        close(found["logits"], seen.logits[6])
        close(found["probability"], sampler.distribution(seen.logits[6][None])[0])


def test_the_lens_and_the_attribution_are_those_of_python(opened, seen):
    page = opened(position=4)
    settled(page)
    found = numbers(page, "lens")

    probability, ids = logit_lens(seen).softmax(-1).max(-1)
    assert found["lens"]["shape"] == list(ids.shape)
    assert found["lens"]["top_ids"] == ids.flatten().tolist()
    close(found["lens"]["top_p"], probability.flatten())
    close(found["residual_norms"]["values"], residual_norms(seen).flatten())
    asked = found["attribution"]
    labels, values = direct_logit_attribution(seen, 4, asked["token"], asked["rival"])
    assert [one["label"] for one in asked["parts"]] == list(labels)
    close([one["value"] for one in asked["parts"]], values)


def test_what_is_written_is_what_generate_writes(opened, folder):
    from microformer import generate

    page = opened(seed=3, written=30)
    settled(page)
    found = numbers(page, "generate")
    with inside(folder):
        expected = generate(load_run("plain"), TEXT, seed=3, max_new_tokens=30, temperature=0.8)

    assert TEXT + found["text"] == expected


@pytest.mark.parametrize("shown", ["pattern", "scores", "weighted"])
@pytest.mark.parametrize("run", ["plain", "sparse", "post"])
def test_the_map_of_a_head_is_that_of_python(opened, folder, run, shown):
    page = opened(run=run, layer=1, head=1, shown=shown)
    settled(page)
    found = numbers(page, "attention")
    with inside(folder):
        expected = getattr(trace(load_run(run), TEXT), shown)(1)[1]

    assert found["shape"] == list(expected.shape)
    values = torch.tensor([float(one) for one in found["values"]])
    torch.testing.assert_close(values, expected.flatten(), rtol=1e-5, atol=1e-5)
    assert (values == 0).equal(expected.flatten() == 0)  # exact zeros stay exact


def test_the_effect_of_edits_and_the_knock_out_map_are_those_of_python(opened, seen):
    words = ["L0H1 zero", "L1.mlp x0.5", "L1H0 mean"]
    page = opened(edits=words)
    settled(page)
    found = numbers(page, "edit")
    expected, without = effect(seen, edited(seen, words)), knock_out_map(seen)

    for name in ("before", "after"):
        close(found["effect_nats"][name][1:], getattr(expected, name))
    close(found["effect_nats"]["kl"], expected.kl)
    close(found["knock_out_nats"]["heads"], without.heads.flatten())
    close(found["knock_out_nats"]["mlps"], without.mlps)


def test_the_scores_through_time_are_those_of_the_probes(opened, folder):
    page = opened()
    settled(page)
    found = numbers(page, "time")
    with inside(folder):
        run = load_run("plain")
        steps, rows = run.probes, run.metrics
        expected = torch.stack([run.probe(step)[0]["score_induction"] for step in steps])

    assert found["probes"] == steps
    assert found["points"] == steps
    assert [row["step"] for row in found["rows"]] == [row["step"] for row in rows]
    close(found["induction"], expected.flatten())


def test_the_anatomy_counts_every_parameter_and_every_activation(opened, seen):
    page = opened()
    settled(page)
    found = numbers(page, "anatomy")

    assert found["parameters"] == seen.model.num_parameters()
    assert sum(one["parameters"] for one in found["boxes"] if one["parent"] is None) == found["parameters"]
    assert [one["name"] for one in found["activations"]] == list(seen.cache)


def test_a_probe_shows_what_the_snapshot_of_its_step_shows(opened, folder):
    with inside(folder):
        text = probes.read(load_run("plain"), 32).text
    shown = {}
    for checkpoint in ("probe-32", "32"):
        page = opened(checkpoint=checkpoint, text=text, layer=1, head=0)
        settled(page)
        shown[checkpoint] = numbers(page, "strip"), numbers(page, "attention")
    (strip, attention), (strip_2, attention_2) = shown["probe-32"], shown["32"]

    assert strip["tokens"] == strip_2["tokens"]
    close(strip["losses_nats"][1:], torch.tensor(strip_2["losses_nats"][1:]))
    patterns = [torch.tensor(one["values"]) for one in (attention, attention_2)]
    torch.testing.assert_close(*patterns, rtol=0, atol=1 / 255)  # a probe keeps 8 bits


@pytest.mark.parametrize("panel", ["strip", "next", "generate", "attention", "edit", "lens", "time", "anatomy"])
@pytest.mark.parametrize("edits", [[], ["L0H1 zero", "L1.mlp x0.5"]], ids=["plain", "edited"])
def test_the_lines_of_python_run_and_agree(opened, folder, panel, edits, capsys):
    page = opened(edits=edits, position=5, written=12)
    settled(page)
    lines, found = copied(page, panel, "Python"), numbers(page, panel)
    with inside(folder):
        names: dict = {}
        exec(lines, names)
    assert capsys.readouterr().out
    if panel in ("attention", "edit", "time", "anatomy"):
        return  # they print; their numbers are compared above
    seen = names["seen"]
    if panel == "strip":
        close(found["losses_nats"][1:], seen.losses)
    elif panel == "next":
        close(found["probability"], names["p"])
    elif panel == "generate":
        assert found["ids"] == list(names["ids"])
    else:
        close(found["lens"]["top_p"], names["p"].max(-1).values.flatten())
        close([one["value"] for one in found["attribution"]["parts"]], names["values"])

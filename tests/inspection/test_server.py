"""The page's server: its answers are the Python functions', it answers nobody else, and no request can harm it."""

import dataclasses
import json
import os
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import book, train, without_picture_and_sample
from starlette.testclient import TestClient

from microformer import generate, load_run, runs
from microformer.inspection import edited, frames, knockout, saved, trace, views
from microformer.inspection import server as serving
from microformer.inspection.attribution import direct_logit_attribution
from microformer.inspection.heads import head_scores
from microformer.inspection.lens import logit_lens, residual_norms
from microformer.inspection.shelf import Shelf

TEXT = "The cat sat on a mat and saw one dog"
PORT = 7717


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the runs `r` (two layers, probes), `linear` and `post`; where tests of this file are."""
    folder, before = tmp_path_factory.mktemp("served"), Path.cwd()
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        without_picture_and_sample(patch)
        Path("book.txt").write_text(book())
        how = {"num_layers": 2, "max_seq_len": 40, "probe_steps": 5}
        assert train("--run", "post", norm_placement="post", max_steps=1, **how) == 0
        assert train("--run", "linear", attention="linear softmax", max_steps=1, **how) == 0
        assert train("--run", "r", learning_rate=0.02, **how) == 0
    yield folder
    os.chdir(before)


@contextmanager
def client_of(shelf, **more):
    worker = serving.Worker()
    headers = {"X-Token": "secret", **more.pop("headers", {})}
    app = serving.app(shelf, "secret", PORT, worker=worker, **more)
    try:
        yield TestClient(app, f"http://127.0.0.1:{PORT}", raise_server_exceptions=True, headers=headers)
    finally:
        worker.end()


@pytest.fixture
def client(folder):
    with client_of(Shelf(runs.RUNS)) as client:
        yield client


@pytest.fixture
def ask(client):
    def ask(view, run="r", **fields):
        answer = client.post(f"/api/{view}", json={"run": run, "text": TEXT, "edits": [], **fields})
        assert answer.status_code == 200, answer.text
        return frames.decode(answer.content)

    return ask


@pytest.fixture
def refused(client):
    def refused(view, status=400, run="r", **fields):
        answer = client.post(f"/api/{view}", json={"run": run, "text": TEXT, "edits": [], **fields})
        assert answer.status_code == status, answer.text
        told = answer.json()
        assert told.keys() == {"error", "hint"}
        return told["error"]

    return refused


@pytest.fixture
def seen(folder):
    return trace(load_run("r"), TEXT)


def same(found, wanted):
    wanted = np.asarray(wanted)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------- the same numbers as Python


def test_the_runs_are_listed_the_latest_first(client):
    found = client.get("/api/runs").json()

    assert [run["name"] for run in found["runs"]] == ["r", "linear", "post"]
    assert found["chosen"] == "r"
    assert all(run["why"] is None and run["parameters"] > 0 for run in found["runs"])


def test_the_model_is_described_as_it_is(ask):
    data, _ = ask("model")

    run = load_run("r")
    assert (data["layers"], data["heads"], data["context"]) == (2, 2, 40)
    assert data["vocabulary"] == [run.tokenizer.decode([one]) for one in range(run.tokenizer.vocab_size)]
    assert data["checkpoints"][:2] == ["best", "last"]
    assert data["checkpoints"][2:] == ["1", "2", "4", "8"]
    assert data["probes"] == [1, 2, 4, 5, 8, 10, 12]
    assert data["can"] == dict.fromkeys(views.VIEWS)
    assert data["val_loss"] == run.info["figures"]["val_loss"]
    assert len(data["default_text"]) > 10


def test_every_number_that_is_learned_is_in_a_box_and_every_box_in_a_file(ask):
    for run in ("r", "linear", "post"):
        boxes = ask("model", run)[0]["anatomy"]["boxes"]
        outer = [box for box in boxes if box["parent"] is None]

        assert sum(box["parameters"] for box in outer) == load_run(run).model.num_parameters()
        for box in boxes:
            lines = (Path(serving.__file__).parents[2] / box["file"]).read_text().splitlines()
            assert lines[box["line"] - 1].lstrip().startswith(("def ", "@", "class ")), box
        names = load_run(run).model.tap_names()
        assert {box["tap"] for box in boxes} - {None} <= set(names)
        kernel = next(box for box in boxes if box["label"].startswith("kernel: "))
        assert "=" in kernel["formula"]


def test_the_text_is_scored_as_the_trace_scores_it(ask, seen):
    data, found = ask("text")

    log_p = seen.logits.log_softmax(-1)
    assert data["tokens"] == seen.tokens == list(TEXT)
    same(found["losses"][1:], seen.losses)
    assert np.isnan(found["losses"][0])
    same(found["probability"][1:], (-seen.losses).exp())
    same(found["entropy"][1:], -(log_p.exp() * log_p).sum(-1)[:-1])
    same(found["last_logits"], seen.logits[-1])
    assert found["top_ids"].tolist() == log_p.topk(10).indices.tolist()
    assert found["rank"][0] == -1
    order = log_p.argsort(-1, descending=True).tolist()
    assert found["rank"][1:].tolist() == [order[i].index(one) + 1 for i, one in enumerate(seen.ids[1:].tolist())]


@pytest.mark.parametrize("what", ["pattern", "scores", "weighted"])
def test_a_head_is_shown_as_the_trace_has_it(ask, seen, what):
    _, found = ask("head", layer=1, head=1, what=what)

    same(found["values"], getattr(seen, what)(1)[1])


def test_small_maps_are_the_largest_of_their_blocks(ask, folder):
    text = (TEXT + " and ") * 2
    data, found = ask("maps", text=text[:40])
    whole = trace(load_run("r"), text[:40]).pattern(0)
    same(found["scale"][0], whole.amax((-2, -1)))
    back = found["thumbs"][0] / 255 * found["scale"][0][:, None, None]
    assert np.abs(back - whole.numpy()).max() <= whole.max() / 255

    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "SMALL", 16)
        data, small = views._small([whole], {}, 2, 0)
    assert data["size"] == [14, 14]
    assert data["block"] == 3
    pooled = torch.nn.functional.max_pool2d(torch.nn.functional.pad(whole, (0, 2, 0, 2))[None], 3)[0]
    again = small["thumbs"][0].float() / 255 * small["scale"][0][:, None, None]
    assert (again - pooled).abs().max() <= whole.max() / 255


def test_what_is_not_zero_is_not_shown_as_zero_and_zeros_are_counted():
    pattern = torch.tensor([[[1.0, 0.0, 0.0], [1e-9, 1 - 1e-9, 0.0], [0.0, 0.5, 0.5]]])

    data, found = views._small([pattern], {}, 1, 0)

    assert ((found["thumbs"][0] > 0) == (pattern > 0)).all()
    assert data["zeros"] == [[pytest.approx(1 / 6)]]


def test_a_head_that_is_not_a_number_is_told_as_none():
    pattern = torch.full((1, 2, 2), float("nan"))

    _, found = views._small([pattern], {}, 1, 0)

    assert found["scale"].isnan().all()


def test_head_scores_and_their_definitions(ask):
    data, found = ask("head_scores")

    for name, wanted in head_scores(load_run("r").model).items():
        same(found[name], wanted)
        assert data["definitions"][name]
    assert set(data["names"]) == set(found)


def test_an_edit_s_effect(ask, seen):
    edits = ["L0H1 zero", "L1.mlp x0.5"]

    _, found = ask("effect", edits=edits)

    wanted = knockout.effect(seen, edited(seen, edits))
    same(found["before"][1:], wanted.before)
    same(found["after"][1:], wanted.after)
    same(found["kl"], wanted.kl)
    assert found["kl"].max() > 0
    assert ask("effect")[1]["kl"].max() == 0  # without an edit


def test_the_knock_out_map(ask, seen):
    _, found = ask("knock_out", edits=["L0H1 zero"])

    wanted = knockout.knock_out_map(edited(seen, ["L0H1 zero"]))
    assert wanted is not None
    for name in ("heads", "attn", "mlps"):
        same(found[name], getattr(wanted, name))


def test_the_lens(ask, seen):
    _, found = ask("lens")

    p = logit_lens(seen).softmax(-1)
    same(found["top_p"], p.max(-1).values)
    assert found["top_ids"].tolist() == p.argmax(-1).tolist()
    same(found["target_p"][:, :-1], p[:, torch.arange(len(TEXT) - 1), seen.ids[1:]])
    same(found["norms"], residual_norms(seen))
    same(found["entropy"], torch.special.entr(p).sum(-1))


def test_the_attribution_sums_to_the_logit(ask, seen):
    data, found = ask("attribution", position=5, token=3, rival=7)

    labels, wanted = direct_logit_attribution(seen, 5, 3, 7)
    assert data["labels"] == labels
    same(found["values"], wanted)
    assert found["values"].sum() == pytest.approx(data["logit"] - data["rival_logit"], abs=1e-4)
    assert ask("attribution", position=5, token=3)[0]["rival_logit"] is None


def test_what_it_writes_is_what_generate_writes_however_it_is_asked(ask):
    wanted = generate(load_run("r"), TEXT, max_new_tokens=60, temperature=0.9, top_k=12, seed=5)
    how = {"temperature": 0.9, "top_k": 12, "seed": 5}

    at_once = ask("generate", count=60, **how)
    made = []
    while len(made) < 60:
        made += ask("generate", generated=made, count=7, **how)[1]["ids"].tolist()

    assert TEXT + "".join(at_once[0]["tokens"]) == wanted
    assert made[:60] == at_once[1]["ids"].tolist()
    found = at_once[1]
    assert found["top_p"].shape == (60, 10)
    assert (found["p"] > 0).all()
    assert (found["top_p"].sum(1) <= 1.0001).all()


def test_an_edit_is_made_while_it_writes(ask):
    plain, other = (ask("generate", count=40, edits=edits)[1]["ids"].tolist() for edits in ([], ["L0 zero", "L1 zero"]))

    assert plain != other


def test_the_numbers_that_flow(ask, seen):
    data, found = ask("flow")

    assert [one["name"] for one in data["taps"]] == list(seen.cache)
    row = [one["name"] for one in data["taps"]].index("blocks.1.hook_resid_mid")
    values = seen.cache["blocks.1.hook_resid_mid"]
    same(found["stats"][row], [values.mean(), values.std(correction=0), values.min(), values.max()])


def test_the_time_is_told_by_probes(ask):
    data, found = ask("time")

    assert data["from"] == "probes"
    assert data["points"] == data["probes"] == [1, 2, 4, 5, 8, 10, 12]
    assert found["induction"].shape == (7, 2, 2)
    assert {1, 10, 12} <= {row["step"] for row in data["rows"]}


def test_without_probes_the_time_is_told_by_snapshots(ask, folder):
    shutil.copytree("runs/r", "runs/bare")
    shutil.rmtree("runs/bare/probes")
    try:
        data, found = ask("time", run="bare")
        assert data["from"] == "snapshots"
        assert data["points"] == data["snapshots"] == [1, 2, 4, 8]
        wanted = [head_scores(load_run("r", str(step)).model)["previous_token"] for step in data["points"]]
        same(found["previous_token"], torch.stack(wanted))
    finally:
        shutil.rmtree("runs/bare")


def test_a_snapshot_and_a_probe_of_the_same_step_agree(ask):
    probe, snapshot = (ask("model", checkpoint=one)[0] for one in ("probe-8", "8"))
    assert probe["step"] == snapshot["step"] == 8
    text = probe["probe_text"]

    _, of_probe = ask("maps", checkpoint="probe-8")
    _, of_snapshot = ask("maps", checkpoint="8", text=text)
    assert np.abs(of_probe["thumbs"].astype(int) - of_snapshot["thumbs"].astype(int)).max() <= 1
    same(ask("head", checkpoint="probe-8", layer=1, head=0)[1]["values"].argmax(-1)[5:],
         ask("head", checkpoint="8", text=text, layer=1, head=0)[1]["values"].argmax(-1)[5:])  # fmt: skip
    same(ask("lens", checkpoint="probe-8")[1]["top_p"], ask("lens", checkpoint="8", text=text)[1]["top_p"])
    same(ask("text", checkpoint="probe-8")[1]["losses"], ask("text", checkpoint="8", text=text)[1]["losses"])
    assert ask("flow", checkpoint="probe-8")[0]["why"].startswith("A probe has no weights")
    assert probe["can"]["flow"]
    assert not probe["can"]["lens"]


# ------------------------------------------------------------------------------------------------------------ bad input


def test_what_a_model_does_not_have_is_a_sentence(ask):
    assert "NORM_PLACEMENT" in ask("attribution", "post", position=0, token=0)[0]["why"]
    assert "NORM_PLACEMENT" in ask("model", "post")[0]["can"]["attribution"]
    assert "sums keys and values up" in ask("head", "linear", layer=0, head=0, what="scores")[0]["why"]
    data, found = ask("maps", "linear", what="scores")
    assert "sums keys" in data["missing"]["0"]
    assert found["thumbs"][1].max() == 255


@pytest.mark.parametrize(
    ("view", "fields", "said"),
    [
        ("text", {"text": ""}, "the text is empty."),
        ("text", {"text": "é"}, "é"),
        ("text", {"text": 5}, "text 5 is not a text."),
        ("text", {"text": "a" * 100_001}, "text has 100,001 characters"),
        ("text", {"edits": ["L9H0 zero"]}, "no layer 9"),
        ("text", {"edits": ["x"]}, "'x' is no edit."),
        ("text", {"edits": "L0 zero"}, "is not a list of texts"),
        ("text", {"edits": ["L0 zero"] * 1001}, "edits is too long."),
        ("text", {"checkpoint": "../best"}, "there is no checkpoint '../best'."),
        ("text", {"checkpoint": "99"}, "has no checkpoint '99'."),
        ("text", {"checkpoint": "probe-3"}, "has no probe of step 3."),
        ("text", {"checkpoint": "٤"}, "there is no checkpoint"),
        ("maps", {"what": "patern"}, "what 'patern' is not known."),
        ("head", {"layer": 2, "head": 0}, "layer 2 can't be"),
        ("head", {"layer": True, "head": 0}, "is not a whole number"),
        ("head", {"layer": 0}, "the request lacks 'head'."),
        ("attribution", {"position": 1000, "token": 0}, "position 1000 can't be"),
        ("attribution", {"position": 0, "token": -1}, "token -1 can't be"),
        ("generate", {"count": 65}, "count 65 can't be"),
        ("generate", {"generated": [100]}, "generated has 100"),
        ("generate", {"generated": [0] * 10_001}, "generated has 10,001 ids"),
        ("generate", {"generated": ["a"]}, "is not a list of ids"),
        ("generate", {"temperature": -1}, "temperature -1.0 can't be"),
        ("generate", {"top_k": "all"}, "top_k 'all' is not a whole number."),
        ("generate", {"seed": 2**63}, "seed"),
        ("knock_out", {"text": "T"}, "one token alone has no loss."),
    ],
)
def test_bad_values_are_told_in_a_sentence(refused, view, fields, said):
    assert said in refused(view, **fields)


def test_unknown_runs_and_views_are_not_there(refused, client):
    assert "there is no run 'x'." in refused("text", 404, run="x")
    assert "there is no view 'x'." in refused("x", 404)
    assert client.get("/api/events?run=x").status_code == 404
    assert client.post("/api/text", content=b"{").json()["error"] == "the request is not JSON."
    assert client.post("/api/text", content=b"[1]").json()["error"] == "the request is no object of fields."
    assert client.post("/api/text", content=b"[" * 100_000).status_code == 400
    assert client.get("/api/text").status_code == 405


@pytest.mark.parametrize(
    "name", ["../r", "runs/r", "/etc", "..", ".", "", "r/", "r\x00", "\\\\host\\r", "~", "R" * 200]
)
def test_no_path_is_opened_for_a_client(refused, name):
    assert "there is no run" in refused("text", 404, run=name)


@pytest.mark.parametrize(
    "path", ["/%2e%2e/server.py", "/..%2fserver.py", "/assets/../server.py", "/server.py", "/static"]
)
def test_no_file_is_given_but_the_page_s(client, path):
    assert client.get(path).status_code in (403, 404)


def test_a_text_longer_than_the_context_is_read_at_its_beginning(ask):
    data, found = ask("text", text=TEXT * 3)

    assert len(found["ids"]) == 40
    assert data["left_out"] == 3 * len(TEXT) - 40
    assert "reads the first 40 tokens" in data["note"]


def test_a_run_without_a_checkpoint_says_so_until_there_is_one(client, folder):
    run = runs.create("early", "early")
    try:
        shutil.copy("runs/r/tokenizer.json", run.folder)
        run.write_info({**load_run("r").info, "ended": None, "figures": None})
        body = {"run": "early", "text": TEXT}
        data = frames.decode(client.post("/api/model", json=body).content)[0]
        assert "has no checkpoint" in data["why_not"]
        assert data["layers"] == 2
        assert "has no checkpoint" in client.post("/api/text", json=body).json()["error"]

        shutil.copytree("runs/r/checkpoints/step-0000001", run.folder / "checkpoints" / "step-0000001")
        index = {"last": None, "best": None, "best_of_last": None, "snapshots": ["step-0000001"]}
        (run.folder / "checkpoints" / "index.json").write_text(json.dumps(index))
        assert client.post("/api/text", json=body).status_code == 200  # the newest snapshot is the best there is
        assert frames.decode(client.post("/api/model", json=body).content)[0]["step"] == 1
    finally:
        shutil.rmtree("runs/early")


def test_a_checkpoint_that_training_replaced_is_loaded_anew(ask, folder):
    shutil.copytree("runs/r", "runs/moving")
    try:
        before = ask("text", "moving")[1]["last_logits"]
        best = next(Path("runs/moving/checkpoints").glob("best-*"))
        shutil.copy("runs/r/checkpoints/step-0000001/model.safetensors", best / "model.safetensors")
        after = ask("text", "moving")[1]["last_logits"]
        assert not np.allclose(before, after)
        same(after, ask("text", "moving", checkpoint="1")[1]["last_logits"])
    finally:
        shutil.rmtree("runs/moving")


def test_runs_that_cant_be_looked_into_say_why(client, folder):
    for name, change in (("newer", {"format": 99}), ("strange", {"code": {"my.py": "0" * 64}})):
        shutil.copytree("runs/r", f"runs/{name}")
        info = {**json.loads(Path("runs/r/run.json").read_text()), **change}
        Path(f"runs/{name}/run.json").write_text(json.dumps(info))
    Path("runs/strange/code").mkdir()
    Path("runs/strange/code/my.py").write_text("class A: ...")
    import hashlib

    info["code"] = {"my.py": hashlib.sha256(b"class A: ...").hexdigest()}
    Path("runs/strange/run.json").write_text(json.dumps(info))
    try:
        why = {run["name"]: run["why"] for run in client.get("/api/runs").json()["runs"]}
        assert "another version" in why["newer"]
        assert "--trust-code" in why["strange"]
        assert why["r"] is None
        assert "not of format" in client.post("/api/text", json={"run": "newer", "text": TEXT}).json()["error"]
    finally:
        shutil.rmtree("runs/newer")
        shutil.rmtree("runs/strange")


def test_weights_that_are_not_numbers_are_shown_as_such(ask, folder):
    shutil.copytree("runs/r", "runs/nan")
    try:
        path = next(Path("runs/nan/checkpoints").glob("best-*")) / "model.safetensors"
        broken = {name: one * float("nan") for name, one in runs.load_tensors(path).items()}
        runs.save_tensors(broken, path)
        assert np.isnan(ask("text", "nan")[1]["losses"]).all()
        assert np.isnan(ask("maps", "nan")[1]["scale"]).all()
        assert np.isnan(ask("head", "nan", layer=0, head=0)[1]["values"]).any()
        assert np.isnan(ask("lens", "nan")[1]["entropy"]).all()
        assert ask("attribution", "nan", position=1, token=1)[0]["logit"] is None
        ask("flow", "nan")
        ask("head_scores", "nan")
        ask("effect", "nan", edits=["L0 zero"])
        ask("knock_out", "nan")
    finally:
        shutil.rmtree("runs/nan")


# --------------------------------------------------------------------------------------------------------------- trust


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": f"localhost:{PORT}"}, 200),
        ({"Host": f"[::1]:{PORT}"}, 200),
        ({"Host": "hub.example"}, 200),
        ({"Host": "hub.example:8000", "Origin": "https://hub.example"}, 200),
        ({"Origin": f"http://127.0.0.1:{PORT}"}, 200),
        ({"X-Token": "wrong"}, 403),
        ({"X-Token": ""}, 403),
        ({"X-Token": "sécret".encode("latin-1")}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": f"evil.example:{PORT}"}, 403),
        ({"Host": "127.0.0.1:80"}, 403),
        ({"Host": f"127.0.0.1.evil.example:{PORT}"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": f"http://localhost:{PORT + 1}"}, 403),
    ],
)
def test_only_the_page_itself_may_ask(folder, headers, status):
    with client_of(Shelf(runs.RUNS), hosts=["hub.example"]) as client:
        assert client.get("/api/runs", headers=headers).status_code == status
        assert client.post("/api/text", headers=headers, json={"run": "r", "text": "T"}).status_code == status


def test_without_the_token_nothing_is_told_but_the_page(folder):
    with client_of(Shelf(runs.RUNS)) as client:
        del client.headers["X-Token"]
        assert client.get("/api/runs").status_code == 403
        assert client.get("/api/events?run=r").status_code == 403
        assert client.get("/api/runs?token=secret").status_code == 200


def test_long_bodies_are_refused_before_they_are_read(client):
    assert client.post("/api/text", content=b"x" * 1_000_001).status_code == 413
    assert client.post("/api/text", content=iter([b"x"])).status_code == 411


def test_what_is_answered_may_load_nothing_from_elsewhere(client):
    for path in ("/", "/api/runs", "/nothing", "/api/events?run=x"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"


# ----------------------------------------------------------------------------------------------------- several at once


def test_several_clients_get_each_their_own_answers(client, folder):
    texts = [TEXT[i:] for i in range(12)]
    found = {}

    def one(text):
        answer = client.post("/api/text", json={"run": "r", "text": text})
        found[text] = frames.decode(answer.content)[1]["last_logits"]

    threads = [threading.Thread(target=one, args=(text,)) for text in texts]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]

    for text in texts:
        same(found[text], trace(load_run("r"), text).logits[-1])


def test_little_is_kept(folder):
    shelf = Shelf(runs.RUNS)
    for i in range(20):
        assert len(shelf.trace("r", "best", TEXT[i % 10 :] + "a" * (i // 10), ()).logits) > 10
    for label in ("best", "last", "1", "2", "4", "8"):
        shelf.loaded("r", label)

    assert len(shelf._traces.things) == 8
    assert len(shelf._models.things) == 4


# --------------------------------------------------------------------------------------------------------------- saved


@pytest.fixture
def built(tmp_path, monkeypatch):
    """A page as it would be built."""
    (tmp_path / "index.html").write_text(
        '<!doctype html><html><head><title>x</title><script type="module" crossorigin src="./app.js"></script>'
        '<link rel="stylesheet" crossorigin href="./app.css"></head><body><div id="app"></div></body></html>'
    )
    (tmp_path / "app.js").write_text('const a = "</script><!-- <script>";')
    (tmp_path / "app.css").write_text("a { color: red }")
    monkeypatch.setattr(saved, "STATIC", tmp_path)
    return tmp_path


def test_a_view_is_saved_as_one_file_that_nothing_in_it_can_end(client, built):
    body = {"run": "r", "text": TEXT}
    fields = {"title": "</title><b>", "hash": "#text=</script><script>alert(1)</script>"}
    answer = client.post("/api/save", json={**fields, "requests": [["the key", "text", body]]})

    page = answer.text
    assert answer.headers["content-disposition"].startswith("attachment")
    assert page.count("</script>") == 2
    assert page.count("<script") == 2
    assert "src=" not in page
    assert "href=" not in page
    assert "&lt;/title&gt;" in page
    inside = page.split('id="saved">')[1].split("</script>")[0]
    found = json.loads(inside)
    assert found["selection"] == fields["hash"]
    import base64

    frame = base64.b64decode(found["frames"]["the key"])
    assert frame == client.post("/api/text", json=body).content
    assert found["runs"]["chosen"] == "r"


def test_a_save_that_cant_be_is_told(client, built):
    for requests in (5, [5], [["a", "text"]], [["a", "text", {}]] * 101, [["a", "text", []]]):
        assert client.post("/api/save", json={"requests": requests}).status_code == 400
    assert client.post("/api/save", json={"requests": [["a", "nothing", {}]]}).status_code == 404


def test_the_page_is_served_as_it_was_built(client, built):
    assert client.get("/").text == (built / "index.html").read_text()
    assert client.get("/app.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/assets/app.css").text == "a { color: red }"
    assert client.get("/other.js").status_code == 404


def test_a_page_that_was_not_built_says_how(client, tmp_path, monkeypatch):
    monkeypatch.setattr(saved, "STATIC", tmp_path / "none")

    answer = client.get("/")

    assert answer.status_code == 400
    assert "was not built" in answer.json()["error"]


def test_every_view_is_in_the_documents(folder):
    page = (Path(serving.__file__).parents[2] / "docs" / "inspection.md").read_text(encoding="utf-8")

    for name in views.VIEWS:
        assert f"| `{name}` |" in page
    assert dataclasses.is_dataclass(views.View)

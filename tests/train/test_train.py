"""Fine-tuning: what learns and what does not, from the first check to the model folder."""

import inspect
import json
import os
import shutil
import stat
from dataclasses import fields

import pytest
import torch
from helpers.commands import FAST, SAMPLE, WORDS
from helpers.training import (
    QUICK,
    ids,
    made_up,
    same,
    source,
    steps_logged,
    tasks,
    write_tasks,
)
from safetensors.torch import load_file

from malmm_cli.checkpoints.state import read_state
from malmm_cli.errors import MediaError, ModelError, UsageError
from malmm_cli.events import SILENT
from malmm_cli.models import registry
from malmm_cli.models.instructblip.defaults import ASK, CAPTION, DEFAULTS
from malmm_cli.pipeline import features, loading
from malmm_cli.settings import changed
from malmm_cli.train import Batch, Recipe, Sample, checks, fit
from malmm_cli.train.checks import as_sample, choose_frames
from malmm_cli.train.features import Clip, ClipFeatures
from malmm_cli.train.learner import Learner
from malmm_cli.types import Task

MEMORY = changed(ASK, memory=2)


@pytest.fixture
def data(tmp_path):
    return write_tasks(tmp_path / "tasks.jsonl")


def still(folder):
    """A model of a folder without dropout, so that numbers can be compared."""
    net = registry.load(folder)
    for module in net.qformer.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "heads"):
            module.dropout = 0.0
    about = net.config.qformer_config
    about.hidden_dropout_prob = about.attention_probs_dropout_prob = 0.0
    return net


# from files to a model folder


@pytest.mark.parametrize("language", ["vicuna", "t5"])
def test_what_was_trained_is_a_model_again(run, data, tmp_path, language, request):
    base, out = request.getfixturevalue(f"{language}_folder"), tmp_path / "out"
    done = run(
        *("train", data, "-o", out, "--model", base, "--steps", "3", "--save-every", "2", *QUICK),
        *("--validation", data, "--lr", "0.01", "--warmup", "0"),
    )
    assert (done.code, done.out) == (0, ""), done.err
    before, after = read_state(base), read_state(out)
    assert after.keys() - before.keys() == {"position_embedding.weight"}
    learnt = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert learnt, "nothing was learnt"
    parts = ("qformer.", "query_tokens", "language_projection.")
    assert all(name.startswith(parts) for name in learnt), "what is frozen has changed"
    assert {"query_tokens", "language_projection.weight"} < learnt
    assert all(after[name].dtype == value.dtype for name, value in before.items())
    assert after["position_embedding.weight"].any()
    assert run("ask", SAMPLE, "what moves?", *FAST, "--model", out).code == 0
    convert = ("convert", out / "training" / "trained.safetensors", tmp_path / "again")
    assert run(*convert, "--base", base).code == 0
    assert same({k: v.half() for k, v in read_state(tmp_path / "again").items()}, after)


def test_the_log_and_the_validation(run, data, tmp_path):
    out = tmp_path / "out"
    options = ("--model", "tiny", "--steps", "5", "--save-every", "2", *QUICK)
    done = run("train", data, "-o", out, "--validation", data, *options)
    assert done.code == 0, done.err
    lines = steps_logged(out)
    learnt = [line for line in lines if "loss" in line]
    assert [line["step"] for line in learnt] == [1, 2, 3, 4, 5]
    assert all(line.keys() == {"step", "loss", "lr", "seconds", "samples"} for line in learnt)
    assert [line["samples"] for line in learnt] == [2, 1, 2, 1, 2]
    assert [line["step"] for line in lines if "validation" in line] == [2, 4, 5]
    assert "step 4 of 5" in done.err
    assert "exact" in done.err


def test_half_precision_trains_what_is_float32(run, data, tmp_path):
    out = tmp_path / "out"
    options = ("--model", "tiny", "--dtype", "bfloat16", "--steps", "2", *QUICK)
    assert run("train", data, "-o", out, *options).code == 0
    learnt = load_file(out / "training" / "trained.safetensors")
    assert {value.dtype for value in learnt.values()} == {torch.float32}
    assert learnt["query_tokens"].bfloat16().float().ne(learnt["query_tokens"]).any()
    assert all(line["loss"] > 0 for line in steps_logged(out))


@pytest.mark.parametrize(
    "memory",
    [
        ("--memory", "0"),
        ("--banks", "visual"),
        ("--banks", "query"),
        ("--banks", "none"),
        ("--policy", "fifo"),
        ("--policy", "average"),
        ("--policy", "last"),
    ],
)
def test_every_memory_can_be_trained(run, data, tmp_path, memory):
    options = ("--model", "tiny", "--steps", "1", *QUICK, *memory)
    done = run("train", data, "-o", tmp_path / "out", *options)
    assert done.code == 0, done.err


def test_features_are_kept_and_used_again(run, data, tmp_path, monkeypatch):
    encode, encoded = features.encode, []
    monkeypatch.setattr(
        "malmm_cli.train.features.encode", lambda *a: encoded.append(a[0]) or encode(*a)
    )
    options = ("--model", "tiny", "--steps", "1", "--cache", tmp_path / "kept", *QUICK)
    assert run("train", data, "-o", tmp_path / "one", *options).code == 0
    assert len(encoded) == 1, "three questions, one video"
    first = read_state(tmp_path / "one")
    assert run("train", data, "-o", tmp_path / "two", *options).code == 0
    assert len(encoded) == 1
    (path,) = (tmp_path / "kept").glob("*/000000.safetensors")
    path.write_bytes(path.read_bytes()[:-1000])
    assert run("train", data, "-o", tmp_path / "three", *options).code == 0
    assert len(encoded) == 2, "a damaged file is made again"
    assert run("train", data, "-o", tmp_path / "four", *options, "--frames", "5").code == 0
    assert len(encoded) == 3, "other frames are other features"
    assert same(first, read_state(tmp_path / "two"))
    assert same(first, read_state(tmp_path / "three"))


def test_without_a_cache_every_step_encodes(run, data, tmp_path):
    options = ("--model", "tiny", "--steps", "2", "--no-cache", *QUICK)
    assert run("train", data, "-o", tmp_path / "out", *options).code == 0
    assert not (tmp_path / "out" / "training" / "features").exists()
    assert [line["step"] for line in steps_logged(tmp_path / "out")] == [1, 2]


# what is learnt from


def test_prompts_are_those_of_ask_and_caption():
    clip = {"video": "a.mp4", "answers": ("x",), "start": 1.0, "end": 2.0}
    asked = as_sample(Task("1", question="who?", **clip), DEFAULTS)
    assert asked == Sample("1", Clip("a.mp4", 1.0, 2.0), "Question: who? Short answer:", ("x",))
    assert as_sample(Task("2", prompt="say {}", **clip), DEFAULTS).prompt == "say {}"
    assert as_sample(Task("3", **clip), DEFAULTS).prompt == CAPTION.prompt


def test_every_epoch_has_every_sample_once_in_an_order_of_its_own():
    samples, features = made_up(videos=5, prompts=3)
    drawn = source(samples, features, Recipe(batch_size=2, accumulate=2, seed=7))
    assert drawn.steps_per_epoch == 4
    epochs = [[ids(list(drawn.draw(4 * e + i))) for i in range(4)] for e in range(2)]
    for epoch in epochs:
        assert [len(step) for step in epoch] == [4, 4, 4, 3]
        assert sorted(name for step in epoch for name in step) == sorted(
            sample.id for sample in samples
        )
    assert epochs[0] != epochs[1]
    again = source(samples, features, Recipe(batch_size=2, accumulate=2, seed=7))
    assert ids(list(again.draw(5))) == epochs[1][1]
    other = source(samples, features, Recipe(batch_size=2, accumulate=2, seed=8))
    assert ids(list(other.draw(5))) != epochs[1][1]


def test_one_of_several_answers_is_learnt_in_each_epoch():
    _, features = made_up(videos=1)
    drawn = source([Sample("a", "v0", "what?", ("x", "y", "z"))], features)
    told = [batch.answers[0] for step in range(20) for batch in drawn.draw(step)]
    assert set(told) == {"x", "y", "z"}
    assert told == [batch.answers[0] for step in range(20) for batch in drawn.draw(step)]
    (batch,) = drawn.all()
    assert batch.samples[0].answers == ("x", "y", "z"), "any of them is right"


def test_prompts_of_one_video_come_together_and_share_its_features():
    samples, features = made_up(videos=4, prompts=3)
    drawn = source(samples, features, Recipe(batch_size=4, together=2))
    for step in range(drawn.steps_per_epoch):
        for batch in drawn.draw(step):
            each = len(batch.samples) // len(batch.videos)
            for index, sample in enumerate(batch.samples):
                assert batch.videos[index // each] is features[sample.clip]
    sizes = [len(b.videos) for s in range(3) for b in drawn.draw(s)]
    assert sum(sizes) < len(samples)


def test_videos_of_other_lengths_go_into_other_batches():
    samples, features = made_up(videos=3, frames=lambda video: 4 + video % 2)
    drawn = list(source(samples, features, Recipe(batch_size=6)).draw(0))
    assert sorted(len(batch.videos[0].rows) for batch in drawn) == [4, 5]
    assert sorted(ids(drawn)) == sorted(sample.id for sample in samples)


def test_processes_share_a_step():
    samples, features = made_up(videos=4, prompts=2)
    recipe = Recipe(batch_size=2)
    alone = source(samples, features, Recipe(batch_size=4))
    for step in range(2):
        parts = [
            ids(list(source(samples, features, recipe, process=i, processes=2).draw(step)))
            for i in range(2)
        ]
        assert sorted(parts[0] + parts[1]) == sorted(ids(list(alone.draw(step))))


# how it is learnt


def test_the_rate_rises_and_falls():
    recipe = Recipe(lr=1e-4, warmup=10)
    rates = [recipe.rate(step, 110) for step in range(111)]
    assert rates[0] == pytest.approx(1e-8)
    assert rates[5] == pytest.approx(1e-8 + (1e-4 - 1e-8) / 2)
    assert rates[10] == max(rates) == 1e-4
    assert rates[60] == pytest.approx(5e-5)
    assert rates[110] == pytest.approx(0, abs=1e-20)
    assert Recipe().rate(1000, 50_000) == 1e-4 > Recipe().rate(999, 50_000)
    assert Recipe().rate(20, 200) == 1e-4 > Recipe().rate(19, 200)
    assert Recipe().rate(0, 5) == 1e-4


def test_two_answers_are_learnt(vicuna_folder, tmp_path):
    """Two videos, one question: the answer can come from the pictures alone."""
    _, features = made_up(videos=2, frames=lambda _: 2)
    samples = [Sample(answer, f"v{i}", "which?", (answer,)) for i, answer in enumerate(WORDS[-2:])]
    recipe = Recipe(batch_size=2, lr=1e-3, warmup=3, seed=1)
    net = still(vicuna_folder)
    drawn = source(samples, features, recipe)
    held_out = source(samples, features, recipe)
    fit(net, drawn, recipe, MEMORY, tmp_path, steps=120, validation=held_out, save_every=120)
    *learnt, last = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert learnt[-1]["loss"] < 0.5 * learnt[0]["loss"]
    assert last["validation"]["exact"] == 1.0
    assert same(load_file(tmp_path / "trained.safetensors"), learnt_by(net))


def learnt_by(net):
    return {
        name: value.detach()
        for name, value in Learner(net, Recipe(), MEMORY, steps=1).parameters.items()
    }


def test_the_best_is_kept_not_the_last(vicuna_folder, tmp_path, monkeypatch):
    from malmm_cli.train.learner import Validated

    told = iter([Validated(2.0, 0.5), Validated(1.0, 0.5), Validated(0.5, 0.4)])
    monkeypatch.setattr(Learner, "validate", lambda *_: next(told))
    samples, features = made_up()
    recipe, net, seen = Recipe(lr=0.01, warmup=0), still(vicuna_folder), {}
    step = Learner.step

    def watched(self, number, batches):
        done = step(self, number, batches)
        seen[number + 1] = self.net.query_tokens.detach().clone()
        return done

    monkeypatch.setattr(Learner, "step", watched)
    drawn = source(samples, features)
    path = fit(net, drawn, recipe, MEMORY, tmp_path, steps=3, validation=drawn, save_every=1)
    assert torch.equal(load_file(path)["query_tokens"], seen[2])
    assert torch.equal(net.query_tokens, seen[2])


@pytest.mark.parametrize("together", [1, 2])
def test_accumulation_changes_nothing(vicuna_folder, together):
    """Batches of another size, or videos of several lengths, give the same mean gradient."""
    samples, features = made_up(videos=3, frames=lambda video: 4 + video % 2)
    found = []
    for size, accumulate in ((6, 1), (3, 2), (1, 6)):
        recipe = Recipe(batch_size=size, accumulate=accumulate, together=together, warmup=0)
        learner = Learner(still(vicuna_folder), recipe, MEMORY, steps=1)
        # the mean over the tokens of a batch is that of its samples where all are equally long
        alike = [Sample(s.id, s.clip, s.prompt, ("red",)) for s in samples]
        learnt = learner.step(0, source(alike, features, recipe).draw(0))
        moments = [learner.optimizer.state[p]["exp_avg"] for p in learner.optimizer.state]
        found.append((learnt, torch.cat([m.flatten() for m in moments])))
    for learnt, moment in found[1:]:
        assert learnt.samples == 6
        assert learnt.loss == pytest.approx(found[0][0].loss, rel=1e-5)
        torch.testing.assert_close(moment, found[0][1], atol=1e-6, rtol=1e-3)


def test_what_is_frozen_has_no_gradient_and_no_dropout(vicuna_folder):
    samples, features = made_up()
    net = registry.load(vicuna_folder)
    learner = Learner(net, Recipe(), MEMORY, steps=2)
    seen = []
    net.language_model.register_forward_hook(lambda part, *_: seen.append(part.training))
    learner.step(0, source(samples, features).draw(0))
    learner.loss(next(iter(source(samples, features).draw(1)))).backward()
    graded = {
        name.split(".")[0] for name, value in net.named_parameters() if value.grad is not None
    }
    assert graded == {"qformer", "query_tokens", "language_projection"}
    assert seen == [False, False]
    decays = {
        g["weight_decay"]: {p.dim() for p in g["params"]} for g in learner.optimizer.param_groups
    }
    assert decays[0.0] == {1}
    assert min(decays[0.05]) >= 2


def test_dropout_follows_from_seed_and_step_alone(vicuna_folder):
    samples, features = made_up()
    losses = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        learner = Learner(registry.load(vicuna_folder), Recipe(), MEMORY, steps=9)
        losses.append(learner.step(3, source(samples, features).draw(3)).loss)
    assert losses[0] == losses[1]
    learner = Learner(registry.load(vicuna_folder), Recipe(seed=1), MEMORY, steps=9)
    assert learner.step(3, source(samples, features).draw(3)).loss != losses[0]


def test_a_long_gradient_is_clipped(vicuna_folder):
    samples, features = made_up()
    first = {}
    for clip in (None, 1e-3):
        learner = Learner(still(vicuna_folder), Recipe(clip=clip), MEMORY, steps=9)
        learner.step(0, source(samples, features).draw(0))
        moments = [s["exp_avg"] / 0.1 for s in learner.optimizer.state.values()]
        first[clip] = torch.cat([m.flatten() for m in moments]).norm().item()
    assert first[1e-3] == pytest.approx(1e-3, rel=1e-3)
    assert first[None] > 0.01


# what goes wrong


def test_a_sample_that_gives_no_number_is_named(vicuna_folder, tmp_path):
    samples, features = made_up(videos=3, prompts=1)
    features["v1"].rows[0, 0, 0] = torch.nan
    recipe = Recipe(batch_size=3)
    drawn = source(samples, features, recipe)
    with pytest.raises(ModelError) as error:
        fit(registry.load(vicuna_folder), drawn, recipe, MEMORY, tmp_path, steps=2)
    assert error.value.message.startswith("step 1: the loss is NaN or infinite in the batch of ")
    assert error.value.message.endswith("caused by v1 0")
    assert all(sample.id in error.value.message for sample in samples)
    assert not list(tmp_path.glob("step-*"))


def test_a_gradient_that_is_no_number_is_not_learnt(vicuna_folder):
    samples, features = made_up()
    net = registry.load(vicuna_folder)
    learner = Learner(net, Recipe(), MEMORY, steps=2)
    net.query_tokens.register_hook(lambda gradient: gradient * torch.nan)
    before = net.query_tokens.detach().clone()
    with pytest.raises(ModelError, match="step 1: the gradient is NaN or infinite; v"):
        learner.step(0, source(samples, features).draw(0))
    assert torch.equal(net.query_tokens, before)


def test_what_is_no_number_is_neither_saved_nor_made_a_model(run, data, tmp_path, monkeypatch):
    """A loss and a gradient may be finite, and what is learnt from them not."""
    step = Learner.step

    def overflow(self, number, batches):
        learnt = step(self, number, batches)
        if number == 1:
            self.parameters["query_tokens"].data[0, 0, 0] = 1e38 if large else torch.inf
        return learnt

    monkeypatch.setattr(Learner, "step", overflow)
    options = ("--model", "tiny", "--steps", "2", "--save-every", "1", *QUICK)
    for large, kind in ((False, "float32"), (True, "float16")):  # tiny's weights are float16
        out = tmp_path / kind
        done = run("train", data, "-o", out, *options)
        assert done.code == 1, done.err
        said = f"trained values in query_tokens are NaN or infinite as torch.{kind}"
        assert f"error: {said}" in done.err
        assert not (out / "config.json").exists()
        left = [path.name for path in (out / "training").glob("step-*")]
        assert left == ["step-00000002" if large else "step-00000001"]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_others_may_read_what_was_learnt(run, data, tmp_path):
    out = tmp_path / "out"
    options = ("--model", "tiny", "--steps", "1", "--validation", data, *QUICK)
    assert run("train", data, "-o", out, *options).code == 0
    files = [*out.glob("training/*.safetensors"), *out.glob("training/step-*/*.safetensors")]
    assert len(files) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}


def test_what_a_run_has_on_the_disk_is_not_needed_again(run, data, tmp_path, monkeypatch):
    options = ("--model", "tiny", "--steps", "2", "--save-every", "1", *QUICK)
    needed = []
    monkeypatch.setattr(checks, "check_room", lambda places: needed.append(places[0][1]))
    for _ in range(2):
        assert run("train", data, "-o", tmp_path / "out", *options).code == 0
    (place,) = (tmp_path / "out" / "training").glob("step-*")
    written = [*place.iterdir(), place.parent / "trained.safetensors"]
    written += (tmp_path / "out").glob("model*.safetensors")
    assert needed[0] - needed[1] == sum(path.stat().st_size for path in written)


def test_a_folder_without_its_model_yet_says_so(run, data, tmp_path):
    (tmp_path / "out" / "training").mkdir(parents=True)
    done = run("caption", SAMPLE, "--model", tmp_path / "out")
    assert done.code == 1
    assert "hint: training is not finished; rerun the same `malmm train`" in done.err


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([{"id": "a", "video": "x.mp4", "answer": "y"}], "line 1: video 'x.mp4' does not exist"),
        (tasks(colour="red"), "line 1: unknown field 'colour'"),
        (tasks(id="a"), "line 2: id 'a' is already used on line 1"),
        ([*tasks()[:2], tasks(id="c", answer=" ")[2]], "line 3: 'answer' is empty"),
        ([tasks()[0], {**tasks()[1], "answer": None}], "line 2: no 'answer'"),
        (tasks(video="v" * 300 + ".mp4"), "does not exist or is not a file"),
        (tasks(video="."), "line 1: video '.' does not exist or is not a file"),
        ([{**tasks()[0], "to": 10**400}], "line 1: 'to': number out of range"),
        ([{**tasks()[0], "choices": ["red"]}], "line 1: none of the answers is in 'choices'"),
        (
            [{**tasks()[0], "choices": ["A circle!", "red", "red"]}],
            "line 1: 'choices' contains a duplicate",
        ),
        (
            [{**tasks()[0], "choices": ["a circle", "caf\u00e9", "cafe\u0301"]}],
            "line 1: 'choices' contains a duplicate",
        ),
        (
            [{**tasks()[0], "answer": None, "answers": ["\ud800"]}],
            "'answers' contains an unpaired surr",
        ),
        (b'{"id": "a", "video": "b", "id": "c"}\n', "line 1: duplicate key 'id'"),
        (b"[" * 100_000, "line 1: not valid JSON: nested too deeply"),
        ([], "the file is empty"),
        (b'{"id": "a"}\n\xff\n', "line 2 is not UTF-8"),
    ],
)
def test_bad_data(refused, tmp_path, lines, says):
    data = tmp_path / "tasks.jsonl"
    data.write_bytes(lines) if isinstance(lines, bytes) else write_tasks(data, lines)
    good = write_tasks(tmp_path / "good.jsonl")
    command = ("train", "-o", "out", "--model", "tiny")
    refused(*command, data, code=2, says=says)
    refused(*command, good, "--validation", data, code=2, says=says)


@pytest.mark.parametrize(
    ("options", "code", "says", "hint"),
    [
        (("--steps", "0"), 2, "--steps 0: must be at least 1", None),
        (("--epochs", "0"), 2, "--epochs 0", None),
        (("--batch-size", "0"), 2, "--batch-size 0", None),
        (("--lr", "nan"), 2, "--lr nan", None),
        (("--lr", "1e38"), 2, "--lr 1e+38: must be at most 1", None),
        (("--weight-decay", "-1"), 2, "--weight-decay -1", None),
        (("--clip", "0"), 2, "--clip 0", None),
        (("--seed", "-1"), 2, "--seed -1", None),
        (("--save-every", "0"), 2, "--save-every 0", None),
        (("--position-gradient", "some"), 2, "position gradient 'some'", "all, last"),
        (("--cache", "c", "--no-cache"), 2, "exclude", None),
        (
            ("--dtype", "float16", "--device", "cpu"),
            2,
            "training in float16 is not supported on cpu",
            "bf",
        ),
        (("--frames", "200", "--memory", "0"), 1, "the language model reads", "--memory 20"),
        (("-o", "nowhere/out"), 2, "no such folder: nowhere", None),
        (("-o", "tasks.jsonl"), 2, "not an empty folder", None),
        (("--validation", "absent.jsonl"), 2, "absent.jsonl: No such file", None),
    ],
)
def test_bad_options(refused, data, options, code, says, hint):
    command = ("train", data, "-o", "out", "--model", "tiny", "-q")
    hint = "bfloat16" if hint == "bf" else hint
    refused(*command, *options, code=code, says=says, hint=hint)


def test_videos_that_are_none_are_all_told(refused, tmp_path):
    lines = tasks()
    for number in (0, 2):
        lines[number]["video"] = f"text{number}.mp4"
        (tmp_path / f"text{number}.mp4").write_text("Dear diary. " * 99)
    data = write_tasks(tmp_path / "tasks.jsonl", lines)
    says = f"id 'q0': {tmp_path / 'text0.mp4'}: not"
    told = refused("train", data, "-o", "out", "--model", "tiny", code=2, says=says)
    assert f"id 'q2': {tmp_path / 'text2.mp4'}: not" in told


def test_a_part_behind_the_end_is_told_with_its_task(refused, tmp_path):
    data = write_tasks(tmp_path / "tasks.jsonl", [{**tasks()[1], "from": 9999}])
    says = f"id 'q1': {SAMPLE}: --from 9999 s is past the end"
    refused("train", data, "-o", "out", "--model", "tiny", code=2, says=says)


def test_a_text_longer_than_the_model_reads(refused, tmp_path):
    data = write_tasks(tmp_path / "tasks.jsonl", tasks(answer="red circle " * 900)[:1])
    says = "q0: 32 visual tokens"
    refused("train", data, "-o", "out", "--model", "tiny", "-q", code=1, says=says, hint="shorten")


def test_a_held_out_prompt_that_leaves_no_room_for_the_longest_answer(refused, data, tmp_path):
    long = [{**tasks()[0], "question": "what is red? " * 500}, tasks(answer="red " * 2500)[1]]
    held_out = write_tasks(tmp_path / "long.jsonl", long)
    command = ("train", data, "-o", "out", "--model", "tiny", "-q", "--validation", held_out)
    refused(*command, code=1, says="q0: 32 visual tokens", hint="shorten")


def test_a_disk_too_small(refused, data, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    command = ("train", data, "-o", "out", "--model", "tiny", "-q")
    refused(*command, code=1, says="needed, but only 1.0 kB free", hint="--no-cache")


def test_a_folder_with_other_things(run, data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "diary.txt").write_text("mine")
    done = run("train", data, "-o", tmp_path / "out", "--model", "tiny")
    assert done.code == 2
    assert "is not an empty folder" in done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["diary.txt"]


def test_a_folder_whose_training_is_not_ours(run, data, tmp_path):
    (tmp_path / "out" / "training").mkdir(parents=True)
    (tmp_path / "out" / "config.json").write_text("mine")
    done = run("train", data, "-o", tmp_path / "out", "--model", "tiny", "--steps", "1")
    assert done.code == 2
    assert "is not an empty folder" in done.err
    assert (tmp_path / "out" / "config.json").read_text() == "mine"


def test_features_that_are_kept_outlive_their_video(tmp_path, vicuna_folder):
    video = tmp_path / "a.mp4"
    shutil.copy(SAMPLE, video)
    model = loading.load(str(vicuna_folder), device="cpu", dtype="float32")
    settings, clip = changed(ASK, frames=3), Clip(str(video))
    chosen = choose_frames({clip: "1"}, settings, SILENT)
    chosen[Clip(str(tmp_path / "b.mp4"))] = chosen[clip]
    features = ClipFeatures(model, settings, chosen, tmp_path / "features", SILENT)
    before = features(Clip(str(video)))
    video.unlink()
    assert torch.equal(features(Clip(str(video))).rows, before.rows)
    with pytest.raises(MediaError, match=r"b\.mp4: No such file"):
        features(Clip(str(tmp_path / "b.mp4")))


def test_defaults_of_the_command_are_those_of_the_recipe():
    from malmm_cli.cli.train import train

    given = inspect.signature(train).parameters
    assert {f.name: given[f.name].default for f in fields(Recipe)} == {
        f.name: f.default for f in fields(Recipe)
    }


def test_a_batch_comes_apart():
    samples, features = made_up(videos=2, prompts=2)
    batch = Batch(tuple(features.values()), tuple(samples))
    for one, sample in zip(batch.apart(), samples, strict=True):
        assert one.samples == (sample,)
        assert one.videos == (features[sample.clip],)


def test_recipes_refuse_by_themselves():
    with pytest.raises(UsageError, match="--accumulate 0"):
        Recipe(accumulate=0).check()

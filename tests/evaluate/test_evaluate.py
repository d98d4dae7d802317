"""`malmm eval`: what is scored, what is kept, and that going on equals never having stopped."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from helpers.commands import SAMPLE
from helpers.events import Recorded
from helpers.memories import remember, start
from PIL import Image

from malmm_cli import media
from malmm_cli.checkpoints.fingerprint import Fingerprints
from malmm_cli.evaluate import ablation, beside, predict, scores
from malmm_cli.evaluate.meteor import meteor
from malmm_cli.evaluate.plan import Plan
from malmm_cli.evaluate.predictions import Prediction
from malmm_cli.evaluate.runner import run as evaluate
from malmm_cli.evaluate.scores import Rule, ages, score
from malmm_cli.models.context import Context
from malmm_cli.models.generation import likelihoods
from malmm_cli.models.instructblip.defaults import ASK, CAPTION
from malmm_cli.models.instructblip.model import InstructBlip
from malmm_cli.pipeline import loading, watch
from malmm_cli.pipeline.features import encode
from malmm_cli.pipeline.model import Model
from malmm_cli.settings import changed
from malmm_cli.types import Task

FEW = ("--frames", "6", "--beams", "2", "--max-new-tokens", "4")
TASKS = [
    {"id": "1", "video": "a.mp4", "question": "what moves?", "kind": "late", "evidence": [50, 60]},
    {
        "id": "2",
        "video": "a.mp4",
        "question": "what first?",
        "kind": "early",
        "evidence": [0, 5],
    },
    {"id": "3", "video": "b.mp4", "question": "what moves?", "kind": "late", "from": 20},
    {"id": "4", "video": "b.mp4", "prompt": "what is shown?"},
    {"id": "5", "video": "b.mp4"},
]


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    """METEOR has tests of its own; Java takes seconds to start."""
    monkeypatch.setattr(scores, "meteor", lambda *_: 0.25)


@pytest.fixture
def write(tmp_path):
    """Writes tasks into a file, two videos beside it, and returns its path."""
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(SAMPLE, tmp_path / name)

    def run(tasks=TASKS, answers=None, **everywhere):
        told = answers or {}
        lines = [{"answer": told.get(task["id"], "qqq"), **everywhere, **task} for task in tasks]
        path = tmp_path / "tasks.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    return run


@pytest.fixture
def run(malmm, t5_folder):
    """Runs `malmm eval` with a model whose words depend on what it sees."""

    def run(*arguments, code=0, quiet=True):
        done = malmm("eval", "--model", t5_folder, *FEW, *["-q"] * quiet, *arguments)
        assert done.code == code, done.err
        return done

    return run


def kept(path):
    header, *lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return header, lines


def texts(path):
    return {line["id"]: line.get("text") for line in kept(path)[1]}


def rate(found):
    return found["exact"], found["count"]


def scored(run, *arguments, **options):
    return json.loads(run(*arguments, "--json", **options).out)["scores"]


def test_scores_of_a_run(run, write, tmp_path):
    run(write())
    said = texts(tmp_path / "tasks.predictions.jsonl")
    assert list(said) == ["1", "2", "3", "4", "5"]
    data = write(answers={"1": f"The {said['1'].upper()}!", "4": said["4"], "5": said["5"]})
    found = scored(run, data, "--overwrite")
    assert (found["tasks"], found["failed"]) == (5, 0)
    assert rate(found["questions"]) == (1 / 3, 3)
    assert rate(found["kinds"]["late"]) == (0.5, 2)
    assert rate(found["kinds"]["early"]) == (0.0, 1)
    quarters = [(part["from"], part["exact"]) for part in found["age"]["quarters"]]
    assert quarters == [(0, 1.0), (0.75, 0.0)]
    captions = found["captions"]
    assert (captions["exact"], captions["count"]) == (1.0, 2)
    assert captions["cider"] == pytest.approx(10)
    assert captions["bleu4"] == pytest.approx(1, abs=1e-6)
    assert captions["rouge_l"] == pytest.approx(1)
    assert captions["meteor"] == 0.25


def test_what_is_printed(run, write):
    done = run(write(), quiet=False)
    assert "questions" in done.out
    assert "CIDEr" in done.out
    assert ["METEOR", "25.0", "2"] in [line.split() for line in done.out.splitlines()]
    assert "5 of 5 tasks done" in done.err
    about = json.loads(run(write(), "--json").out)
    assert about["questions"]["frames"] == about["captions"]["frames"] == 6
    assert (about["questions"]["memory"], about["captions"]["memory"]) == (10, 20)
    assert (about["dtype"], about["device"], about["paper"]) == ("float32", "cpu", None)


def test_how_long_each_stage_took(run, write):
    told = run(write(), "-v", quiet=False).err.splitlines()
    stages = [line for line in told if "6 frames of " in line]
    assert [line.split(": ")[0].rpartition("/")[2] for line in stages] == [
        *("a.mp4", "b.mp4", "b.mp4")  # once for all that look in the same way
    ]
    for stage in ("open", "decode", "encode", "remember", "generate"):
        assert f"{stage} 0." in stages[0]
    assert "6 frames of " not in run(write(), "--overwrite", quiet=False).err


def test_predictions_are_what_the_commands_say(run, write, tmp_path, malmm, t5_folder):
    run(write())
    said = texts(tmp_path / "tasks.predictions.jsonl")
    video, options = tmp_path / "a.mp4", ("--model", t5_folder, *FEW, "-q")
    asked = malmm("ask", video, "what moves?", "what first?", *options).out.splitlines()
    assert [line.split("\t")[1] for line in asked] == [said["1"], said["2"]]
    late = malmm("ask", video, "what moves?", "--from", "20", *options).out.strip()
    assert late == said["3"]
    assert malmm("caption", video, *options).out.strip() == said["5"]
    prompt = ("--prompt", "what is shown?")
    assert malmm("caption", video, *prompt, *options).out.strip() == said["4"]


def test_a_prompt_is_for_questions_where_it_has_a_place_for_them(run, write):
    about = json.loads(run(write(), "--prompt", "Q {} A", "--json").out)
    assert (about["questions"]["prompt"], about["captions"]["prompt"]) == ("Q {} A", CAPTION.prompt)
    about = json.loads(run(write(), "--prompt", "tell", "--json", "--overwrite").out)
    assert (about["questions"]["prompt"], about["captions"]["prompt"]) == (ASK.prompt, "tell")


def test_a_video_is_read_once_for_all_its_questions(run, write, monkeypatch):
    tasks = [{"id": str(k), "video": "a.mp4", "question": f"what {k}?"} for k in range(20)]
    reads, read = [], media.read
    monkeypatch.setattr(media, "read", lambda *about: reads.append(1) or read(*about))
    run(write(tasks))
    assert len(reads) == 1


def test_a_caption_shares_what_is_seen_where_it_looks_in_the_same_way(
    run, write, tmp_path, monkeypatch
):
    tasks = [TASKS[0], {"id": "2", "video": "a.mp4"}]
    data, reads, read = write(tasks), [], media.read
    monkeypatch.setattr(media, "read", lambda *about: reads.append(1) or read(*about))
    run(data)
    assert len(reads) == 2, "M = 10 and M = 20"
    run(data, "--memory", "3", "--overwrite")
    assert len(reads) == 3
    said = texts(tmp_path / "tasks.predictions.jsonl")
    for task in tasks:
        run(write([task]), "--memory", "3", "--overwrite")
        assert texts(tmp_path / "tasks.predictions.jsonl")[task["id"]] == said[task["id"]]


def test_tasks_that_may_answer_at_another_length_are_apart():
    """What leaves no room for a caption may leave it for an answer."""
    tasks = [Task("1", "a.mp4", question="what?"), Task("2", "a.mp4")]
    plans = [
        Plan(changed(ASK, **same), changed(CAPTION, **same))
        for same in ({"frames": 6, "memory": 3}, {"frames": 6, "memory": 3, "max_new_tokens": 4})
    ]
    assert [len(predict._alike(tasks, plan)) for plan in plans] == [2, 1]


def test_what_is_drawn_for_a_task_does_not_hang_on_the_others(run, write, tmp_path):
    drawn = ("--sample", "--seed", "3", "--beams", "1", "--temperature", "2.0")
    tasks = [{"id": str(k), "video": "a.mp4", "question": f"what {k}?"} for k in range(3)]
    together, alone = tmp_path / "together.jsonl", tmp_path / "alone.jsonl"
    run(write(tasks), *drawn, "--predictions", together)
    for limit in "123":
        run(write(tasks), *drawn, "--predictions", alone, "--limit", limit)
    assert texts(alone) == texts(together)


def test_a_killed_run_goes_on_where_it_was(run, write, tmp_path, monkeypatch):
    path = tmp_path / "tasks.predictions.jsonl"
    whole = run(write())
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]) + lines[4][: len(lines[4]) // 2])
    asked = []
    generate = InstructBlip.generate
    monkeypatch.setattr(
        InstructBlip, "generate", lambda *about: asked.extend(about[2]) or generate(*about)
    )
    assert run(write()).out == whole.out
    assert path.read_bytes() == b"".join(lines)
    assert asked == ["what is shown?", CAPTION.prompt]
    asked.clear()
    assert run(write()).out == whole.out
    assert asked == []


def test_a_file_killed_in_its_first_line_is_begun_anew(run, write, tmp_path):
    path = tmp_path / "tasks.predictions.jsonl"
    run(write())
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    run(write())
    assert path.read_bytes() == whole


def test_the_limit_may_grow(run, write, tmp_path):
    assert scored(run, write(), "--limit", "2")["tasks"] == 2
    assert len(kept(tmp_path / "tasks.predictions.jsonl")[1]) == 2
    assert scored(run, write())["tasks"] == 5


def test_what_was_done_before_counts_once_and_has_no_rate(write, one_thread, t5_folder):
    events = Recorded()
    model = loading.load(t5_folder)
    how = {"model": model, "events": events, "frames": 6, "max_new_tokens": 4}
    data = write()
    for limit, counts in ((2, [(2, 2)]), (None, [(2, 5), (3, 5), (5, 5)]), (None, [(5, 5)])):
        events.counts.clear()
        evaluate(data, limit=limit, **how)
        assert events.counts == counts


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("--frames", "5"), "with --frames 6, not 5"),
        (("--policy", "fifo"), "with --policy mbc, not fifo"),
        (("--seed", "1"), "without --seed, not with --seed 1"),
    ],
)
def test_predictions_of_other_settings_are_not_gone_on_with(run, write, tmp_path, change, says):
    run(write())
    before = (tmp_path / "tasks.predictions.jsonl").read_bytes()
    done = run(write(), *change, code=2)
    assert says in done.err
    assert "--overwrite" in done.err
    assert (tmp_path / "tasks.predictions.jsonl").read_bytes() == before
    run(write(), *change, "--overwrite")


def test_other_tasks_or_weights_are_noticed(run, write, monkeypatch):
    run(write())
    assert "for other tasks" in run(write(answers={"1": "star"}), code=2).err
    monkeypatch.setattr(Fingerprints, "weights", "other")
    assert "weights" in run(write(), code=2).err


def test_files_that_hold_no_predictions(run, write, tmp_path):
    data = write()
    assert "is the DATA file" in run(data, "--predictions", data, "--overwrite", code=2).err
    other = tmp_path / "other.jsonl"
    for content in ("[1]\n", '{"id": "1"}\n', "text\n", '{"my": "results"}'):
        other.write_text(content)
        assert "is not a predictions file" in run(data, "--predictions", other, code=2).err
        assert other.read_text() == content
    missing = tmp_path / "nowhere" / "p.jsonl"
    assert "no such folder" in run(data, "--predictions", missing, code=2).err


def test_a_broken_video_hurts_no_other_and_is_tried_again(run, write, tmp_path):
    data = write()
    whole = tmp_path / "a.mp4"
    whole.write_bytes(b"no video")
    done = run(data, code=1)
    assert "a.mp4" in done.err
    assert "2 of 5" in done.out  # failed
    lines = {line["id"]: line for line in kept(tmp_path / "tasks.predictions.jsonl")[1]}
    assert lines["1"]["error"]["kind"] == lines["2"]["error"]["kind"] == "NotAVideo"
    assert scored(run, data, code=1)["failed"] == 2
    shutil.copy(SAMPLE, whole)
    assert scored(run, data)["failed"] == 0


def test_a_part_behind_the_end_is_told_with_its_video(run, write):
    done = run(write([{"id": "1", "video": "a.mp4", "answer": "x", "from": 9999}]), code=1)
    assert "a.mp4: --from 9999 s is past the end" in done.err


def test_a_fault_of_ours_is_recorded_too(run, write, tmp_path, monkeypatch):
    monkeypatch.setattr(InstructBlip, "generate", lambda *about: 1 / 0)
    assert "ZeroDivisionError" in run(write(), code=1).err
    errors = {line["error"]["kind"] for line in kept(tmp_path / "tasks.predictions.jsonl")[1]}
    assert errors == {"Unexpected"}


def test_ctrl_c_keeps_what_is_done(run, write, tmp_path, monkeypatch):
    whole = watch.watch_whole

    def stop_at_b(video, *about):
        if str(video).endswith("b.mp4"):
            raise KeyboardInterrupt
        return whole(video, *about)

    monkeypatch.setattr(watch, "watch_whole", stop_at_b)
    done = run(write(), code=130)
    assert "tasks.predictions.jsonl; run the same command to resume" in done.err
    assert list(texts(tmp_path / "tasks.predictions.jsonl")) == ["1", "2"]


def test_ctrl_c_before_anything_is_done_says_nothing_of_resuming(run, write, monkeypatch):
    def stop(*about):
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "watch_whole", stop)
    assert "resume" not in run(write(), code=130).err


def test_a_picture_that_malmm_did_not_draw_is_kept(run, write, tmp_path):
    holiday = tmp_path / "holiday.png"
    Image.new("RGB", (4, 4)).save(holiday)
    before = holiday.read_bytes()
    done = run(write(), "--ablate", "--picture", holiday, code=2)
    assert "holiday.png: exists, and malmm did not draw it" in done.err
    assert holiday.read_bytes() == before


def test_without_the_extra_captions_are_matched_alone(run, write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap.bleu.bleu", None)
    done = run(write(), "--json")
    assert json.loads(done.out)["scores"]["captions"]["count"] == 2
    assert "cider" not in json.loads(done.out)["scores"]["captions"]
    assert "pip install 'malmm[eval]'" in done.err


def test_without_java_all_but_meteor_is_scored(run, write, monkeypatch, tmp_path):
    monkeypatch.setattr(scores, "meteor", meteor)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run(write())
    lines = done.out.splitlines()
    assert ["METEOR", "–"] in [line.split() for line in lines]
    assert lines[-1] == ("METEOR is not computed: java not found; install Java 8 or newer")
    captions = json.loads(run(write(), "--json").out)["scores"]["captions"]
    assert captions["meteor"] is None
    assert captions["meteor_unscored"].startswith("java not found")
    assert captions["cider"] >= 0


@pytest.mark.parametrize("folder", ["vicuna_folder", "t5_folder"])
def test_likelihoods_are_those_of_the_loss(load_once, request, one_thread, folder):
    net = load_once(request.getfixturevalue(folder))
    tokens = torch.randn(3, net.num_queries, net.query_tokens.shape[2], generator=seeded())
    prompts = ["what moves?", "where?", "what shape moves left?"]
    answers = ["a red circle", "left", "red"]
    together = likelihoods(net, tokens, prompts, answers)
    for k, answer in enumerate(answers):
        one = tokens[k : k + 1], [prompts[k]], [answer]
        torch.testing.assert_close(likelihoods(net, *one)[0], together[k], atol=1e-4, rtol=1e-4)
        with torch.no_grad():
            loss = net.loss(Context(one[0]), *one[1:])
        length = int((net.embed_with_answers(*one)[2] != -100).sum())
        torch.testing.assert_close(together[k], -loss * length, atol=1e-4, rtol=1e-4)


def seeded():
    return torch.Generator().manual_seed(3)


def test_the_likeliest_choice_is_taken(run, write, tmp_path, monkeypatch):
    choices = ["red", "circle", "left blue", "shape"]
    data = write(choices=choices, answer="red")
    monkeypatch.setattr(predict, "VISUAL", 16)  # two choices at a time
    run(data, "--choices")
    for line in kept(tmp_path / "tasks.predictions.jsonl")[1]:
        assert list(line["likelihoods"]) == choices
        assert line["likelihoods"][line["text"]] == max(line["likelihoods"].values())
    before = texts(tmp_path / "tasks.predictions.jsonl")
    monkeypatch.undo()
    run(data, "--choices", "--overwrite")
    assert texts(tmp_path / "tasks.predictions.jsonl") == before


def test_choices_are_needed_to_choose(run, write):
    assert "no task has 'choices'" in run(write(), "--choices", code=2).err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--format-in", "imagenet"), "unknown data set 'imagenet'"),
        (("--videos", "."), "--videos is only for the data sets of --format-in"),
        (("--variants", "."), "--variants goes with --ablate"),
        (("--picture", "a.png"), "--picture goes with --ablate"),
        (("--ablate", "--picture", "a.txt"), "--picture a.txt: must end in .png"),
    ],
)
def test_options_that_make_no_sense(run, write, options, says):
    assert says in run(write(), *options, code=2).err


def test_a_set_of_the_paper(run, tmp_path):
    shutil.copy(SAMPLE, tmp_path / "v1.mp4")
    record = {"answer": "no", "answer_type": 3, "question": "is it red?", "video": "v1"}
    (tmp_path / "qa_test.json").write_text(json.dumps({"v_v1_3": record}))
    done = run(tmp_path, "--format-in", "activitynet-qa", "--predictions", tmp_path / "p.jsonl")
    assert "table 3" in done.out
    assert "49.8" in done.out


def prediction(number, text="red", **about):
    shown = {"frames": 11, "first": 0.0, "last": 100.0, "end": 100.0, "duration": 100.0}
    return Prediction(str(number), "v.mp4", "p", text, **{**shown, **about})


def test_the_age_of_evidence():
    tasks = [
        Task("0", "v.mp4", question="?", answers=("red",), evidence=(10, 30)),
        Task("1", "v.mp4", question="?", answers=("red",), evidence=(10, 60), start=50.0),
        Task("2", "v.mp4", question="?", answers=("red",), evidence=(90, 120)),
        Task("3", "v.mp4", question="?", answers=("red",)),
    ]
    said = [prediction(k) for k in range(4)]
    said[1] = prediction(1, first=50.0, frames=6, start=50.0)
    found = ages(tasks, said)
    assert found["0"] == scores.Age(70.0, 7.0, 0.7)
    assert found["1"] == scores.Age(40.0, 4.0, 0.8)
    assert found["2"] == scores.Age(0.0, 0.0, 0.0)
    assert set(found) == {"0", "1", "2"}


def test_the_part_that_was_looked_at_begins_where_the_command_says(run, write, tmp_path):
    task = {**TASKS[0], "evidence": [30, 40]}
    found = scored(run, write([task]), "--from", "20")
    assert [part["from"] for part in found["age"]["quarters"]] == [0.5], "20 of 40 s"
    assert kept(tmp_path / "tasks.predictions.jsonl")[1][0]["start"] == 20


def test_prompts_are_as_old_as_the_memory_of_captions_tells(run, write):
    task = {"prompt": "which?", "choices": ["red", "blue"], "evidence": [0, 5]}
    data = write([{"id": "1", "video": "a.mp4", **task}], {"1": "red"})
    assert scored(run, data, "--choices")["age"]["slots"] == CAPTION.memory.length


def test_predictions_lie_beside_the_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert beside(Path("a/test.jsonl"), "x.jsonl") == Path("a/test.x.jsonl")
    assert beside(Path("."), "x.jsonl") == tmp_path.parent / f"{tmp_path.name}.x.jsonl"
    assert beside(Path("a/.."), "x.jsonl") == tmp_path.parent / f"{tmp_path.name}.x.jsonl"


def test_bins():
    tasks = [
        Task(str(k), "v.mp4", question="?", answers=("red",), evidence=(0, 100.0 - k))
        for k in range(100)
    ]
    said = [prediction(k, "red" if k < 40 else "blue") for k in range(100)]
    found = score(tasks, said, Rule(memory=4))
    assert rate(found["age"]["newer"]) == (1.0, 40)
    assert rate(found["age"]["older"]) == (0.0, 60)
    steps = [(part["from"], part["to"], part["count"]) for part in found["age"]["steps"]]
    assert steps == [(0, 2, 20), (2, 4, 20), (4, 8, 40), (8, 16, 20)]
    assert [part["exact"] for part in found["age"]["quarters"]] == [1.0, 0.6, 0.0, 0.0]
    (length,) = found["length"]
    assert (length["from"], length["to"], *rate(length)) == (61, 121, 0.4, 100)


def test_failures_are_counted_apart():
    tasks = [Task(str(k), "v.mp4", question="?", answers=("red",)) for k in range(2)]
    said = [prediction(0), Prediction("1", "v.mp4", "p", error={"kind": "K", "message": "m"})]
    found = score(tasks, said, Rule(memory=10))
    assert (found["tasks"], found["failed"]) == (2, 1)
    assert rate(found["questions"]) == (1.0, 1)


@pytest.fixture
def few_swaps(monkeypatch):
    monkeypatch.setattr(ablation, "LENGTHS", (2,))
    monkeypatch.setattr(ablation, "FRAMES", (5,))
    monkeypatch.setattr(ablation, "SEEDS", (0, 1))


def test_an_ablation(run, write, tmp_path, monkeypatch, vicuna_folder, few_swaps):
    variants = tmp_path / "variants"
    variants.mkdir()
    for name in ("fifo", "fifo.1"):
        (variants / name).symlink_to(vicuna_folder)
    encoded, encode = [], InstructBlip.encode_frames
    monkeypatch.setattr(
        InstructBlip,
        "encode_frames",
        lambda net, x: encoded.append(len(x)) or encode(net, x),
    )
    data = write(TASKS[:3])
    done = run(data, "--ablate", "--variants", variants, "--memory", "3", quiet=False)
    assert encoded == [6, 5] * 2 + [6] * 4  # one time for all rows that look at as many frames
    lines = [line.split("  ")[0] for line in done.out.splitlines()]
    table = lines[lines.index("given: mbc") : lines.index("blind guess") + 1]
    assert table == [
        *("given: mbc", "--policy fifo", "--policy average", "--policy last", "--policy random"),
        *("--policy uniform", "--merge frame", "--mean plain", "--banks visual", "--banks query"),
        *("--banks none", "--memory 0", "--frames 5", "last 4 frames"),
        *("fifo, trained", "blind guess"),
    ]
    assert max(map(len, done.out.splitlines()[1:])) <= 80
    with Image.open(tmp_path / "tasks.ablation.png") as picture:
        assert picture.width > picture.height > 500
    again = json.loads(run(data, "--ablate", "--variants", variants, "--memory", "3", "--json").out)
    assert encoded == [6, 5] * 2 + [6] * 4
    hows = [row["how"] for row in again["rows"]]
    assert hows == ["given", *["changed at inference"] * 23, "trained", "trained"]
    trained = kept(tmp_path / "tasks.ablation" / "trained-fifo.1.jsonl")[0]["predictions"]
    assert trained["questions"]["policy"] == "fifo"
    assert again["blind"]["questions"]["count"] == 3
    assert {"fifo", "fifo.1"} in [{*cell["rows"]} for cell in again["cells"]]


def test_an_ablation_of_captions_has_a_table_alone(run, write, tmp_path, monkeypatch, few_swaps):
    def unused(*_):
        raise AssertionError("the table has no such score")

    monkeypatch.setattr(scores, "meteor", unused)
    monkeypatch.setattr(scores, "each_caption", unused)
    done = run(write(TASKS[3:]), "--ablate", quiet=False)
    lines = done.out.splitlines()
    assert lines[3].startswith("captions, % correct, n = 2")
    assert lines[4].split() == ["any", "M", "M", "=", "2", "M", "=", "20"]
    assert lines[5].startswith("given: mbc")
    assert "blind" not in done.out
    assert "no plot: no answered question has evidence of known age" in done.err
    assert not (tmp_path / "tasks.ablation.png").exists()


def test_a_swapped_row_equals_a_run_of_its_own(run, write, tmp_path, few_swaps):
    data = write(TASKS[:3])
    run(data, "--ablate")
    folder = tmp_path / "tasks.ablation"
    for name, options in {
        "given": (),
        "m-2": ("--memory", "2"),
        "m-0": ("--memory", "0"),
        "banks-query": ("--banks", "query"),
        "average": ("--policy", "average"),
        "random-m-2-seed-1": ("--policy", "random", "--memory", "2", "--seed", "1"),
        "uniform-m-2": ("--policy", "uniform", "--memory", "2"),
        "merge-frame": ("--merge", "frame"),
        "mean-plain": ("--mean", "plain"),
        "5-frames": ("--frames", "5"),
    }.items():
        own = tmp_path / f"{name}.jsonl"
        run(data, *options, "--predictions", own)
        assert texts(folder / f"{name}.jsonl") == texts(own), name


def test_the_newest_frames_keep_their_places(load_once, vicuna_folder, one_thread, clip):
    net = load_once(vicuna_folder)
    model = Model(net, "m", None, "cpu", "float32")
    settings = changed(ASK, frames=6)
    newest = encode(clip, model, settings).newest(4)
    seen, context = watch.watch_whole(newest, ["what?"], model, settings)
    ((rows, seconds, _),) = newest.chunks
    assert (seen.frames, seen.first, seen.last) == (4, seconds[0, 0], seconds[-1, 1])
    assert newest.skipped == 2
    memory = start(net, ["what?"], length=4, total=6)
    memory.frames = 2
    assert torch.equal(context.tokens, remember(net, rows[None], memory)[0])


def test_the_largest_seed_will_do(run, write):
    run(write(TASKS[:1]), "--policy", "random", "--memory", "2", "--seed", 2**64 - 1)
    said = run(write(TASKS[:1]), "--policy", "random", "--seed", 2**64, "--overwrite", code=2).err
    assert f"--seed {2**64}: must be between 0 and {2**64 - 1}" in said


def test_ablations_that_cannot_be(run, write, tmp_path, monkeypatch):
    empty = tmp_path / "variants"
    empty.mkdir()
    assert (
        "no folder of a trained variant"
        in run(write(), "--ablate", "--variants", empty, code=2).err
    )
    (empty / "both" / "training").mkdir(parents=True)
    assert "config.json" in run(write(), "--ablate", "--variants", empty, code=1).err
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = run(write(), "--ablate", code=2)
    assert "pip install 'malmm[eval]'" in done.err
    assert not (tmp_path / "tasks.ablation").exists()

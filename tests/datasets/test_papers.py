"""The paper's data sets, each from a miniature of the form in which its authors publish it."""

import json
import unicodedata

import pytest

from malmm_cli.datasets.papers import LVU_TASKS, SETS, read_set
from malmm_cli.errors import UsageError

LVU = {
    "v1": {
        "subset": "test",
        "duration": 160,
        "num_frames": 1800,
        "director": "ron",
        "director_answer": "(c)",
        "year": "5",
        "year_answer": "(f)",
    },
    "v2": {"subset": "test", "duration": 42, "num_frames": 400, "director": "mark"},
    "v3": {"subset": "test", "duration": 99, "num_frames": 1000, "genre": "comedy"},
}
BREAKFAST = {
    "P47-cam01-P47_coffee": {
        "duration": 44,
        "frame_length": 432,
        "class_name": "coffee",
        "class_label": 1,
    },
    "P47-stereo-P47_milk_ch0": {
        "duration": 67,
        "frame_length": 662,
        "class_name": "milk",
        "class_label": 8,
    },
    "P28-cam01-P28_cereals": {
        "duration": 30,
        "frame_length": 300,
        "class_name": "cereal",
        "class_label": 0,
    },
}
COIN = {
    "c1": {"subset": "val", "duration": 80.1, "target": "make tea", "num_frames_actual": 801},
    "c2": {"subset": "train", "duration": 80.1, "target": "change tire", "num_frames_actual": 801},
    "c3": {"subset": "val", "duration": 80.1, "target": "make tea"},
    "AfiVmAjfTNs": {"subset": "val", "duration": 9, "target": "sow", "num_frames_actual": 90},
}
QA = {
    "0000000": {
        "answer": "someone",
        "question": "who opened the box?",
        "answer_type": "who",
        "question_id": "0000000",
        "dataset": "msvd",
        "video": "v1",
        "frame_length": 102,
    },
    "0000001": {
        "answer": "box",
        "question": "what is opened?",
        "answer_type": "what",
        "question_id": "0000001",
        "dataset": "msvd",
        "video": "v2",
        "frame_length": 102,
    },
}
ACTIVITYNET = {
    "v_v1_3": {
        "answer": "no",
        "answer_type": 3,
        "question": "is the athlete wearing trousers",
        "question_id": "v_v1_3",
        "video": "v1",
        "frame_length": 101,
    }
}
CAPTIONS = {
    str(k): {"image_id": f"{v}.avi", "caption": text, "id": k, "video": v, "frame_length": 72}
    for k, (v, text) in enumerate([("v1", "a man cooks"), ("v1", "he cooks"), ("v2", "a dog")])
}
YOUCOOK2 = {
    "v1_0047_0060": {
        "video": "v1",
        "segment": "v1_0047_0060",
        "id": 0,
        "duration": 58.86,
        "start_time": 47,
        "end_time": 60,
        "frame_length": 589,
        "recipe": "fattoush",
        "caption": "pick the ends off the verdalago",
    }
}


@pytest.fixture
def read(tmp_path):
    """Reads a miniature; `videos` are the files that are there."""

    def run(name, records, videos=("v1.mp4", "v2.webm"), **options):
        for video in videos:
            path = tmp_path / "videos" / video
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        split = options.get("split") or SETS[name].split
        file = tmp_path / SETS[name].file.format(split=split)
        file.write_text(records if isinstance(records, str) else json.dumps(records), "utf-8")
        place = options.pop("place", tmp_path)
        return read_set(place, name, videos=tmp_path / "videos", **options)

    return run


def test_lvu_is_cut_into_clips(read, tmp_path):
    tasks = read("lvu", LVU, part="director")
    assert [(task.id, task.start, task.end) for task in tasks] == [
        ("v1_0", 0.0, 99.0),
        ("v1_20", 20.0, 119.0),
        ("v1_40", 40.0, 139.0),
        ("v1_60", 60.0, 159.0),
        ("v2_0", 0.0, 39.9),
    ]
    assert {task.prompt for task in tasks} == {"what is the director of the movie?"}
    assert [task.answers for task in tasks] == [("ron",)] * 4 + [("mark",)]
    assert {task.choices for task in tasks} == {("mark", "ron")}
    assert tasks[0].video == str(tmp_path / "videos" / "v1.mp4")
    assert tasks[4].video == str(tmp_path / "videos" / "v2.webm")


def test_a_picture_beside_a_video_is_not_taken_for_it(read, tmp_path):
    tasks = read("lvu", LVU, ("v1.jpg", "v1.mp4", "v1.en.vtt", "v2.webp"), part="director")
    assert tasks[0].video == str(tmp_path / "videos" / "v1.mp4")
    assert tasks[4].video == str(tmp_path / "videos" / "v2.webp"), "better than none"


def test_breakfast(read, tmp_path):
    there = ["P47/cam01/P47_coffee.avi", "P47-stereo-P47_milk_ch0.mp4"]
    coffee, milk = read("breakfast", BREAKFAST, there)  # the third is left out by the authors
    assert coffee.video == str(tmp_path / "videos" / there[0])
    assert milk.video == str(tmp_path / "videos" / there[1])
    assert (coffee.answers, coffee.question) == (("coffee",), None)
    assert coffee.prompt == "what type of breakfast is shown in the video?"
    assert coffee.choices == ("cereal", "coffee", "milk")


def test_coin(read):
    (task,) = read("coin", COIN, ["c1.mp4"])
    assert (task.id, task.answers) == ("c1", ("make tea",))
    assert task.prompt == "what is the activity in the video?"
    assert task.choices == ("change tire", "make tea", "sow")
    (task,) = read("coin", COIN, ["c2.mp4"], split="train")
    assert task.id == "c2"


def test_another_split_than_the_papers_is_named(read, tmp_path):
    with pytest.raises(UsageError, match="no entries for coin, split test") as caught:
        read("coin", COIN, ["c1.mp4"], split="test")
    assert caught.value.hint == "available splits: train, val"
    with pytest.raises(UsageError, match="No such file") as caught:
        read_set(tmp_path, "breakfast", split="train")
    assert caught.value.hint == "the paper's results are for --split val"


@pytest.mark.parametrize("name", ["msrvtt-qa", "msvd-qa", "activitynet-qa"])
@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("is the person in white trouser a woman ", "is the person in white trouser a woman"),
        ('What is "the man" wearing?', "what is the man wearing?"),
        ("who (left) won; him: #1? ~ *yes*!.", "who left won him 1?  yes"),
        (" what  is, it", " what  is, it"),
        (" ".join(map(str, range(60))), " ".join(map(str, range(50)))),
        ("\u00c0 la carte\t ", "\u00e0 la carte\t"),
    ],
)
def test_questions_are_cleaned_as_the_authors_clean_them(read, name, given, asked):
    (task, _) = read(name, {**QA, "0000000": {**QA["0000000"], "question": given}})
    assert task.question == asked


def test_a_video_is_found_in_whatever_form_its_name_is_written(read, tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    for there, asked in ((composed, decomposed), (decomposed, composed)):
        for old in (tmp_path / "videos").glob("*"):
            old.unlink()
        records = {"0": {**QA["0000000"], "video": asked}}
        (task,) = read("msvd-qa", records, [f"{there}.mp4"])
        assert task.video == str(tmp_path / "videos" / f"{there}.mp4")


def test_captions_that_were_never_published_are_none(read):
    empty = {"1": {**YOUCOOK2["v1_0047_0060"], "caption": ""}}
    with pytest.raises(UsageError, match="no entries for youcook2, split test") as caught:
        read("youcook2", empty, split="test")
    assert caught.value.hint == "the paper's results are for --split val"


@pytest.mark.parametrize("name", ["msrvtt-qa", "msvd-qa"])
def test_questions(read, name):
    tasks = read(name, QA)
    assert [task.question for task in tasks] == ["who opened the box?", "what is opened?"]
    assert [task.answers for task in tasks] == [("someone",), ("box",)]
    assert [task.kind for task in tasks] == ["who", "what"]
    assert SETS[name].first_word


def test_activitynet(read):
    (task,) = read("activitynet-qa", ACTIVITYNET)
    assert (task.id, task.kind, task.answers) == ("v_v1_3", "3", ("no",))
    assert not SETS["activitynet-qa"].first_word


@pytest.mark.parametrize("name", ["msrvtt-cap", "msvd-cap"])
def test_captions_of_a_video_are_one_task(read, name):
    tasks = read(name, CAPTIONS)
    assert [(task.id, task.answers) for task in tasks] == [
        ("v1", ("a man cooks", "he cooks")),
        ("v2", ("a dog",)),
    ]
    assert all(task.question is task.prompt is None for task in tasks)


def test_youcook2_has_segments(read):
    (task,) = read("youcook2", YOUCOOK2)
    assert (task.id, task.start, task.end) == ("v1_0047_0060", 47.0, 58.86)
    assert task.answers == ("pick the ends off the verdalago",)


def test_the_papers_settings():
    def about(changes):
        return tuple(changes[name] for name in ("frames", "memory", "max_new_tokens"))

    assert about(SETS["lvu"].captions) == (100, 20, 4)
    assert about(SETS["breakfast"].captions) == about(SETS["coin"].captions) == (100, 20, 19)
    assert about(SETS["msvd-qa"].questions) == (20, 10, 9)
    assert about(SETS["msrvtt-cap"].captions) == (80, 40, 49)
    assert about(SETS["youcook2"].captions) == (80, 40, 29)
    assert set(SETS["lvu"].paper) == set(LVU_TASKS)
    assert sum(SETS["lvu"].paper.values()) / 7 == pytest.approx(63.0, abs=0.05)


def test_a_file_is_taken_as_well_as_its_folder(read, tmp_path):
    read("msvd-qa", QA)
    assert read("msvd-qa", QA, place=tmp_path / "qa_test.json") == read("msvd-qa", QA)


def test_a_missing_video_is_left_to_be_found_missing(read, tmp_path):
    tasks = read("msvd-qa", QA, ["v2.mp4"])
    assert tasks[0].video == str(tmp_path / "videos" / "v1")


@pytest.mark.parametrize(
    ("name", "records", "options", "says"),
    [
        ("imagenet", {}, {}, "unknown data set 'imagenet'"),
        ("msvd-qa", QA, {"split": "dev"}, "unknown split 'dev'"),
        ("lvu", LVU, {}, "lvu has several tasks"),
        ("lvu", LVU, {"part": "colour"}, "unknown task 'colour'"),
        ("msvd-qa", QA, {"part": "director"}, "unknown task 'director'"),
        ("lvu", LVU, {"part": "writer"}, "no entries for writer"),
        ("msvd-qa", CAPTIONS, {}, "is not a msvd-qa annotation file: no 'question'"),
        ("msvd-qa", [QA], {}, "not a JSON object mapping ids to records"),
        ("msvd-qa", "{", {}, "is not valid JSON"),
        ("coin", {"v1": {"subset": 3}}, {}, "is not a coin annotation file: no 'target'"),
        (
            "coin",
            {"v1": COIN["c1"] | {"subset": 3}},
            {},
            "'subset': expected text, got",
        ),
        ("msvd-qa", QA, {"videos": ["other.mp4"]}, "none of the videos exist"),
    ],
)
def test_what_cannot_be_read(read, tmp_path, name, records, options, says):
    if name not in SETS:
        with pytest.raises(UsageError, match=says):
            read_set(tmp_path, name)
        return
    if options.get("split") == "dev":
        with pytest.raises(UsageError, match=says):
            read_set(tmp_path, name, split="dev")
        return
    with pytest.raises(UsageError, match=says):
        read(name, records, **options)


NO_TEXTS = (None, float("nan"), float("inf"), True, ["a"], [], {})


@pytest.mark.parametrize(
    ("name", "records", "key", "options"),
    [
        ("msvd-qa", QA, "answer", {}),
        ("msvd-qa", QA, "answer_type", {}),
        ("msvd-qa", QA, "question", {}),
        ("msvd-qa", QA, "video", {}),
        ("breakfast", BREAKFAST, "class_name", {}),
        ("coin", COIN, "target", {}),
        ("lvu", LVU, "director", {"part": "director"}),
        ("lvu", LVU, "num_frames", {"part": "director"}),
        ("msvd-cap", CAPTIONS, "caption", {}),
        ("msvd-cap", CAPTIONS, "video", {}),
        ("msvd-cap", CAPTIONS, "start_time", {}),
    ],
)
def test_what_is_no_text_or_no_number_is_not_made_one(read, name, records, key, options):
    absent = {"caption": [None], "start_time": [None]}.get(key, [])  # what may be left out
    first = next(iter(records))
    for wrong in NO_TEXTS:
        if wrong not in absent:
            with pytest.raises(UsageError, match=f"is not a {name} annotation file"):
                read(name, records | {first: records[first] | {key: wrong}}, **options)


def test_a_number_beyond_all_is_none(read):
    first = {"v1": LVU["v1"] | {"num_frames": 10**400}}
    with pytest.raises(UsageError, match="is not a lvu annotation file"):
        read("lvu", first, part="director")


def test_a_number_can_be_a_label(read):
    records = {name: record | {"answer_type": 3, "answer": 2.5} for name, record in QA.items()}
    assert {(task.kind, *task.answers) for task in read("msvd-qa", records)} == {("3", "2.5")}


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_set(tmp_path / "qa.json", "msvd-qa")
    (tmp_path / "qa_test.json").write_text(json.dumps(QA))
    with pytest.raises(UsageError, match="no such folder"):
        read_set(tmp_path, "msvd-qa", videos=tmp_path / "nowhere")

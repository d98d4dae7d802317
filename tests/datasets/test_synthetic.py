import json
import os
import re
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest

from malmm_cli.datasets.synthetic import (
    COLOURS,
    MOTIONS,
    SHAPES,
    Event,
    Scene,
    World,
    caption,
    held_out,
    intended_frames,
    picture,
    questions,
    render,
    scenario,
    words,
    write_dataset,
    write_mp4,
)
from malmm_cli.datasets.synthetic.drawing import PAINT
from malmm_cli.datasets.tasks import read_tasks
from malmm_cli.errors import OutputError, UsageError
from malmm_cli.files.atomic import temporary


def of(*events, seconds=4.0, **about):
    """A scene of these events alone, before a plain background."""
    return Scene(seed=0, seconds=seconds, events=events, **about)


def one(colour="red", shape="square", motion="spins", start=0.0, end=4.0, **place):
    return Event(start, end, colour, shape, motion, **place)


class TestScenario:
    def test_the_seed_decides(self):
        assert scenario(3, 60) == scenario(3, 60)
        assert scenario(3, 60) != scenario(4, 60)
        assert scenario(3, 60, split="train") != scenario(3, 60, split="test")

    def test_is_the_same_on_every_machine(self):
        assert caption(scenario(37, 60, events=6)) == (
            "a purple triangle blinks, a red star rises, a yellow heart vanishes, "
            "a black moon spins, a blue cross vanishes, a pink triangle moves left"
        )

    @pytest.mark.parametrize("seconds", [10, 60, 120, 600, 1200])
    def test_events_follow_each_other_and_last_two_steps_of_the_frames_intended(self, seconds):
        for seed in range(20):
            scene = scenario(seed, seconds)
            step = seconds / (intended_frames(seconds) - 1)
            assert scene.events[0].start >= 0
            assert scene.events[-1].end <= seconds
            assert all(a.end <= b.start for a, b in pairwise(scene.events))
            assert all(event.end - event.start >= 2 * step for event in scene.events)
            assert len({event.name for event in scene.events}) == len(scene.events)

    def test_two_minutes_hold_five_to_twelve_events(self):
        counts = {len(scenario(seed, 120).events) for seed in range(200)}
        assert counts == set(range(5, 13))
        assert all(len(scenario(seed, 1200).events) <= 12 for seed in range(50))

    def test_held_out_combinations_are_in_no_video_but_tests(self):
        def looks(split):
            scenes = [scenario(seed, 120, split=split) for seed in range(150)]
            return [(e.colour, e.shape, e.motion) for scene in scenes for e in scene.events]

        assert not any(held_out(*look) for look in looks("train") + looks("validation"))
        shown = [held_out(*look) for look in looks("test")]
        assert 0.4 < sum(shown) / len(shown) < 0.7

    def test_every_pair_of_a_held_out_combination_is_trained(self):
        kept = [c for c in product(COLOURS, SHAPES, MOTIONS) if not held_out(*c)]
        assert len(kept) == 320
        for a, b in ((0, 1), (0, 2), (1, 2)):
            lists = (COLOURS, SHAPES, MOTIONS)
            assert {(c[a], c[b]) for c in kept} >= set(product(lists[a], lists[b]))

    def test_what_does_not_fit_is_told(self):
        with pytest.raises(UsageError, match="90 events in 60 s: must be between 1 and 18"):
            scenario(0, 60, events=90)
        with pytest.raises(UsageError, match="a video of 5 s"):
            scenario(0, 5)
        with pytest.raises(UsageError, match="unknown colour 'mauve'"):
            scenario(0, 60, colours=["mauve"])
        with pytest.raises(UsageError, match="unknown split"):
            scenario(0, 60, split="dev")


class TestPictures:
    def test_are_rgb_of_the_size_asked_for_and_as_many_as_time_times_rate(self):
        pictures = list(render(of(one(), seconds=2), fps=5, size=(64, 48)))
        assert len(pictures) == 10
        assert {(p.shape, p.dtype) for p in pictures} == {((48, 64, 3), np.dtype(np.uint8))}

    def test_the_same_moment_is_the_same_picture_whatever_was_drawn_before(self):
        scene = scenario(5, 30)
        assert scene.noise > 0
        later = picture(scene, 20.0)
        assert (list(render(scene, 1))[20] == later).all()

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("motion", MOTIONS)
    def test_the_shape_is_where_and_as_large_as_its_motion_says(self, shape, motion):
        background = picture(of(), 0.0, (320, 240)).astype(int)
        event = one("black", shape, motion, x=0.4, y=0.6, radius=0.15)
        middle, wide = [], []
        for second in (0.9, 3.5):  # both lit, where it blinks
            now = picture(of(event), second, (320, 240)).astype(int)
            seen = np.abs(now - background).max(2) > 8
            rows, columns = np.nonzero(seen)
            middle.append((columns.mean() / 320, rows.mean() / 240))
            wide.append(seen.sum())
        (x0, y0), (x1, y1) = middle
        moved = {
            "moves left": (-1, 0),
            "moves right": (1, 0),
            "rises": (0, -1),
            "falls": (0, 1),
        }.get(motion, (0, 0))
        assert (x1 - x0, y1 - y0) == pytest.approx([0.286 * way for way in moved], abs=0.05)
        assert (wide[1] > 1.5 * wide[0]) == (motion == "grows")

    def test_what_vanishes_fades(self):
        spot = (60, 80)
        fading = [
            int(picture(of(one("black", motion="vanishes")), s)[spot].max()) for s in (0, 1, 2, 3)
        ]
        assert fading == sorted(fading)
        assert fading[-1] > fading[0] + 60

    def test_what_blinks_is_an_outline_lit_half_of_the_time(self):
        scene = of(one("black", motion="blinks", radius=0.3))
        blinking = [picture(scene, k / 9 * 4 + 0.2).max(2) for k in range(2, 9)]
        inside, gap, outline = (60, 80), (60 - 15, 80), (60 - 24, 80)
        assert [bool(p[inside] < 60) for p in blinking] == [True, False] * 3 + [True]
        assert all(p[gap] > 180 for p in blinking)
        assert all(p[outline] < 60 for p in blinking)

    def test_colours_may_be_painted_otherwise(self):
        shown = picture(of(one("red", motion="rises")), 2.0, paint={"red": (1, 2, 3)})
        assert tuple(shown[60, 80]) == (1, 2, 3)

    def test_every_colour_is_itself(self):
        for name in COLOURS:
            assert tuple(picture(of(one(name, motion="rises")), 2.0)[60, 80]) == PAINT[name]

    def test_a_cut_changes_the_background(self):
        scene = of(cuts=(0.0, 2.0), backgrounds=(1, 2))
        before, after = picture(scene, 1.9).astype(int), picture(scene, 2.0).astype(int)
        assert np.abs(before - after).mean() > 3
        assert (picture(scene, 0.0) == before).all()


class TestTelling:
    def test_a_caption_names_every_event_in_order(self):
        scene = of(one("orange", "moon", "falls", 0, 1), one("red", "star", "spins", 2, 3))
        assert caption(scene) == "an orange moon falls, a red star spins"

    @pytest.mark.parametrize("seed", range(30))
    def test_answers_are_true_and_evidence_holds_what_they_are_about(self, seed):
        scene = scenario(seed, 90, split="train")
        by_name = {event.name: event for event in scene.events}
        for asked in questions(scene, 20):
            question, answer = asked.question, asked.answer
            named = [n for n in re.findall(r"[a-z]+ [a-z]+", question) if n in by_name]
            if found := re.fullmatch(r"what does the (.*) do\?", question):
                event = by_name.get(found[1])
                assert answer == (event.motion if event else "nothing")
            elif found := re.fullmatch(r"is there an? (.*)\?", question):
                assert answer == ("yes" if found[1] in by_name else "no")
            elif found := re.fullmatch(r"what comes right (after|before) the (.*)\?", question):
                step = 1 if found[1] == "after" else -1
                names = [event.name for event in scene.events]
                assert answer == names[names.index(found[2]) + step]
            elif question.startswith("which comes first"):
                assert len(re.findall("the ", question)) == 3
                listed = [n for n in by_name if n in question]
                assert answer == min(listed, key=lambda n: by_name[n].start)
            elif found := re.fullmatch(r"what colour is the (.*) that (.*)\?", question):
                fits = [e for e in scene.events if (e.shape, e.motion) == found.groups()]
                assert [event.colour for event in fits] == [answer]
            elif found := re.fullmatch(r"what shape is the (.*) thing that (.*)\?", question):
                fits = [e for e in scene.events if (e.colour, e.motion) == found.groups()]
                assert [event.shape for event in fits] == [answer]
            elif found := re.fullmatch(r"what comes (first|last)\?", question):
                assert answer == scene.events[0 if found[1] == "first" else -1].name
            else:
                assert question.startswith("how many")
            start, end = asked.evidence
            assert all(start <= by_name[n].start and by_name[n].end <= end for n in named)

    def test_counts_are_true(self):
        scene = of(
            one("red", "star", "spins", 0, 1),
            one("red", "moon", "falls", 1, 2),
            one("blue", "star", "rises", 2, 3),
        )
        told = {a.question: a.answer for k in range(20) for a in questions(scene, 40, seed=k)}
        counts = {question: answer for question, answer in told.items() if "how many" in question}
        assert counts["how many shapes are red?"] == "two"
        assert counts["how many stars are there?"] == "two"
        assert counts["how many crosses are there?"] == "zero"

    def test_where_everything_comes_too_often_nothing_is_counted(self):
        colours = COLOURS[:5]
        world = World(videos=1, minutes=(3.0, 3.0), events=30, colours=colours)
        kinds = Counter(one.kind for one in questions(world.scene(0), 40, colours=colours))
        assert set(kinds) >= {"early", "ordered", "compared"}
        assert "counted" not in kinds

    def test_questions_alone_do_not_give_their_answers_away(self):
        """The most frequent answer to each question, its names left out, is seldom right."""

        def template(question):
            names = "|".join((*COLOURS, *SHAPES, *MOTIONS, "crosses"))
            return re.sub(rf"\b({names})s?\b", "_", question)

        def asked(split, seeds):
            scenes = (scenario(seed, 60 + seed % 61, split=split) for seed in seeds)
            return [one for scene in scenes for one in questions(scene, 10)]

        known = defaultdict(Counter)
        for question in asked("train", range(1500)):
            known[template(question.question)][question.answer] += 1
        guessed = asked("test", range(400))
        right = 0.0
        for question in guessed:
            if question.kind == "compared":
                right += 1 / 3  # the names to choose from stand in the question
            else:
                right += known[template(question.question)].most_common(1)[0][0] == question.answer
        assert right / len(guessed) < 0.35

    def test_every_word_is_known(self):
        known = set(words())
        for seed in range(50):
            scene = scenario(seed, 120)
            texts = [caption(scene)]
            texts += [f"{a.question} {a.answer}" for a in questions(scene, 20)]
            assert set(re.findall("[a-z]+", " ".join(texts))) <= known


class TestFiles:
    def test_give_back_their_pictures_and_their_times(self, tmp_path):
        av = pytest.importorskip("av")
        scene = replace(scenario(1, 10), noise=0.0)
        pictures = list(render(scene, fps=12.5))
        path = tmp_path / "clip.mp4"
        write_mp4(iter(pictures), path, fps=12.5)
        with av.open(str(path)) as file:
            decoded = [(f.time, f.to_ndarray(format="rgb24")) for f in file.decode(video=0)]
            stream = file.streams.video[0]
            assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert [time for time, _ in decoded] == pytest.approx([k / 12.5 for k in range(125)])
        for (_, read), drawn in zip(decoded, pictures, strict=True):
            assert np.abs(read.astype(int) - drawn).mean() < 4
        assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")
        assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]

    def test_are_written_whole_or_not_at_all(self, tmp_path):
        def breaks():
            yield from render(of(one()), 5, (64, 48))
            raise KeyboardInterrupt

        path = tmp_path / "clip.mp4"
        path.write_bytes(b"before")
        with pytest.raises(KeyboardInterrupt):
            write_mp4(breaks(), path, fps=5)
        assert path.read_bytes() == b"before"
        assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]

    def test_what_cannot_be_written_says_why(self, tmp_path):
        with pytest.raises(UsageError, match="at least one frame"):
            write_mp4([], tmp_path / "clip.mp4", fps=5)
        for size in [(63, 48), (64, 47)]:
            with pytest.raises(UsageError, match="even, not {}x{}".format(*size)):
                write_mp4(render(of(), 1, size), tmp_path / "clip.mp4", fps=5)
        with pytest.raises(OutputError, match=r"clip\.mp4: cannot be written: No such file"):
            write_mp4(render(of(), 1, (64, 48)), tmp_path / "missing" / "clip.mp4", fps=5)


class TestDataSets:
    WORLD = World(videos=2, seed=5, minutes=(0.2, 0.3), questions=6, fps=2)

    def test_hold_videos_and_tasks_that_are_read_back(self, tmp_path):
        folder = tmp_path / "world"
        tasks = write_dataset(self.WORLD, folder)
        read = read_tasks(folder / "data.jsonl")
        assert [(t.id, t.question, t.answers, t.kind, t.evidence) for t in read] == [
            (t.id, t.question, t.answers, t.kind, t.evidence) for t in tasks
        ]
        assert read[0].kind == "caption"
        assert (read[0].question, read[0].prompt) == (None, None)
        lines = (folder / "events.jsonl").read_text().splitlines()
        assert [len(json.loads(line)["events"]) for line in lines] == [
            len(self.WORLD.scene(k).events) for k in range(2)
        ]

    def test_the_same_settings_give_the_same_files(self, tmp_path):
        write_dataset(self.WORLD, tmp_path / "a")
        write_dataset(self.WORLD, tmp_path / "b")
        for name in ("data.jsonl", "events.jsonl", "world.json"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

    def test_too_few_questions_are_told(self, malmm, tmp_path):
        few = ("synth", "--videos=1", "--minutes=0.2", "--fps=2", "--no-progress")
        done = malmm(*few, tmp_path / "a", "--questions=500")
        count = len(read_tasks(tmp_path / "a" / "data.jsonl")) - 1
        told = f"warning: --questions 500: some videos have only {count}; "
        assert (done.code, done.err.startswith(told)) == (0, True)
        assert "warning" not in malmm(*few, tmp_path / "b", "--questions=2").err

    def test_what_was_left_unfinished_is_finished(self, tmp_path):
        folder = tmp_path / "world"
        write_dataset(self.WORLD, folder)
        (folder / "data.jsonl").unlink()
        (folder / "videos" / "00001.mp4").unlink()
        kept = (folder / "videos" / "00000.mp4").stat().st_mtime_ns
        write_dataset(self.WORLD, folder)
        assert (folder / "videos" / "00000.mp4").stat().st_mtime_ns == kept
        assert len(read_tasks(folder / "data.jsonl")) > 2

    def test_what_a_killed_run_left_goes_in_time(self, tmp_path):
        folder = tmp_path / "world"
        write_dataset(self.WORLD, folder)
        old, new = (temporary(folder / "videos" / f"0000{k}.mp4") for k in range(2))
        for partial in (old, new):
            partial.mkdir()
            (partial / "half.mp4").write_bytes(b"half")
        os.utime(old, (0, 0))
        write_dataset(self.WORLD, folder)
        assert not old.exists()
        assert new.exists(), "another run may be writing it"

    def test_other_settings_and_foreign_folders_are_refused(self, tmp_path):
        write_dataset(self.WORLD, tmp_path / "world")
        said = f"was made with other settings: --seed {self.WORLD.seed}, not 6$"
        with pytest.raises(UsageError, match=said):
            write_dataset(replace(self.WORLD, seed=6), tmp_path / "world")
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "letter.txt").write_text("mine")
        with pytest.raises(UsageError, match="is not empty"):
            write_dataset(self.WORLD, tmp_path / "other")

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"videos": 0}, "--videos 0"),
            ({"minutes": (2.0, 1.0)}, "--minutes"),
            ({"minutes": (0.01, 1.0)}, "a video of 0.6 s"),
            ({"fps": 0.0}, "--fps 0"),
            ({"events": 99}, "99 events"),
            ({"questions": -1}, "--questions -1"),
        ],
    )
    def test_settings_that_make_no_sense_are_told_before_anything_is_written(
        self, tmp_path, change, told
    ):
        with pytest.raises(UsageError, match=told):
            write_dataset(replace(self.WORLD, **change), tmp_path / "world")
        assert not (tmp_path / "world").exists()

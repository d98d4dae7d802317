"""The commands with a folder of this family, and its errors in words."""

import json
import shutil

import pytest
from helpers.commands import WORDS

from malmm_cli.models.video_llama import random_init


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("models") / "video-llama"
    random_init.write(made, random_init.tiny_config("vicuna"), WORDS)
    return made


def test_a_question_and_a_caption(malmm, clip, folder):
    asked = malmm("ask", clip, "what?", "--model", folder, "--max-new-tokens", "5", "--json")
    assert asked.code == 0
    told = json.loads(asked.out)
    assert told["memory"]["length"] == 32
    assert told["text"]
    assert malmm("caption", clip, "--model", folder, "--max-new-tokens", "5").code == 0


def test_a_memory_file_answers_as_the_video(malmm, clip, folder, tmp_path):
    kept = tmp_path / "clip.memory"
    options = ("--model", folder, "--max-new-tokens", "5")
    assert malmm("remember", clip, "-o", kept, "--model", folder).code == 0
    assert malmm("ask", kept, "what?", *options).out == malmm("ask", clip, "what?", *options).out


def changed(folder, tmp_path, change):
    copy = tmp_path / "changed"
    shutil.copytree(folder, copy)
    content = json.loads((copy / "config.json").read_text())
    change(content)
    (copy / "config.json").write_text(json.dumps(content))
    return copy


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.pop("conversation"), "conversation is 'None', not one of llama-2, vicuna"),
        (lambda c: c.update(frame_positions=0), "frame_positions is 0 but must be at least 1"),
        (lambda c: c.update(video_query_tokens=9), "wrong shape: video.query_tokens"),
        (lambda c: c.pop("audio_qformer_config"), "unexpected audio."),
    ],
)
def test_a_wrong_configuration_is_named(change, says, malmm, clip, folder, tmp_path):
    wrong = changed(folder, tmp_path, change)
    done = malmm("ask", clip, "what?", "--model", wrong)
    assert done.code == 1
    assert says in done.err.splitlines()[0]

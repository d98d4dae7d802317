"""What every command has in common: version, help, colours, exit codes, arguments in order."""

import pytest
from helpers.commands import FAST, SAMPLE

RED = "\x1b[1;31merror:\x1b[0m"


def test_version_has_a_short_flag(malmm):
    assert malmm("-V").out == malmm("--version").out != ""


def test_help_is_a_command_too(malmm, refused):
    assert malmm("help", "ask").out == malmm("ask", "--help").out != ""
    assert malmm("help", "models", "pull").out == malmm("models", "pull", "--help").out
    assert malmm("help").out == malmm("--help").out
    refused("help", "capton", code=2, says="Did you mean 'caption'?")


@pytest.mark.parametrize(
    ("command", "says", "hint"),
    [
        (
            "batch --json",
            "error: No such option: --json",
            "-o FILE.jsonl has one JSON object per item",
        ),
        ("synth --json", "error: No such option: --json", "`malmm synth -h` shows"),
        ("caption --jsn", "error: No such option: --jsn (Possible options: --json)", ""),
        ("caption --outputs", "No such option: --outputs (Possible options: --output)", ""),
    ],
)
def test_options_that_are_alike_are_suggested(malmm, command, says, hint):
    """Two dashes alone are no likeness."""
    done = malmm(*command.split(), "x")
    told, advice = done.err.splitlines()
    assert (done.code, told.endswith(says)) == (2, True), told
    assert advice.startswith(f"hint: {hint}")


@pytest.mark.parametrize(
    "command", ["", "caption", "doctor", "synth", "models", "models info", "cache rm", "bench step"]
)
def test_help_ends_with_exit_codes(malmm, command):
    done = malmm(*command.split(), "--help").out
    assert " ".join(done.split()).endswith(
        "Exit codes: 0 done, 1 something failed, 2 wrong use or unusable input, "
        "130 interrupted, 143 terminated."
    )


@pytest.mark.parametrize(
    ("arguments", "environment", "red"),
    [
        ((), {}, False),
        (("--color", "always"), {}, True),
        (("--color=always",), {"NO_COLOR": "1"}, True),
        ((), {"FORCE_COLOR": "1"}, True),
        ((), {"CLICOLOR_FORCE": "1"}, True),
        ((), {"CLICOLOR_FORCE": "0"}, False),
        ((), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (("--color", "never"), {"FORCE_COLOR": "1"}, False),
        ((), {"MALMM_COLOR": "always", "NO_COLOR": "1"}, True),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_colours(malmm, monkeypatch, arguments, environment, red, before):
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    command = ("models", "info", "tyny")
    done = malmm(*arguments, *command) if before else malmm(*command, *arguments)
    assert done.code == 2
    assert done.err.startswith(RED) is red
    assert ("\x1b" in done.err) is red


def test_an_unknown_colour(refused):
    refused("doctor", "--color", "alway", code=2, says="'alway'", hint="did you mean always?")


def test_quiet_and_verbose_exclude_each_other(refused):
    refused("caption", SAMPLE, "-q", "-v", code=2, says="-q and -v exclude each other")


def test_arguments_in_the_wrong_order(refused):
    hint = 'VIDEO comes first: malmm ask video.mp4 "question"'
    refused("ask", "what moves?", SAMPLE, code=2, says="what moves?: no such file", hint=hint)


@pytest.mark.parametrize("command", [("caption",), ("ask", "what?")])
def test_a_folder_is_for_batch(refused, tmp_path, command):
    (tmp_path / "clips").mkdir()
    name, *rest = command
    refused(name, "clips", *rest, code=2, says="is a folder", hint="`malmm batch clips`")


def test_eval_finds_the_data_of_a_folder(malmm, tmp_path):
    line = f'{{"id": "1", "video": "{SAMPLE}", "question": "what?", "answer": "red"}}\n'
    (tmp_path / "data.jsonl").write_text(line)
    done = malmm("eval", tmp_path, *FAST[:-1])
    assert done.code == 0, done.err


def test_ls_is_an_alias(malmm, tmp_path):
    assert malmm("cache", "ls", "--cache", tmp_path) == malmm("cache", "list", "--cache", tmp_path)

"""The config file: order of flag, environment, file and default; what it must not hold."""

import json
from pathlib import Path

import pytest
from helpers.commands import SAMPLE

from malmm_cli.cli import config


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))

    def write(text):
        config.path().parent.mkdir(parents=True, exist_ok=True)
        config.path().write_text(text, "utf-8")
        return config.path()

    return write


def model_of(malmm, *options):
    """The model that a caption was made with, or what is said of an unknown one."""
    done = malmm("caption", SAMPLE, "--frames", "2", "--max-new-tokens", "2", "--json", *options)
    return json.loads(done.out)["model"] if done.code == 0 else done.err


def test_flag_environment_file_default(malmm, write, monkeypatch):
    write('model = "tiny"\nno_progress = true\n')
    assert model_of(malmm) == "tiny"
    monkeypatch.setenv("MALMM_MODEL", "of-environment")
    assert "'of-environment'" in model_of(malmm)
    assert model_of(malmm, "--model", "tiny") == "tiny"


def test_an_option_without_environment_variable_in_help_has_one(malmm, write, monkeypatch):
    write('model = "tiny"\ndevice = "of-file"\n')
    assert "'of-file'" in model_of(malmm)
    monkeypatch.setenv("MALMM_DEVICE", "cpu")
    assert model_of(malmm) == "tiny"


def test_a_command_reads_the_file_once(malmm, write, tmp_path, monkeypatch):
    read_bytes, read = Path.read_bytes, []
    monkeypatch.setattr(Path, "read_bytes", lambda file: read.append(file) or read_bytes(file))
    for size in (1, 2):  # and the next command in the same process reads it again
        path = write(f"cache = {json.dumps(str(tmp_path))}\ncache_size = {size}.5{'0' * size}\n")
        read.clear()
        assert malmm("cache", "list", "--json").out == "[]\n"
        assert read.count(path) == 1
        assert config.read()["cache_size"] == size + 0.5


def test_subcommands_have_the_values_too(malmm, write, tmp_path):
    write(f"cache = {json.dumps(str(tmp_path))}\n")
    assert malmm("cache", "list", "--json").out == "[]\n"


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ('modle = "tiny"', "unknown key 'modle'", "did you mean model? one of model, "),
        ('cache-size = "x"', "unknown key 'cache-size'", "did you mean cache_size?"),
        ("model = 3", "'model' must be text, not 3", None),
        ("offline = 1", "'offline' must be true or false, not 1", None),
        ("cache_size = true", "'cache_size' must be a number of at least 0, not True", None),
        ("cache_size = -1", "'cache_size' must be a number of at least 0, not -1", None),
        ('model = ""', "'model' is empty", "remove the line"),
        ("model = ", "not valid TOML", "correct the file"),
        ('color = "blue"', "unknown color 'blue'", "one of auto, always, never"),
    ],
)
def test_what_is_wrong_in_the_file(refused, write, text, says, hint):
    file = write(text)
    assert str(file) in refused("cache", "list", code=2, says=says, hint=hint)


WRONG = {
    "model": ("of-somewhere", "unknown model 'of-somewhere'"),
    "device": ("gpu", "unknown device 'gpu'"),
    "dtype": ("int4", "unknown dtype 'int4'"),
    "quantize": ("2bit", "unknown quantization '2bit'"),
    "color": ("blue", "unknown color 'blue'"),
}


@pytest.mark.parametrize(("key", "value", "says"), [(k, *wrong) for k, wrong in WRONG.items()])
@pytest.mark.parametrize("command", ["caption", "eval"])
def test_a_wrong_value_is_told_with_its_source(
    refused, write, monkeypatch, tmp_path, key, value, says, command
):
    given = SAMPLE
    if command == "eval":
        given = tmp_path / "tasks.jsonl"
        given.write_text(json.dumps({"id": 1, "video": str(SAMPLE), "answer": "a ball"}))
    file = write(f"{key} = {json.dumps(value)}\n")
    refused(command, given, code=2, says=f"error: {says}, from {key!r} in {file}")
    monkeypatch.setenv(f"MALMM_{key.upper()}", value)
    refused(command, given, code=2, says=f"error: {says}, from MALMM_{key.upper()}")
    told = refused(command, given, f"--{key}", value, code=2, says=f"error: {says}")
    assert "from" not in told.splitlines()[0].replace("of-somewhere", "")


@pytest.mark.parametrize("key", ["offline", "no_progress"])
def test_a_switch_in_the_environment_is_told_with_its_variable(refused, monkeypatch, key):
    monkeypatch.setenv(name := f"MALMM_{key.upper()}", "maybe")
    refused("caption", SAMPLE, code=2, says=f"error: {name} maybe: must be true or false")


def test_a_cache_folder_from_the_environment_is_told_with_its_variable(refused, monkeypatch):
    monkeypatch.setenv("MALMM_CACHE", "nowhere")
    refused("cache", "list", code=2, says="error: nowhere: no such folder, from MALMM_CACHE")


def test_a_model_that_a_memory_file_names_is_not_that_of_the_config_file(refused, write, tmp_path):
    write('model = "tiny"\n')
    told = tmp_path / "told.memory"
    golden = Path(__file__).parents[1] / "golden" / "version-1.malmm"
    told.write_bytes(golden.read_bytes().replace(b'\\"tiny\\"', b'\\"tyny\\"'))
    error = refused("ask", told, "what?", code=2, says="unknown model 'tyny'")
    assert ", from" not in error


def test_doctor_says_where_values_come_from(malmm, write, monkeypatch):
    file = write('model = "tiny"\ndevice = "cpu"\n')
    monkeypatch.setenv("MALMM_DEVICE", "auto")
    monkeypatch.setenv("NO_COLOR", "1")
    content = json.loads(malmm("doctor", "--json").out)
    assert content["schema"] == "malmm/1"
    found = {row["key"]: (row["value"], row["origin"]) for row in content["settings"]}
    assert found["model"] == ("tiny", str(file))
    assert found["device"] == ("auto", "MALMM_DEVICE")
    assert found["color"] == ("never", "NO_COLOR")
    assert found["cache_size"] == (20.0, "default")
    assert f"tiny ({file})" in malmm("doctor").out


def test_use_writes_the_default_and_keeps_the_rest(malmm, write, refused):
    file = write('# mine\ndevice = "cpu"\n')
    assert malmm("models", "use", "flan-t5-xl").code == 0
    assert file.read_text() == '# mine\ndevice = "cpu"\nmodel = "flan-t5-xl"\n'
    malmm("models", "use", "tiny")
    assert file.read_text() == '# mine\ndevice = "cpu"\nmodel = "tiny"\n'
    assert model_of(malmm) == "tiny"
    refused("models", "use", "tyny", code=2, says="unknown model", hint="did you mean tiny?")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", 'model = "qwen3-vl-2b"\n'),
        ("offline = true", 'offline = true\nmodel = "qwen3-vl-2b"\n'),
        ("# a\r\noffline = true\r\n", '# a\r\noffline = true\r\nmodel = "qwen3-vl-2b"\r\n'),
        ('model="tiny"  # why\noffline = true\n', 'model="qwen3-vl-2b"  # why\noffline = true\n'),
        ("\n  model = 'a#b' #c", '\n  model = "qwen3-vl-2b" #c'),
        ('"model" = "a\\"b"\r\n# é', '"model" = "qwen3-vl-2b"\r\n# é'),
        ('# model = "tiny"\n', '# model = "tiny"\nmodel = "qwen3-vl-2b"\n'),
    ],
)
def test_use_changes_one_line(malmm, write, before, after):
    file = write("")
    file.write_bytes(before.encode())
    assert malmm("models", "use", "qwen3-vl-2b").code == 0
    assert file.read_bytes().decode() == after
    assert config.read()["model"] == "qwen3-vl-2b"


def test_use_leaves_a_file_that_it_cannot_change_safely(refused, write):
    text = 'model = """\ntiny"""\n'
    file = write(text)
    hint = 'write model = "qwen3-vl-2b" there yourself'
    refused("models", "use", "qwen3-vl-2b", code=2, says="cannot be changed safely", hint=hint)
    assert file.read_text() == text


def test_use_follows_a_link(malmm, write, tmp_path):
    file = write("")
    file.rename(tmp_path / "mine.toml")
    file.symlink_to(tmp_path / "mine.toml")
    assert malmm("models", "use", "tiny").code == 0
    assert file.is_symlink()
    assert (tmp_path / "mine.toml").read_text() == 'model = "tiny"\n'


def test_use_says_what_it_did_and_what_is_left_to_do(malmm, write, monkeypatch):
    file = write('model = "flan-t5-xl"\n')
    assert malmm("models", "use", "qwen3-vl-2b").err.splitlines() == [
        f"default model: qwen3-vl-2b, in {file}; before: flan-t5-xl",
        "qwen3-vl-2b is not downloaded; while online, run: malmm models pull qwen3-vl-2b",
    ]
    assert malmm("models", "use", "tiny").err.splitlines() == [
        f"default model: tiny, in {file}; before: qwen3-vl-2b",
        "note: tiny is trained on `malmm synth` videos only; it knows nothing else",
    ]
    monkeypatch.setenv("MALMM_MODEL", "vicuna-7b")
    assert malmm("models", "use", "tiny").err.splitlines() == [
        f"default model: tiny, in {file}",
        "note: MALMM_MODEL is set to vicuna-7b, which comes before the config file",
        "note: tiny is trained on `malmm synth` videos only; it knows nothing else",
    ]


def test_the_default_is_one():
    from malmm_cli import hub

    assert config.KEYS["model"] == (str, hub.DEFAULT)


def test_use_of_a_folder_holds_from_everywhere(malmm, write, t5_folder, monkeypatch):
    file = write("")
    monkeypatch.chdir(t5_folder.parent)
    assert malmm("models", "use", t5_folder.name).code == 0
    assert json.dumps(str(t5_folder)) in file.read_text()

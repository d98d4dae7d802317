"""The rows, the table and the plot of an ablation, without a model."""

import dataclasses
from statistics import mean, stdev

import pytest
from matplotlib.figure import Figure

from malmm_cli.evaluate import ablation, ablation_plot
from malmm_cli.evaluate.ablation import GIVEN, SEEDS, SWAPPED, TRAINED, find_trained, one_length
from malmm_cli.evaluate.ablation_table import as_table, cells
from malmm_cli.evaluate.predict import Plan
from malmm_cli.models.instructblip.defaults import ASK, CAPTION, DEFAULTS
from malmm_cli.settings import Defaults, changed
from malmm_cli.types import Task

ASKED = [Task("1", "v.mp4", question="what?", answers=("x",))]


def plan(**changes):
    return one_length(Plan(changed(ASK, **changes), changed(CAPTION, **changes)), ASKED)


def swaps(given, defaults=DEFAULTS):
    return list(ablation.swaps(given, given.questions, defaults))


def places(rows):
    """By line, its columns."""
    found = {}
    for row in rows:
        found.setdefault(row.line, []).append(row.column)
    return found


# --- rows


def test_every_baseline_is_run_at_every_m():
    rows = swaps(plan(frames=60))
    every, thrice = [3, 5, 10, 20], sorted([3, 5, 10, 20] * 3)
    found = places(rows)
    assert sorted(found.pop("given: mbc")) == every
    assert found == {
        "--policy fifo": every,
        "--policy average": [None],
        "--policy last": [None],
        "--policy random": thrice,
        "--policy uniform": every,
        "--merge frame": every,
        "--mean plain": every,
        "--banks visual": every,
        "--banks query": every,
        "--banks none": [None],
        "--memory 0": [None],
        **{f"--frames {n}": [10] for n in (20, 40, 100)},
        "last 4 frames": [10],
    }
    assert len({row.name for row in rows}) == len({row.plan for row in rows}) == len(rows)


def test_a_row_has_the_settings_of_its_place():
    for row in swaps(plan(frames=60)):
        for settings in (row.plan.questions, row.plan.captions):
            if row.column is not None:
                assert settings.memory.length == row.column, row.name
            if "seed" in row.name:
                assert row.name.endswith(f"seed {settings.memory.seed}")
                assert row.options.endswith(f"--seed {settings.memory.seed}")
    seeds = [row.plan.questions.memory.seed for row in swaps(plan()) if "random" in row.line]
    assert seeds == list(SEEDS) * 4


def test_the_given_m_has_a_column_and_0_has_none():
    found = places(swaps(plan(memory=7)))
    assert sorted(found["given: mbc"]) == found["--policy fifo"] == [3, 5, 7, 10, 20]
    none = places(swaps(plan(memory=0)))
    assert none["given: mbc"] == [None, 3, 5, 10, 20]
    assert none["--policy fifo"] == [3, 5, 10, 20]
    assert "--memory 0" not in none


def test_what_is_given_is_not_changed_to_itself():
    given = plan(policy="fifo", banks="visual", merge="frame", mean="plain")
    lines = places(swaps(given))
    assert {"--policy mbc", "--banks both", "--merge token", "--mean weighted"} <= lines.keys()
    assert not {"--policy fifo", "--banks visual", "--merge frame", "--mean plain"} & lines.keys()
    drawn = places(swaps(plan(policy="random", seed=2**64 - 1)))
    assert drawn["--policy random"] == sorted([3, 5, 10, 20] * 3)


def test_a_family_is_run_as_far_as_it_can():
    less = Defaults(DEFAULTS.tasks, policies=("mbc", "last"), banks=("both",))
    lines = places(swaps(plan(frames=60), less))
    assert lines.keys() == {
        *("given: mbc", "--policy last", "--memory 0", "last 4 frames"),
        *(f"--frames {n}" for n in (20, 40, 100)),
    }


def test_questions_and_captions_have_one_m():
    found = one_length(Plan(ASK, CAPTION), ASKED)
    assert (found.questions, found.captions) == (ASK, changed(CAPTION, memory=10))
    found = one_length(Plan(ASK, CAPTION), [Task("1", "v.mp4")])
    assert (found.questions, found.captions) == (changed(ASK, memory=20), CAPTION)


def test_variants_may_have_a_number(tmp_path, vicuna_folder):
    for name in ("m0", "query.2", "both.10", "both.2", "both"):
        (tmp_path / name).symlink_to(vicuna_folder)
    for name in ("both.old", "others", "both.1"):
        (tmp_path / name).mkdir() if name != "both.1" else (tmp_path / name).write_text("no folder")
    found = [path.name for path in find_trained(tmp_path)]
    assert found == ["both", "both.2", "both.10", "query.2", "m0"]
    rows = [ablation._trained(name, plan(), 10) for name in found]
    assert places(rows) == {
        "both, trained": [10, 10, 10],
        "query, trained": [10],
        "m0, trained": [None],
    }
    assert rows[3].plan == plan(banks="query")


# --- the table and the plot


def rate(share, count=40):
    return {"exact": share, "count": count, "interval": [0.0, 0.25] if count else None}


def scores(share, ages=(0.5, 0.25), failed=0):
    steps = [{"from": k, "to": k + 1, **rate(one)} for k, one in enumerate(ages)]
    age = {"newer": rate(share), "older": rate(share / 2), "slots": 10, "steps": steps}
    found = {"questions": rate(share), "age": age, "captions": rate(None, 0)}
    return {"tasks": 40, "failed": failed, **found}


SHARES = {"--policy random": (0.5, 0.6, 0.9), "--policy fifo": (0.2,), "last 4 frames": (0.1,)}


@pytest.fixture
def results():
    """Rows of three lines at M = 3 and 10, of them one with three seeds, and one without M."""
    found = []
    for column in (10, 3):
        about = {"how": GIVEN if column == 10 else SWAPPED, "family": "given", "options": "--x"}
        found.append({"name": f"M = {column}", "line": "given: mbc", "column": column, **about})
        for line in ("--policy random", "--policy fifo"):
            about = {"how": SWAPPED, "family": "policy", "line": line, "column": column}
            names = [f"{line}, M = {column}, seed {k}" for k in range(len(SHARES[line]))]
            found += [{"name": name, "options": name, **about} for name in names]
    about = {"how": SWAPPED, "family": "frames", "line": "last 4 frames", "column": None}
    found.append({"name": "last 4 frames", "options": "last 4 frames", **about})
    drawn = {line: iter(shares * 2) for line, shares in SHARES.items()}
    for row in found:
        share = 1.0 if row["family"] == "given" else next(drawn[row["line"]])
        row["scores"] = scores(share, (share, share / 2))
    return found


def test_a_cell_has_mean_and_spread_over_seeds(results):
    found = {(cell["line"], cell["column"]): cell for cell in cells(results)}
    assert len(found) == 7
    random = found["--policy random", 10]
    assert random["rows"] == [f"--policy random, M = 10, seed {k}" for k in range(3)]
    assert random["questions"] == {
        "mean": pytest.approx(mean((0.5, 0.6, 0.9))),
        "sd": pytest.approx(stdev((0.5, 0.6, 0.9))),
        "lowest": 0.5,
        "highest": 0.9,
    }
    assert random["older"]["mean"] == pytest.approx(mean((0.25, 0.3, 0.45)))
    assert found["--policy fifo", 3]["questions"]["sd"] is None
    assert found["--policy fifo", 3]["captions"] == dict.fromkeys(
        ("mean", "sd", "lowest", "highest")
    )


def test_the_table(results):
    text = as_table(results, scores(0.225))
    first, second, notes = text.split("\n\n")
    lines = first.splitlines()
    assert lines[0] == "questions, % correct, n = 40, 95 % intervals up to ±12.5"
    assert lines[1].split() == ["any", "M", "M", "=", "3", "M", "=", "10"]
    assert [line.split() for line in lines[2:]] == [
        ["given:", "mbc", "100.0", "100.0"],
        ["--policy", "random", "66.7±20.8", "66.7±20.8"],
        ["--policy", "fifo", "20.0", "20.0"],
        ["last", "4", "frames", "10.0"],
        ["blind", "guess", "22.5"],
    ]
    any_m = lines[1].index("any M") + len("any M")
    assert len(lines[5]) == len(lines[6]) == any_m
    assert second.startswith("evidence 10 frames or older, % correct")
    assert notes.startswith("mean±standard deviation")
    assert "captions" not in text
    assert "failed" not in text
    results[3]["scores"]["failed"] = 2
    assert "failed and left out: 2 answers" in as_table(results)
    assert "blind" not in as_table(results)


def test_the_table_fits_a_terminal():
    rows = [dataclasses.asdict(row) for row in swaps(plan(memory=7, policy="uniform", frames=60))]
    variants = [
        ablation._trained(f"{name}.{k}", plan(memory=7), 7)
        for name in ("both", "visual")
        for k in "12"
    ]
    rows += [dataclasses.asdict(row) for row in variants]
    for row in rows:
        row["scores"] = scores(1.0)
    text = as_table(rows, scores(1.0))
    assert "visual, trained" in text
    assert max(map(len, text.splitlines())) <= 80
    assert all(row["how"] == TRAINED for row in rows[-4:])


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws results, and returns the panels by their titles."""

    def draw(results, blind=None):
        figures = []
        monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
        assert ablation_plot.draw(results, blind, tmp_path / "a.png")
        return {axes.get_title(): axes for axes in figures[0].axes}

    return draw


def test_the_plot_shows_what_its_legend_says(results, drawn):
    panels = drawn(results, scores(0.2, (0.2, 0.1)))
    assert panels.keys() == {"policies, M = 3", "policies, M = 10", "frames"}
    for title, axes in panels.items():
        curves = axes.get_lines()
        legend = [text.get_text() for text in axes.get_legend().get_texts()]
        assert legend == [curve.get_label() for curve in curves], title
        looks = {(c.get_color(), c.get_marker(), c.get_linestyle()) for c in curves}
        assert len(looks) == len(curves), title
        shares = {curve.get_label(): list(curve.get_ydata()) for curve in curves}
        assert shares["given: mbc"] == [100, 50]
        assert shares["blind guess"] == [20, 10]
        if title == "frames":
            assert shares["last 4 frames"] == [10, 5]
            assert not axes.collections
        else:
            assert shares["--policy fifo"] == [20, 10]
            assert shares["--policy random"] == pytest.approx([200 / 3, 100 / 3])
            (band,) = axes.collections
            assert band.get_datalim(axes.transData).ymin == 25
            assert band.get_datalim(axes.transData).ymax == 90
        assert [tick.get_text() for tick in axes.get_xticklabels()] == [
            "0–1\nn = 40",
            "1–2\nn = 40",
        ]


def test_a_line_looks_the_same_in_every_panel(results, drawn):
    looks = {}
    for axes in drawn(results[:1] + results[4:]).values():  # M = 10 lacks the first line
        for curve in axes.get_lines():
            look = curve.get_color(), curve.get_marker()
            assert looks.setdefault(curve.get_label(), look) == look


def test_without_evidence_there_is_no_plot(results, tmp_path):
    results[0]["scores"]["age"]["steps"] = []
    assert not ablation_plot.draw(results, None, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())

"""Tables over seeds: means, deviations, t intervals and pairs by hand, costs, and what is refused."""

import json
import math
import statistics
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import paired_table
import results_table

CLASSES = ["dog_bark", "rain"]


def scores(value, costs=True, boxes=True):
    """One exit's result in which every figure is told apart: PSDS1 value, PSDS2 value + 0.1, ..."""
    areas = [value, value + 0.1]
    f1 = {name: {"f1": value + shift} for name, shift in (("macro", 0.2), ("micro", 0.3))}
    of_segments = {name: {"f1": value + shift} for name, shift in (("macro", 0.4), ("micro", 0.5))}
    class_wise = {label: {"f1": value} for label in CLASSES}
    result = {
        **{f"psds{n}": {"boxes": {"psds": area} if boxes else None} for n, area in enumerate(areas, start=1)},
        "event_based": f1 | {"class_wise": class_wise},
        "segment_based": of_segments | {"class_wise": class_wise},
    }
    counts = {"parameters": 1_234_567, "macs_per_10_s": 45_600_000, "milliseconds_per_10_s": 10 + 10 * value}
    return result | ({"costs": counts} if costs else {})


def result(first, second, seed=0, **options):
    exits = {"1": scores(first, **options), "2": scores(second, **options)}
    provenance = {"seed": seed}
    return {"exits": exits, "classes": CLASSES, "split": "test", "num_references": 7, "provenance": provenance}


def cells(row):
    return [cell.strip() for cell in row.strip("|").split("|")]


def write(folder, name, value):
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def run(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    return module.main()


# ---- means over seeds ------------------------------------------------------------------------------------------------


def test_mean_and_standard_deviation_by_hand():
    # squares of -0.1, 0, 0.1 sum to 0.02; divided by n - 1 = 2, the root is 0.1
    assert results_table.cell([0.1, 0.2, 0.3]) == "0.200 ± 0.100"
    assert results_table.cell([0.25]) == "0.250"
    assert results_table.cell([0.25, None]) == "-"


def test_rows_of_a_group():
    rows = results_table.group_rows("CNN", [result(0.1, 0.3), result(0.2, 0.3), result(0.3, 0.3)])
    assert cells(rows[0]) == [
        *("CNN", "1", "3"),
        *("0.200 ± 0.100", "0.300 ± 0.100", "0.400 ± 0.100", "0.500 ± 0.100", "0.600 ± 0.100", "0.700 ± 0.100"),
        *("1,234,567", "46 M", "12.0 ± 1.0"),
    ]
    assert cells(rows[1])[:4] == ["CNN", "2", "3", "0.300 ± 0.000"]


def test_what_is_not_known_is_a_dash():
    rows = results_table.group_rows("CNN", [result(0.1, 0.3, costs=False, boxes=False), result(0.2, 0.3)])
    assert cells(rows[0])[3:] == ["-", "-", *cells(rows[0])[5:9], "-", "-", "-"]
    assert cells(rows[0])[5] == "0.350 ± 0.071"


def test_networks_of_two_sizes_are_no_group():
    other = result(0.1, 0.3)
    other["exits"]["2"]["costs"]["parameters"] = 5
    with pytest.raises(ValueError, match=r"group 'CNN' must hold networks of one size, got parameters \[5, 1234567\]"):
        results_table.group_rows("CNN", [result(0.1, 0.3), other])


def test_the_command_prints_all_groups(tmp_path, monkeypatch, capsys):
    files = [write(tmp_path, f"{seed}.json", result(0.1 * seed, 0.3)) for seed in (1, 2)]
    assert run(results_table, monkeypatch, f"CNN={','.join(files)}", f"Transformer={files[0]}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert cells(lines[0])[3:] == [*results_table.SCORES, *results_table.COSTS]
    assert len(cells(lines[1])) == len(cells(lines[0])) == len(cells(lines[2]))
    assert [cells(line)[:3] for line in lines[2:6]] == [
        ["CNN", "1", "2"],
        ["CNN", "2", "2"],
        ["Transformer", "1", "1"],
        ["Transformer", "2", "1"],
    ]
    assert "| rain | 0.300 ± 0.000 | 0.300 ± 0.000 |" in lines  # of the deepest exit


def test_milliseconds_of_the_speed_suite(tmp_path, monkeypatch, capsys):
    """Networks are told apart by their multiply-accumulates; one that was not measured on both shows a dash."""
    network = {
        f"exit 1, {name}": {"ms": ms, "macs": 45_600_000} for name, ms in (("PyTorch", 4.06), ("onnxruntime", 2))
    }
    other = {"exit 2, PyTorch": {"ms": 9.0, "macs": 7}}
    cases = {"1": {"ceiling": {"matrix product": {"ms": 1, "macs": 3}}, "network easysed-cnn": network | other}}
    speed = results_table.read_speed(Path(write(tmp_path, "speed.json", {"cases": cases})))
    assert speed == {45_600_000: "4.1 / 2.0"}
    file = write(tmp_path, "1.json", result(0.1, 0.3))
    assert run(results_table, monkeypatch, f"CNN={file}", "--speed", str(tmp_path / "speed.json")) == 0
    assert cells(capsys.readouterr().out.splitlines()[2])[-1] == "4.1 / 2.0"
    assert run(results_table, monkeypatch, f"CNN={file}", "--speed", file) == 2
    assert "must be JSON of benchmarks/run.py" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "a group must be NAME=FILE,FILE,..., got 'CNN'"),
        ([{"exits": {}}], "0.json must be JSON of training/evaluate.py --out"),
        (["no JSON"], "0.json must be JSON of training/evaluate.py --out"),
        ([result(0.1, 0.2), {"exits": {"1": {}}, "classes": CLASSES}], "group 'CNN' must have the same exits"),
        ([result(0.1, 0.2), result(0.1, 0.2) | {"classes": ["rain"]}], "group 'CNN' must have the same classes"),
    ],
)
def test_wrong_files_are_one_line_and_status_2(tmp_path, monkeypatch, capsys, files, message):
    group = "CNN" if files is None else "CNN=" + ",".join(write(tmp_path, f"{n}.json", f) for n, f in enumerate(files))
    assert run(results_table, monkeypatch, group) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_a_missing_file_is_named(monkeypatch, capsys):
    assert run(results_table, monkeypatch, "CNN=nowhere.json") == 2
    assert "nowhere.json" in capsys.readouterr().err


# ---- pairs -----------------------------------------------------------------------------------------------------------


def t_distribution(value, degrees, steps=20_000):
    """P(T <= value), by Simpson's rule on the density from 0."""
    scale = math.gamma((degrees + 1) / 2) / math.gamma(degrees / 2) / math.sqrt(degrees * math.pi)
    weights = [1, *([4, 2] * (steps // 2))][:steps] + [1]
    width = value / steps
    density = (scale * (1 + (n * width) ** 2 / degrees) ** (-(degrees + 1) / 2) for n in range(steps + 1))
    return 0.5 + width / 3 * sum(weight * one for weight, one in zip(weights, density, strict=True))


@pytest.mark.parametrize("degrees", range(1, 31))
def test_every_quantile_leaves_out_a_fortieth(degrees):
    assert t_distribution(paired_table.T_QUANTILES[degrees - 1], degrees) == pytest.approx(0.975, abs=3e-5)


def test_there_are_thirty_quantiles():
    assert len(paired_table.T_QUANTILES) == 30


def test_interval_by_hand():
    # mean 0.2, standard deviation 0.1, divided by sqrt(3), times 4.303
    mean, low, high = paired_table.t_interval([0.1, 0.2, 0.3])
    reach = 4.303 * 0.1 / math.sqrt(3)
    assert (mean, low, high) == pytest.approx((0.2, 0.2 - reach, 0.2 + reach))
    assert paired_table.cell([0.1, 0.2, 0.3]) == "+0.200 (−0.048 to +0.448)"
    assert paired_table.cell([-0.1, -0.11, -0.12]) == "**−0.110** (−0.135 to −0.085)"
    assert paired_table.cell([0.1, None]) == "-"


def test_differences_are_paired_by_seed():
    # the seeds differ far more than the recipes: unpaired, nothing would be seen
    first = [result(0.1, 0.2, 0), result(0.5, 0.6, 1), result(0.9, 0.2, 2)]
    second = [result(0.13, 0.2, 0), result(0.54, 0.6, 1), result(0.95, 0.2, 2)]
    rows = paired_table.paired_rows(first, second)
    assert [cells(row)[0] for row in rows] == ["1", "2", "mean"]
    assert cells(rows[0])[1:] == ["**+0.040** (+0.015 to +0.065)"] * 6
    assert cells(rows[1])[3] == "+0.000 (+0.000 to +0.000)"
    # per seed the mean of both exits: 0.015, 0.02, 0.025
    reach = 4.303 * statistics.stdev([0.015, 0.02, 0.025]) / math.sqrt(3)
    assert cells(rows[2])[1] == f"**+0.020** (+{0.02 - reach:.3f} to +{0.02 + reach:.3f})"


def test_without_boxes_a_difference_is_a_dash():
    first = [result(0.1, 0.2, seed, boxes=False) for seed in (0, 1)]
    rows = paired_table.paired_rows(first, [result(0.1, 0.2, seed) for seed in (0, 1)])
    assert cells(rows[0])[1:3] == cells(rows[2])[1:3] == ["-", "-"] and cells(rows[0])[3].startswith("+0.000")


def test_the_paired_command(tmp_path, monkeypatch, capsys):
    plain = [write(tmp_path, f"a{seed}.json", result(0.1, 0.2, seed)) for seed in (0, 1)]
    distilled = [write(tmp_path, f"b{seed}.json", result(0.2, 0.1, seed)) for seed in (0, 1)]
    assert run(paired_table, monkeypatch, f"plain={','.join(plain)}", f"distilled={','.join(distilled)}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("distilled − plain: mean over 2 seeds (0, 1), paired")
    assert "of 12 cells" in lines[1] and cells(lines[3]) == ["exit", *results_table.SCORES]
    assert cells(lines[5])[1] == "**+0.100** (+0.100 to +0.100)"
    assert cells(lines[6])[1] == "**−0.100** (−0.100 to −0.100)"
    assert len(lines) == 8


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ([result(0.1, 0.2, 0)], "must have the same number of files, 2 to 31, got 2 and 1"),
        ([result(0.1, 0.2, 1), result(0.1, 0.2, 0)], "pair 1 must have the same seed, got 0 and 1: reorder"),
        ([result(0.1, 0.2, 0), result(0.1, 0.2, 1) | {"split": "dev"}], "pair 2 must have the same split and number"),
        ([result(0.1, 0.2, n) | {"classes": ["rain"]} for n in (0, 1)], "pair 1 must have the same classes"),
        ([result(0.1, 0.2, n) | {"exits": {"1": scores(0.1)}} for n in (0, 1)], "pair 1 must have the same exits"),
    ],
)
def test_what_is_no_pair_is_refused(tmp_path, monkeypatch, capsys, second, message):
    first = [write(tmp_path, f"a{seed}.json", result(0.1, 0.2, seed)) for seed in (0, 1)]
    second = [write(tmp_path, f"b{number}.json", one) for number, one in enumerate(second)]
    assert run(paired_table, monkeypatch, f"a={','.join(first)}", f"b={','.join(second)}") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_one_seed_gives_no_interval():
    with pytest.raises(ValueError, match="2 to 31, got 1 and 1"):
        paired_table.check_pairs([result(0.1, 0.2)], [result(0.1, 0.2)])

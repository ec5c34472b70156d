"""The command that runs all benchmarks: it keeps to its time, and says what it left out."""

import pytest

from benchmarks.run_all import Part, full_parts, run_parts, toy_parts


def test_missing_module_is_left_out_and_its_time_passed_on(capfd: pytest.CaptureFixture) -> None:
    missing = Part("missing", "benchmarks.no_such_benchmark", [], share=3)
    quick = Part("quick", "platform", [], share=1)
    outcomes = run_parts([missing, quick], seconds=60)
    assert "no_such_benchmark" in outcomes["missing"]
    assert outcomes["quick"] == "finished"
    assert "quick, at most 60 s" in capfd.readouterr().out


def test_module_of_an_option_is_looked_for() -> None:
    part = Part("with option", "platform", [], share=1, needs="no_such_package")
    assert "no_such_package" in run_parts([part], seconds=60)["with option"]


def test_endless_part_is_cut_off() -> None:
    endless = Part("endless", "http.server", ["--bind", "127.0.0.1", "0"], share=1)
    assert run_parts([endless], seconds=2)["endless"].startswith("cut off")


def test_failure_is_told() -> None:
    failing = Part("failing", "json.tool", ["--no-such-option"], share=1)
    assert run_parts([failing], seconds=60)["failing"] == "failed with exit status 2"


def test_toy_runs_the_same_benchmarks() -> None:
    toy, full = toy_parts(), full_parts([])
    assert [(part.title, part.module, part.needs) for part in toy] == [
        (part.title, part.module, part.needs) for part in full
    ]

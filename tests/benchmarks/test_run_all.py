"""The command that runs all benchmarks: it keeps to its time, and says what it left out."""

import argparse
from importlib import import_module

import pytest
from default_params import default_params

from benchmarks import convergence
from benchmarks.run_all import Part, full_parts, run_parts, toy_parts


def test_missing_module_is_left_out_and_its_time_passed_on(capfd: pytest.CaptureFixture) -> None:
    missing = Part("missing", "platform", [], share=3, needs="no_such_package")
    quick = Part("quick", "platform", [], share=1)
    outcomes = run_parts([missing, quick], seconds=60)
    assert "no_such_package" in outcomes["missing"]
    assert outcomes["quick"] == "finished"
    assert "quick, at most 60 s" in capfd.readouterr().out


def test_endless_part_is_cut_off() -> None:
    endless = Part("endless", "http.server", ["--bind", "127.0.0.1", "0"], share=1)
    assert run_parts([endless], seconds=0.5)["endless"].startswith("cut off")


def test_failure_is_told() -> None:
    failing = Part("failing", "json.tool", ["--no-such-option"], share=1)
    assert run_parts([failing], seconds=60)["failing"] == "failed with exit status 2"


def test_toy_runs_the_same_benchmarks() -> None:
    toy, full = toy_parts(), full_parts([])
    assert [(part.title, part.module, part.needs) for part in toy] == [
        (part.title, part.module, part.needs) for part in full
    ]


class Parsed(Exception):
    """Carries what a benchmark has read from its command line, and keeps it from measuring."""


@pytest.mark.parametrize("part", full_parts(["bsdata", "folder"]), ids=lambda part: part.title)
def test_the_arguments_for_the_gpu_are_understood(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_alone(parser: argparse.ArgumentParser) -> None:
        raise Parsed(parse(parser, part.arguments))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_alone)
    with pytest.raises(Parsed) as parsed:
        import_module(part.module).main()
    (arguments,) = parsed.value.args
    if part.module == convergence.__name__:
        plan = convergence.make_plan(arguments, default_params())
        assert plan.common(default_params()).pretrain.model == "base"
        assert bool(plan.finetune) == (part.title == "mIoU")

"""The meter on the real machine: totals add up, survive a kill, and count nothing twice."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from codecarbon.external.hardware import CPU, MODE_CPU_LOAD
from codecarbon.external.ram import RAM

from dbp_mae.emissions import Emissions, _measured, grid_kg_per_kwh, measure
from dbp_mae.errors import UserError
from dbp_mae.params import EmissionsParams

PARAMS = EmissionsParams(country="DEU", sample_seconds=0.1)


def busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def busy_then_fail(seconds: float) -> None:
    busy(seconds)
    raise ZeroDivisionError


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Emissions, Path]:
    folder = tmp_path_factory.mktemp("energy")
    before = set(Path.cwd().iterdir())
    with measure(PARAMS, "first", folder) as meter:
        busy(1.0)
    assert set(Path.cwd().iterdir()) == before
    return meter.emissions, folder


def test_a_busy_second_costs_energy(first: tuple[Emissions, Path]) -> None:
    emissions, _ = first
    assert 1.0 <= emissions.seconds < 2.0
    assert emissions.cpu_kwh > 0
    assert emissions.ram_kwh > 0
    assert emissions.hardware.cpus == os.cpu_count()
    assert emissions.hardware.cpu


def test_the_parts_add_up(first: tuple[Emissions, Path]) -> None:
    emissions, _ = first
    parts = emissions.cpu_kwh + emissions.gpu_kwh + emissions.ram_kwh
    assert emissions.kwh == pytest.approx(parts)
    assert emissions.kwh == pytest.approx(emissions.measured_kwh + emissions.estimated_kwh)
    measured = sum(getattr(emissions, f"{part}_kwh") for part in emissions.hardware.measured)
    assert emissions.measured_kwh == pytest.approx(measured)


def test_co2_is_energy_times_the_grid_factor(first: tuple[Emissions, Path]) -> None:
    emissions, _ = first
    assert emissions.grid_kg_per_kwh == grid_kg_per_kwh("DEU")
    assert emissions.co2_kg == pytest.approx(emissions.kwh * emissions.grid_kg_per_kwh)
    assert 0 < grid_kg_per_kwh("NOR") < grid_kg_per_kwh("DEU") < grid_kg_per_kwh("POL") < 1


def test_only_the_totals_stay_behind(first: tuple[Emissions, Path]) -> None:
    emissions, folder = first
    assert [path.name for path in folder.iterdir()] == ["energy.json"]
    stored = Emissions.model_validate_json((folder / "energy.json").read_text())
    assert stored == emissions


def test_a_killed_run_is_continued(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, signal\n"
        "from dbp_mae.emissions import Emissions, measure\n"
        "from dbp_mae.params import EmissionsParams\n"
        "params = EmissionsParams(country='DEU', sample_seconds=0.1)\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "def kept(): return Emissions.model_validate_json((folder / 'energy.json').read_text())\n"
        "with measure(params, 'killed', folder):\n"
        "    while kept().seconds < 0.3: pass\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL
    assert killed.stderr == ""  # codecarbon keeps quiet

    before = Emissions.model_validate_json((tmp_path / "energy.json").read_text())
    assert before.kwh > 0
    with measure(PARAMS, "resumed", tmp_path) as meter:
        busy(0.3)
    after = meter.emissions
    assert after.seconds >= before.seconds + 0.3
    assert (before.runs, after.runs) == (1, 2)
    assert after.kwh > before.kwh
    assert after.co2_kg == pytest.approx(after.kwh * after.grid_kg_per_kwh)


def test_a_sample_that_comes_after_the_end_brings_nothing_back(tmp_path: Path) -> None:
    with measure(PARAMS, "ended", tmp_path) as meter:
        pass
    totals = meter.emissions
    assert meter._latest is not None
    (tmp_path / "energy.json").unlink()
    meter.live_out(replace(meter._latest, duration=9.0), meter._latest)
    assert meter.emissions == totals
    assert not list(tmp_path.iterdir())


def test_a_sample_that_was_overtaken_sets_nothing_back(tmp_path: Path) -> None:
    with measure(PARAMS, "overtaken", tmp_path) as meter:
        meter.live_out(meter._latest, meter._latest)
        totals = meter.emissions
        meter.live_out(replace(meter._latest, duration=0.0, energy_consumed=0.0), meter._latest)
        assert meter.emissions.seconds >= totals.seconds
        assert meter.emissions.kwh >= totals.kwh


def test_a_failing_stage_keeps_its_totals(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), measure(PARAMS, "failing", tmp_path):
        busy_then_fail(0.2)
    assert Emissions.model_validate_json((tmp_path / "energy.json").read_text()).seconds >= 0.2


def test_nesting_is_refused_and_the_outer_meter_goes_on(tmp_path: Path) -> None:
    with measure(PARAMS, "outer", tmp_path / "outer") as meter:
        with (
            pytest.raises(RuntimeError, match=r"'inner'.*inside.*'outer'.*twice"),
            measure(PARAMS, "inner", tmp_path / "inner"),
        ):
            pass
        busy(0.2)
    assert meter.emissions.seconds >= 0.2
    with measure(PARAMS, "next", tmp_path / "next"):
        pass


def test_an_unknown_country_is_named(tmp_path: Path) -> None:
    params = EmissionsParams(country="XXX", sample_seconds=1.0)
    with (
        pytest.raises(UserError, match=r"emissions\.country is 'XXX'.*DEU"),
        measure(params, "stage", tmp_path),
    ):
        pass


def test_damaged_totals_are_named(tmp_path: Path) -> None:
    (tmp_path / "energy.json").write_text("{}")
    with (
        pytest.raises(UserError, match=r"energy\.json.*delete it"),
        measure(PARAMS, "stage", tmp_path),
    ):
        pass


def test_the_machines_settings_change_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODECARBON_PUE", "1000")
    monkeypatch.setenv("CODECARBON_FORCE_CARBON_INTENSITY_G_CO2E_KWH", "0")
    monkeypatch.setenv("CODECARBON_REGION", "bavaria")
    with measure(PARAMS, "stage", tmp_path) as meter:
        busy(0.2)
    emissions = meter.emissions
    assert emissions.watts < 5000
    assert emissions.co2_kg == pytest.approx(emissions.kwh * grid_kg_per_kwh("DEU"))


@pytest.mark.parametrize(
    ("mode", "measured"),
    [(MODE_CPU_LOAD, []), ("constant", []), ("intel_rapl", ["cpu"])],
)
def test_only_counters_are_called_measured(mode: str, measured: list[str]) -> None:
    cpu = CPU(output_dir=".", mode="constant", model="any", tdp=65)
    cpu._mode = mode  # a RAPL interface opens only where the counters exist
    assert _measured([RAM(), cpu]) == measured

"""Energy counters, read from files as the kernel lays them out; the GPU's where there is one."""

from pathlib import Path

import pytest
import torch

from dbp_mae.energy import CpuCounter, EnergyMeter


def write_domain(powercap: Path, folder: str, name: str, microjoules: int) -> Path:
    domain = powercap / folder
    domain.mkdir(parents=True, exist_ok=True)
    (domain / "name").write_text(f"{name}\n")
    (domain / "max_energy_range_uj").write_text("1000000\n")
    (domain / "energy_uj").write_text(f"{microjoules}\n")
    return domain


def test_the_packages_are_summed_and_their_parts_are_not(tmp_path: Path) -> None:
    write_domain(tmp_path, "intel-rapl:0", "package-0", 100_000)
    write_domain(tmp_path, "intel-rapl:0:0", "core", 100_000)
    write_domain(tmp_path, "intel-rapl:1", "package-1", 0)
    write_domain(tmp_path, "intel-rapl:2", "psys", 0)
    meter = EnergyMeter.of_this_machine(tmp_path)
    assert "cpu" in meter.measured
    cpus = EnergyMeter([counter for counter in meter.counters if counter.part == "cpu"])
    assert cpus.since_last() == 0
    write_domain(tmp_path, "intel-rapl:0", "package-0", 400_000)
    write_domain(tmp_path, "intel-rapl:0:0", "core", 300_000)
    write_domain(tmp_path, "intel-rapl:1", "package-1", 200_000)
    write_domain(tmp_path, "intel-rapl:2", "psys", 900_000)
    assert cpus.since_last() == pytest.approx(0.5)
    assert cpus.since_last() == 0


def test_a_counter_that_wraps_goes_on(tmp_path: Path) -> None:
    domain = write_domain(tmp_path, "intel-rapl:0", "package-0", 900_000)
    counter = CpuCounter(domain)
    write_domain(tmp_path, "intel-rapl:0", "package-0", 100_000)
    assert counter.since_last() == pytest.approx(0.2)


def test_what_may_not_be_read_is_not_counted(tmp_path: Path) -> None:
    (write_domain(tmp_path, "intel-rapl:0", "package-0", 1) / "energy_uj").unlink()
    assert "cpu" not in EnergyMeter.of_this_machine(tmp_path).measured


def test_without_a_counter_nothing_is_known() -> None:
    assert EnergyMeter([]).since_last() is None
    assert EnergyMeter([]).measured == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_counts_its_work(tmp_path: Path) -> None:
    meter = EnergyMeter.of_this_machine(tmp_path)
    assert meter.measured == ["gpu"]
    matrix = torch.randn(8192, 8192, device="cuda")
    for _ in range(200):
        matrix = torch.nn.functional.normalize(matrix @ matrix)
    torch.cuda.synchronize()
    joules = meter.since_last()
    assert joules is not None
    assert joules > 1

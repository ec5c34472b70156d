"""Energy counters of the hardware: what a stretch of work took, read and not modelled.

`dbp_mae.emissions` meters whole stages, with estimates; this reads counters at two moments, so that a
stretch between them can be left out.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

POWERCAP = Path("/sys/class/powercap")


class Counter(Protocol):
    """An energy counter that the hardware keeps."""

    part: str
    """gpu or cpu."""

    def since_last(self) -> float:
        """Return the joules since the last call, or since the counter was found."""


class GpuCounter:
    """The energy of the GPU that torch computes on, by NVML; its whole board."""

    part = "gpu"

    def __init__(self) -> None:
        import pynvml

        self._nvml: Any = pynvml
        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        self._last = self._read()

    def since_last(self) -> float:
        """Return the joules since the last call."""
        last, self._last = self._last, self._read()
        return (self._last - last) / 1e3

    def _read(self) -> int:
        """Return millijoules since the driver was loaded."""
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))


class CpuCounter:
    """The energy of one processor package, by RAPL; the counter wraps."""

    part = "cpu"

    def __init__(self, folder: Path) -> None:
        self._file = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last = self._read()

    def since_last(self) -> float:
        """Return the joules since the last call, which must be less than one turn of the counter."""
        last, self._last = self._last, self._read()
        return (self._last - last) % self._range / 1e6

    def _read(self) -> int:
        return int(self._file.read_text())


@dataclass
class EnergyMeter:
    """All the counters that this machine lets us read; perhaps none."""

    counters: list[Counter] = field(default_factory=list)

    @classmethod
    def of_this_machine(cls, powercap: Path = POWERCAP) -> "EnergyMeter":
        """Find the GPU in use, and the processor's packages."""
        return cls([*_gpu_counters(), *_cpu_counters(powercap)])

    @property
    def measured(self) -> list[str]:
        """The parts that are read, each once: gpu, cpu."""
        return list(dict.fromkeys(counter.part for counter in self.counters))

    def since_last(self) -> float | None:
        """Return the joules since the last call, or None where nothing counts them."""
        joules = [counter.since_last() for counter in self.counters]
        return sum(joules) if joules else None


def _gpu_counters() -> list[Counter]:
    if not torch.cuda.is_available():
        return []
    try:
        import pynvml
    except ImportError:
        return []
    try:
        return [GpuCounter()]
    except pynvml.NVMLError:  # an old GPU, or a slice of one, has no such counter
        return []


def _cpu_counters(powercap: Path) -> list[Counter]:
    """Find RAPL's packages, intel-rapl:0 and so on; their parts, intel-rapl:0:0, are within them."""
    found: list[Counter] = []
    for folder in sorted(powercap.glob("intel-rapl:*")):
        if folder.name.count(":") == 1 and (folder / "name").read_text().startswith("package"):
            with suppress(OSError):  # most systems let root alone read it
                found.append(CpuCounter(folder))
    return found

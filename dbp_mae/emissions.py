"""Electricity and CO2 of a training stage: what was measured, what was estimated, by codecarbon."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from dbp_mae.errors import UserError
from dbp_mae.files import write_text
from dbp_mae.params import EmissionsParams

if TYPE_CHECKING:
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.output_methods.emissions_data import EmissionsData

_SUMMED = (
    "runs",
    "seconds",
    "kwh",
    "cpu_kwh",
    "gpu_kwh",
    "ram_kwh",
    "measured_kwh",
    "estimated_kwh",
    "co2_kg",
)

JOULES_PER_KWH = 3.6e6

_running: str | None = None  # one meter at a time: two would count the machine twice


class Hardware(BaseModel):
    """The machine that was metered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str
    cpus: int
    gpu: str
    gpus: int
    ram_gb: float
    measured: list[str]
    """Which of cpu, gpu, ram were read from a counter (RAPL, NVML, ...); the others are a model."""


class Emissions(BaseModel):
    """Totals of one stage, for the whole machine it ran on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs: int = 1
    """More than one where a stage was stopped or killed and went on later, and in sums over stages."""
    seconds: float
    kwh: float
    cpu_kwh: float
    gpu_kwh: float
    ram_kwh: float
    measured_kwh: float
    """The part read from energy counters."""
    estimated_kwh: float
    """The part that codecarbon models: a CPU by its load and rated power, memory by its size."""
    co2_kg: float
    grid_kg_per_kwh: float
    country: str
    hardware: Hardware

    @property
    def watts(self) -> float:
        """The mean power."""
        return self.kwh * JOULES_PER_KWH / self.seconds

    @property
    def place(self) -> tuple[Hardware, str, float]:
        """The machine, its country, and the CO2 of a kWh of the country's grid in kg."""
        return self.hardware, self.country, self.grid_kg_per_kwh

    def __add__(self, later: "Emissions") -> "Emissions":
        """Return the totals of both; country and hardware are those of the later one."""
        totals = {name: getattr(self, name) + getattr(later, name) for name in _SUMMED}
        return later.model_copy(update=totals)


class Meter:
    """The running totals of a stage. `emissions` is as fresh as the last sample, and so is the file.

    codecarbon takes samples in threads of its own, which may overlap and outlast its stop.
    """

    def __init__(self, file: Path, grid_kg_per_kwh: float) -> None:
        self._file = file
        self._grid = grid_kg_per_kwh
        self._earlier = _read(file)
        self.hardware: Hardware | None = None
        self._latest: EmissionsData | None = None
        self._lock = RLock()
        self._ended = False

    @property
    def emissions(self) -> Emissions:
        """Totals up to the last sample, those of a killed run before this one included."""
        if self._latest is None or self.hardware is None:
            raise RuntimeError("codecarbon could not start: it has measured nothing.")
        now = _emissions(self._latest, self.hardware, self._grid)
        return self._earlier + now if self._earlier else now

    def save(self) -> None:
        """Write the totals so far, so that a run resumed after a kill continues from them."""
        with self._lock:
            write_text(self._file, self.emissions.model_dump_json(indent=2))

    # codecarbon's interface for outputs; see codecarbon.output_methods.base_output.

    def live_out(self, total: "EmissionsData", delta: "EmissionsData") -> None:
        """Take a sample, unless a later one is there already, and write the totals."""
        with self._lock:
            overtaken = self._latest is not None and total.duration < self._latest.duration
            if not self._ended and not overtaken:
                self._latest = total
                with suppress(OSError):  # a thread's error reaches nobody: the last `save` tells it
                    self.save()

    out = live_out

    def exit(self) -> None:
        """Take no further sample: the file may be removed now."""
        with self._lock:
            self._ended = True


@contextmanager
def measure(params: EmissionsParams, name: str, folder: Path) -> Iterator[Meter]:
    """Meter the machine's electricity while the block runs.

    The totals are kept in folder/energy.json, written with every sample and at the end, also when the
    block fails. Where the file is there already, the totals continue from it: whoever removes the
    stage's checkpoints removes it with them.

    Raises:
        UserError: the country has no known electricity mix, or energy.json is damaged.
        RuntimeError: another meter is running in this process.
    """
    global _running
    if _running is not None:
        raise RuntimeError(
            f"measure({name!r}) inside measure({_running!r}) would count the machine twice: "
            "measure one stage at a time."
        )
    meter = Meter(folder / "energy.json", grid_kg_per_kwh(params.country))
    _running = name
    try:
        with tempfile.TemporaryDirectory() as scratch:
            tracker = _tracker(params, name, scratch, meter)
            meter.hardware = _hardware(tracker)
            tracker.start()
            try:
                meter.save()  # codecarbon would not tell what fails
                yield meter
            finally:
                tracker.stop()
                meter.save()
    finally:
        _running = None


def grid_kg_per_kwh(country: str) -> float:
    """Return the CO2 of a kWh from a country's grid in kg, from codecarbon's table.

    Raises:
        UserError: codecarbon has no electricity mix for the country.
    """
    _quieten()
    from codecarbon.core.emissions import Emissions as Intensity
    from codecarbon.core.units import Energy
    from codecarbon.external.geography import GeoMetadata
    from codecarbon.input import DataSource

    source = DataSource()
    if country not in source.get_global_energy_mix_data():
        raise UserError(
            f"emissions.country is {country!r}, whose electricity mix is unknown: "
            "give an ISO 3166-1 alpha-3 code such as DEU, NLD or USA."
        )
    one_kwh = Energy.from_energy(kWh=1.0)
    return float(Intensity(source).get_country_emissions(one_kwh, GeoMetadata(country)))


def _quieten() -> None:
    """Silence codecarbon below errors: it warns on import and before it reads its log level."""
    logging.getLogger("codecarbon").setLevel(logging.ERROR)


def _tracker(
    params: EmissionsParams, name: str, folder: str, meter: Meter
) -> "OfflineEmissionsTracker":
    from codecarbon import OfflineEmissionsTracker

    _quieten()
    # What is set to None, "" or 1 keeps a ~/.codecarbon.config or an environment variable of the
    # machine from calling an API or from changing the figures.
    return OfflineEmissionsTracker(
        project_name=name,
        country_iso_code=params.country,
        region=None,
        cloud_provider=None,
        cloud_region=None,
        force_carbon_intensity_g_co2e_kwh=None,
        electricitymaps_api_token="",
        emissions_endpoint=None,
        pue=1.0,
        tracking_mode="machine",
        measure_power_secs=params.sample_seconds,
        output_methods=[],
        output_handlers=[meter],
        api_call_interval=1,  # hand every sample to the meter
        output_dir=folder,
        allow_multiple_runs=True,  # a killed run's lock would block the next one
        log_level="error",
    )


def _hardware(tracker: "OfflineEmissionsTracker") -> Hardware:
    found = tracker.get_detected_hardware()
    return Hardware(
        cpu=found["cpu_model"] or "unknown",
        cpus=found["cpu_count"] or 0,
        gpu=found["gpu_model"] or "",
        gpus=found["gpu_count"] or 0,
        ram_gb=found["ram_total_size"] or 0.0,
        measured=_measured(tracker._hardware),
    )


def _measured(parts: list) -> list[str]:
    """Name the parts that codecarbon reads from a counter rather than models."""
    from codecarbon.external.hardware import CPU, GPU, MODE_CPU_LOAD
    from codecarbon.external.ram import RAM

    names = set()
    for part in parts:
        if isinstance(part, CPU):
            if part._mode not in (MODE_CPU_LOAD, "constant"):
                names.add("cpu")
        elif isinstance(part, GPU):
            names.add("gpu")
        elif not isinstance(part, RAM):  # Apple's and Raspberry's chips: sensors, by part
            names.add(part.chip_part.lower())
    return sorted(names)


def _emissions(total: "EmissionsData", hardware: Hardware, grid_kg_per_kwh: float) -> Emissions:
    parts = {"cpu": total.cpu_energy, "gpu": total.gpu_energy, "ram": total.ram_energy}
    measured = sum(kwh for part, kwh in parts.items() if part in hardware.measured)
    return Emissions(
        seconds=total.duration,
        kwh=total.energy_consumed,
        cpu_kwh=total.cpu_energy,
        gpu_kwh=total.gpu_energy,
        ram_kwh=total.ram_energy,
        measured_kwh=measured,
        estimated_kwh=total.energy_consumed - measured,
        co2_kg=total.emissions,
        grid_kg_per_kwh=grid_kg_per_kwh,
        country=total.country_iso_code,
        hardware=hardware,
    )


def _read(file: Path) -> Emissions | None:
    if not file.exists():
        return None
    try:
        return Emissions.model_validate_json(file.read_bytes())
    except ValidationError:
        raise UserError(
            f"{file} holds no energy totals: delete it (the energy used so far is lost)."
        ) from None

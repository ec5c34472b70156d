"""prefect.yaml names flows that exist, and times that come."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule
from prefect.flows import load_flow_from_entrypoint

from pipelines.flows.ui import POOL

ROOT = Path(__file__).parents[3]
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda item: item["name"])
def test_a_deployment_can_run(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    flow = load_flow_from_entrypoint(deployment["entrypoint"])
    parameters = flow.validate_parameters(deployment.get("parameters", {}))
    assert set(parameters) <= set(flow.parameters.properties)
    assert deployment["work_pool"]["name"] == POOL
    assert deployment["concurrency_limit"]["limit"] == 1
    for schedule in deployment.get("schedules", []):
        CronSchedule.model_validate(schedule)

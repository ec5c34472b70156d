"""What the Prefect server knows of a run."""

from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import TaskRun
from prefect.states import State


def task_runs(state: State) -> list[TaskRun]:
    """Return the tasks of the flow run that ended in `state`, in their order."""
    run = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        return sorted(client.read_task_runs(flow_run_filter=run), key=lambda task: task.start_time)


def artifacts(state: State) -> dict[str, Any]:
    """Return the data of the artifacts of the flow run that ended in `state`, by key."""
    of_run = ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=of_run))
    return {artifact.key: artifact.data for artifact in found}

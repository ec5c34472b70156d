"""dvc.yaml's stages, run by DVC, one Prefect task a stage."""

from uuid import UUID

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.reproduce import plan_repro
from prefect import Task, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import Failed, State

from dbp_mae.errors import UserError
from pipelines.artifacts import EMISSIONS, METRICS
from pipelines.flows.dvc_command import DvcFailed, run_dvc

INTERRUPTED = "Interrupted"


def run_chain() -> None:
    """Bring every stage up to date; DVC skips those that are.

    Raises:
        UserError: a stage failed; the message is what the stage said.
    """
    stages = stage_order()
    progress = create_progress_artifact(progress=0, description="Stages up to date")
    assert isinstance(progress, UUID)
    for done, stage in enumerate(stages, start=1):
        state = run_stage(stage, return_state=True)
        if not state.is_completed():
            raise UserError(f"{stage}: {state.message}")
        update_progress_artifact(progress, progress=100 * done / len(stages))


def stage_order() -> list[str]:
    """Return the stages of dvc.yaml, and the `dvc add`ed data they read, in DVC's order.

    Raises:
        UserError: dvc.yaml or what it refers to is not valid.
    """
    try:
        with Repo() as repo:
            plan = plan_repro(repo.index.graph, repo.stage.collect("dvc.yaml"))
            return [stage.addressing for stage in plan]
    except DvcException as error:
        raise UserError(f"DVC cannot read the pipeline: {error}") from None


def _interrupted(task: Task, run: TaskRun, state: State) -> bool:
    return state.name == INTERRUPTED


# A stage that was killed or crashed may succeed from its checkpoint; wrong input stays wrong.
@task(
    task_run_name="{stage}",
    cache_policy=NO_CACHE,
    retries=1,
    retry_delay_seconds=5,
    retry_condition_fn=_interrupted,
)
def run_stage(stage: str) -> State | None:
    """Bring one stage up to date through DVC."""
    try:
        run_dvc("repro", "--single-item", stage)
    except DvcFailed as failure:
        # How DVC reports a command that ended without a sentence of its own, as one that is killed does.
        interrupted = "failed to run: " in str(failure)
        return Failed(name=INTERRUPTED if interrupted else "Failed", message=str(failure))
    return None


def check_values_committed() -> None:
    """Refuse to train with values that nobody committed: an experiment leaves its own behind.

    Raises:
        UserError: params.yaml is not as in the last commit, or there is none.
    """
    here, committed = _versions("params.yaml", experiments=False)
    if here != committed:
        raise UserError(
            "params.yaml holds values that are not committed, perhaps of an experiment: commit them, or "
            "take the committed ones back (git checkout HEAD params.yaml)."
        )


def is_saved() -> bool:
    """Return whether HEAD or an experiment holds dvc.lock, DVC's record of the chain, as it is now.

    Raises:
        UserError: the repository has no commit yet.
    """
    here, *saved = _versions("dvc.lock", experiments=True)
    return here in saved


def save_experiment(name: str) -> None:
    """Save the workspace as a DVC experiment, figures included, even where git does not track them.

    Raises:
        UserError: an experiment of that name exists, or the repository has no commit yet.
    """
    reports = [f"--include-untracked={path}" for path in (METRICS, EMISSIONS)]
    run_dvc("exp", "save", f"--name={name}", *reports)


def _versions(path: str, experiments: bool) -> list[bytes | None]:
    """Return a file as it is here, in HEAD and, if asked for, in each experiment; None where it is not."""
    try:
        with Repo() as repo:
            # DVC goes from the workspace to commit after commit, and repo.fs with it.
            commits = repo.brancher(revs=["HEAD"], all_experiments=experiments)
            return [repo.fs.read_bytes(path) if repo.fs.exists(path) else None for _ in commits]
    except DvcException as error:
        raise UserError(f"DVC cannot read what was committed: {error}") from None

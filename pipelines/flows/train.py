"""The whole chain, from images to report: `python -m pipelines.flows.train`."""

from prefect import flow

from pipelines.artifacts import REPORT
from pipelines.flows.chain import run_chain, save_experiment
from pipelines.flows.exclusive import exclusive
from pipelines.flows.outcome import one_sentence, run_from_shell
from pipelines.flows.results import publish_results


@flow
@exclusive
@one_sentence
def train(experiment: str | None = None) -> str:
    """Bring the whole chain up to date; with a name, save the result as a DVC experiment."""
    run_chain()
    if experiment:
        save_experiment(experiment)
    publish_results()
    return f"Everything is up to date; the report is {REPORT.resolve().as_uri()}"


if __name__ == "__main__":
    run_from_shell(train)

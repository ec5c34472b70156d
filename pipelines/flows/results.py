"""The figures of a run as Prefect artifacts, beside the run they belong to."""

from prefect.artifacts import create_link_artifact, create_markdown_artifact

from pipelines.artifacts import REPORT
from pipelines.summary import results, stage_minutes


def publish_results() -> None:
    """Publish the figures of reports/ as the artifact `results`, and where the report is.

    Raises:
        UserError: the pipeline has not run yet.
    """
    create_markdown_artifact(
        key="results",
        description="What the run came to",
        markdown="\n".join(
            [
                *_table("Result", "Value", results()),
                "",
                *_table("Stage", "Minutes", {k: f"{v:.1f}" for k, v in stage_minutes().items()}),
                "",
                f"The whole report: `{REPORT}`",
            ]
        ),
    )
    create_link_artifact(key="report", link=REPORT.resolve().as_uri(), link_text=str(REPORT))


def _table(name: str, value: str, rows: dict[str, str]) -> list[str]:
    return [f"| {name} | {value} |", "|---|---:|", *(f"| {k} | {v} |" for k, v in rows.items())]

"""Stage validate: the manifest passes the gate, or the pipeline stops here."""

from pathlib import Path

from dbp_mae.data.manifest import read_manifest, write_manifest
from dbp_mae.data.validation import validate
from dbp_mae.data.validation_page import render_page
from dbp_mae.errors import UserError
from dbp_mae.files import write_text
from dbp_mae.params import Params
from pipelines.artifacts import DATA, MANIFEST, VALIDATED
from pipelines.stage import run

PAGE = Path("reports/validation.html")


def main(params: Params) -> None:
    """Write the quarantined images and the page; then the validated ones, or stop if the gate closed.

    Behind a closed gate no validated images are left that something could be trained on.

    Raises:
        UserError: the gate is closed.
    """
    classes = params.data.classes
    manifest = read_manifest(MANIFEST)
    validation = validate(manifest, classes, params.validation.tolerated_share)
    VALIDATED.unlink(missing_ok=True)
    write_text(DATA / "quarantine.csv", validation.quarantine.to_csv(index=False))
    write_text(PAGE, render_page(validation, classes))
    if not validation.gate_open:
        raise UserError(
            f"{validation.complaint}\nSee {PAGE}; correct or delete these files, "
            "or tolerate them with validate.tolerated_share."
        )
    write_manifest(validation.validated, VALIDATED)
    print(validation.verdict)
    if validation.warnings:
        print(f"Warnings: {validation.warnings}. See {PAGE}.")


if __name__ == "__main__":
    run(main)

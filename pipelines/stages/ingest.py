"""Stage ingest: the source folder becomes a manifest and index masks."""

from dbp_mae.data.ingest import ingest
from dbp_mae.data.manifest import write_manifest
from dbp_mae.params import Params
from pipelines.artifacts import DATA, MANIFEST
from pipelines.stage import run


def main(params: Params) -> None:
    """Write data/manifest.parquet and data/masks."""
    manifest = ingest(params.data.source, params.data, masks=DATA / "masks")
    write_manifest(manifest, MANIFEST)


if __name__ == "__main__":
    run(main)

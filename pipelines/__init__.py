"""Orchestration: DVC stages and Prefect flows over the library."""

import os

# A factory has no internet, and nothing here phones home even where there is one.
os.environ.update(
    DO_NOT_TRACK="1",
    GX_ANALYTICS_ENABLED="false",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    NO_ALBUMENTATIONS_UPDATE="1",
    HF_HUB_OFFLINE="1",
    BENTOML_DO_NOT_TRACK="True",
)

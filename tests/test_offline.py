"""Nothing phones home: what libraries send unless told otherwise is off, whatever the environment says."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOLD = ("TRACK", "ANALYTICS", "OFFLINE", "ALBUMENTATIONS", "TELEMETRY", "CI", "GITHUB", "PYTEST")
"""Words in the names of variables that would switch something off by themselves."""


def answers(program: str) -> dict[str, bool]:
    """Return what a program prints, in an environment in which nothing is switched off."""
    untold = {
        name: value for name, value in os.environ.items() if not any(word in name for word in TOLD)
    }
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=untold, check=True, capture_output=True
    )
    answered: dict[str, bool] = json.loads(done.stdout.splitlines()[-1])
    return answered


def test_the_pipeline_reports_to_nobody() -> None:
    sends = answers(
        "import json, os, pipelines\n"
        "from bentoml._internal.utils.analytics.usage_stats import do_not_track\n"
        "from huggingface_hub.constants import HF_HUB_OFFLINE\n"
        "from prefect._internal.analytics.enabled import is_telemetry_enabled\n"
        "from prefect.settings import get_current_settings\n"
        "print(json.dumps({\n"
        "    'bentoml': not do_not_track(),\n"
        "    'great_expectations': os.environ['GX_ANALYTICS_ENABLED'] != 'false',\n"
        "    'huggingface': not HF_HUB_OFFLINE,\n"
        "    'prefect': is_telemetry_enabled(),\n"
        "    'prefect server': get_current_settings().server.analytics_enabled,\n"
        "    'albumentations': 'NO_ALBUMENTATIONS_UPDATE' not in os.environ,\n"
        "}))"
    )
    assert sends == dict.fromkeys(sends, False)


def test_the_service_reports_to_nobody() -> None:
    """BentoML reads its variable before it imports the service, so what it remembers must be cleared."""
    sends = answers(
        "import json\n"
        "from bentoml._internal.utils.analytics.usage_stats import do_not_track\n"
        "do_not_track()\n"
        "import serving.service\n"
        "print(json.dumps({'bentoml': not do_not_track()}))"
    )
    assert sends == {"bentoml": False}


def test_dvc_reports_to_nobody() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "config", "core.analytics"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "false"

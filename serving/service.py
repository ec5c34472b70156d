"""The BentoML service: `bentoml serve` in the repository's root finds it through bentofile.yaml."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import bentoml
from bentoml._internal.utils.analytics.usage_stats import do_not_track
from bentoml.exceptions import BentoMLConfigException

from dbp_mae.errors import UserError
from dbp_mae.inspection.segmenter import Segmenter, read_model
from serving.address import check_address
from serving.api import MAX_INSPECTIONS, create_app
from serving.held_model import held_path, hold
from serving.inspector import Inspector
from serving.settings import Settings

# BentoML would report usage to its makers. It has read the variable before it imports this file, so
# what it remembers must be cleared; its own test plugin does the same.
os.environ["BENTOML_DO_NOT_TRACK"] = "True"
do_not_track.cache_clear()


@contextmanager
def told_plainly() -> Iterator[None]:
    """Let BentoML tell a user's error in a sentence, as it does its own."""
    try:
        yield
    except UserError as error:
        raise BentoMLConfigException(str(error)) from None


with told_plainly():
    settings = Settings.from_environment()
app = create_app(settings.max_body)


@bentoml.service(
    name="segmenter",
    workers=1,  # each would load its own model and use all cores
    # Of inspections the routes take fewer: the page and /model are answered all the same.
    traffic={"timeout": 60, "max_concurrency": 4 * MAX_INSPECTIONS},
)
@bentoml.asgi_app(app)
class Segmentation:
    """Segments images of parts and accepts or rejects them."""

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Before any worker exists, refuse a port in use or an unsound model, and hold the model."""
        with told_plainly():
            check_address()
            try:
                model = read_model(settings.model)
                Segmenter.from_bytes(model, settings.model, gpu=False)
            except UserError as error:
                raise UserError(
                    f"{error} The variable DBP_MAE_MODEL says which file is served."
                ) from None
            hold(model)

    def __init__(self) -> None:
        segmenter = Segmenter.load(held_path(settings.model))
        app.state.inspector = Inspector(segmenter, settings.max_pixels, settings.log)
        print(f"{settings.model} ({segmenter.sha256[:12]}) runs on {segmenter.provider}")

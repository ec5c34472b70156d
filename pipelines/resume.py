"""Let a pre-training that stopped go on with other settings or code: python -m pipelines.resume FOLDER.

Other settings, and other code, have a folder of their own under .checkpoints/, and so start from the
beginning. This copies the last state of a stopped pre-training, with the energy that it took, to the
folder of what params.yaml and the code are now. Network and optimizer must be the same.
"""

import argparse
import shutil
from pathlib import Path

from dbp_mae.data.manifest import read_manifest
from dbp_mae.errors import UserError
from dbp_mae.params import Params, load_params
from dbp_mae.training.checkpoint import Checkpoint
from pipelines.artifacts import VALIDATED
from pipelines.ending import plain_ending
from pipelines.stages.pretrain import NAME, last_state


def resume(stopped: Path, params: Params) -> Path:
    """Copy the state in the folder `stopped` to the one for `params`, which is returned.

    Raises:
        UserError: there is no state to copy, one already where it would go, or no step left to take.
    """
    state = Checkpoint(stopped).load()
    if state is None or not stopped.name.startswith(f"{NAME}-"):
        raise UserError(
            f"{stopped} holds no state of a pre-training: give the folder that the message named."
        )
    if state["step"] >= params.pretrain.steps:
        raise UserError(
            f"The state in {stopped} has taken {state['step']} steps already: give pretrain.steps "
            f"({params.pretrain.steps}) a larger value."
        )
    target = last_state(read_manifest(VALIDATED), params)
    if target.path.exists():
        raise UserError(
            f"{target.folder} holds a state of params.yaml as it is: change the setting first, or "
            "remove that folder."
        )
    shutil.copytree(stopped, target.folder, dirs_exist_ok=True)
    print(f"The next pre-training with these settings goes on after step {state['step']}.")
    return target.folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    with plain_ending():
        resume(parser.parse_args().folder, load_params())

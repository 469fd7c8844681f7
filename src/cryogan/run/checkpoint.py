"""Checkpoints that are whole or not there."""

import pickle
from pathlib import Path
from typing import Any

import torch

from cryogan.errors import InputError
from cryogan.files import replacing


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` so that `path` holds either the old checkpoint or the new one, whole.

    Raises:
        InputError: the disk is full or the folder cannot be written; the old checkpoint is untouched.
    """
    try:
        with replacing(path, durable=True) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:  # torch reports a short write as RuntimeError
        kept = "The last one is good." if path.exists() else "There is none yet."
        raise InputError(
            f"Cannot write the checkpoint {path} ({error.__cause__ or error}). {kept} "
            f"Free disk space, then continue with `cryogan reconstruct --resume {path.parent}`."
        ) from error


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote, on `device`; generator states stay on the CPU, where torch wants them.

    Raises:
        InputError: there is no such file or it is not a checkpoint.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} is not a checkpoint of this program. Start a new run.") from error
    return state

"""How a checkpoint of a run is saved: whole or not at all, by all ranks into one folder that the first one moves."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from edgerazor.checkpoint.training_checkpoint import check_files, saved_steps, write_file_list
from edgerazor.core.atomic import remove_folder, replaced
from edgerazor.errors import CheckpointError, TrainingError, first_line
from edgerazor.training.lost_ranks import is_between_ranks


@contextmanager
def saved_whole(folder: Path, accelerator: Any) -> Iterator[Path]:
    """Give every rank the path at which `folder` is made; once all are done the first rank moves it to its place.

    Raises:
        TrainingError: it cannot be written, a full disk for example; nothing is left of it.
    """
    try:
        with ExitStack() as stack:
            made, failure = None, OSError("the first process cannot write it")
            if accelerator.is_main_process:
                try:
                    made = stack.enter_context(replaced(folder))
                except OSError as error:
                    failure = error  # not before the others, who wait for a path, know that there is none
            shared = [made and str(made)]
            if accelerator.num_processes > 1:
                broadcast_object_list(shared)
            if shared[0] is None:
                raise failure
            yield Path(shared[0])
            accelerator.wait_for_everyone()
            if made is not None:
                write_file_list(made)
        accelerator.wait_for_everyone()
    except (OSError, RuntimeError, SafetensorError) as error:
        if is_between_ranks(error):
            raise
        # torch says RuntimeError when it cannot write a file to its end.
        reason = getattr(error, "strerror", None) or first_line(error)
        kept = "; what was saved before stays, and --resume continues it" if saved_steps(folder.parent) else ""
        raise TrainingError(f"{folder}: cannot be written: {reason}{kept}") from error


class BestByStep(TrainerCallback):
    """Finds the best checkpoint of a resumed run by its step, wherever the folder of the run is now."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raises:
        TrainingError: the run is to end with the best checkpoint, and that one is not whole.
        """
        if not state.best_global_step:
            return
        best = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}"
        if args.load_best_model_at_end:
            try:
                check_files(best, resume=False)
            except CheckpointError as error:
                raise TrainingError(f"training.load_best_model_at_end: the best checkpoint so far:\n{error}") from error
        state.best_model_checkpoint = str(best) if best.is_dir() else None


def remove_oldest(checkpoints: Path, keep: int | None, best: str | None) -> None:
    """Remove checkpoints from the oldest on until `keep` are left; the newest and the best stay.

    Args:
        keep: None, or 0 and less, keeps all.
        best: path of the best one by held-out figures.
    """
    steps = saved_steps(checkpoints)
    kept = {steps[-1].name, Path(best).name if best else ""} if steps else set()
    surplus = len(steps) - max(keep, len(kept & {step.name for step in steps})) if keep and keep > 0 else 0
    for step in [step for step in steps if step.name not in kept][: max(surplus, 0)]:
        remove_folder(step)

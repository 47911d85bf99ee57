"""The progress line of training shows the share of every loss, a plugin's too."""

from io import StringIO
from types import SimpleNamespace

from rich.console import Console

from edgerazor.training.callbacks import LiveProgress


def test_every_loss_of_the_recipe_is_shown() -> None:
    written = StringIO()
    progress = LiveProgress(Console(file=written, width=200), now=lambda: 0.0, losses=["eakld", "acme.logit_mse"])
    state = SimpleNamespace(is_world_process_zero=True, max_steps=4, global_step=2)
    progress.on_train_begin(None, state, None)
    logs = {"loss": 1.5, "task": 0.25, "eakld": 0.75, "acme.logit_mse": 0.5, "eakld/gamma": 0.9, "epoch": 1.0}
    progress.on_log(None, state, None, logs=logs)
    progress.stop()
    assert written.getvalue().strip() == "train: step 2  loss 1.5000  task 0.2500  eakld 0.7500  acme.logit_mse 0.5000"

"""What the files and folders of a training run are called."""

CHECKPOINTS, PACKED, METRICS, RECIPE = "checkpoints", "packed", "metrics.json", "recipe.yaml"
ALLOCATION, CALIBRATION = "allocation.yaml", ".calibration"

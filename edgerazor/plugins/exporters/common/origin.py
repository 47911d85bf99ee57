"""Which checkpoint a file was made of, as every format writes it into its own kind of metadata."""

import json
from collections.abc import Mapping
from typing import Any

from edgerazor import __version__
from edgerazor.core.contracts import Checkpoint

VERSION, DIGEST, RECIPE = "edgerazor.version", "edgerazor.content_sha256", "edgerazor.recipe"


def describe_origin(checkpoint: Checkpoint) -> dict[str, str]:
    """Version of the package, digest of the content, and the recipe as JSON, by keys that are the same everywhere."""
    recipe = json.dumps(checkpoint.recipe, sort_keys=True)
    return {VERSION: __version__, DIGEST: checkpoint.digest, RECIPE: recipe}


def read_recipe(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe in the metadata of a file; empty if it holds none."""
    recipe: Mapping[str, Any] = json.loads(metadata.get(RECIPE) or "{}")
    return recipe

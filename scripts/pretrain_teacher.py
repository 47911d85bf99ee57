"""Train the 16-bit teacher of the quickstart; with `--seconds 4500 --output FOLDER` it made the one that ships."""

import argparse
import json
from pathlib import Path

from edgerazor.quickstart.corpus import load_corpus
from edgerazor.quickstart.pretrain import PretrainSettings, pretrain, save_teacher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=PretrainSettings.batch_size)
    parser.add_argument("--learning-rate", type=float, default=PretrainSettings.peak_learning_rate)
    arguments = parser.parse_args()
    settings = PretrainSettings(
        seconds=arguments.seconds,
        device=arguments.device,
        batch_size=arguments.batch_size,
        peak_learning_rate=arguments.learning_rate,
    )
    model, tokenizer, facts = pretrain(load_corpus(arguments.data), settings)
    save_teacher(model, tokenizer, facts, arguments.output)
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()

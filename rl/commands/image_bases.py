"""The untrained tiny image bases: `python -m rl.commands.image_bases FOLDER` writes FOLDER/scenes and FOLDER/digits.

Both draw with one autoencoder, fitted here to scenes and handwritten digits. `make bases` then trains the denoisers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from models.tiny.autoencoder import fit_autoencoder, standardise
from models.tiny.image import untrained_pipeline
from rewards.images.digits import digit_images
from rewards.scenes.world import choose, demonstration

SEED = 0
SCENES = 8000


def main(folder: str) -> None:
    images = {
        "scenes": np.stack([demonstration(choose("train", SEED, index), SEED, index) for index in range(SCENES)]),
        "digits": digit_images("train")[0],
    }
    autoencoder = fit_autoencoder(np.concatenate(list(images.values())), seed=SEED)
    for kind, shown in images.items():
        standard = standardise(autoencoder, shown, shift=kind == "scenes")
        untrained_pipeline(kind, standard, seed=SEED).save_pretrained(Path(folder) / kind)


if __name__ == "__main__":
    main(*sys.argv[1:])

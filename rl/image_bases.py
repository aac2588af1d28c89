"""The untrained tiny image bases: `python -m rl.image_bases FOLDER` writes FOLDER/scenes and FOLDER/digits.

Both draw with one autoencoder, fitted here to scenes and handwritten digits. `make bases` then trains the denoisers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from models.tiny.autoencoder import fit_autoencoder
from models.tiny.image import untrained_pipeline
from rewards.digits import digit_images
from rewards.scenes.world import choose, demonstration

SEED = 0
SCENES = 8000


def main(folder: str) -> None:
    scenes = np.stack([demonstration(choose("train", SEED, index), SEED, index) for index in range(SCENES)])
    autoencoder = fit_autoencoder(np.concatenate([scenes, digit_images("train")[0]]), seed=SEED)
    for kind in ("scenes", "digits"):
        untrained_pipeline(kind, autoencoder, seed=SEED).save_pretrained(Path(folder) / kind)


if __name__ == "__main__":
    main(*sys.argv[1:])

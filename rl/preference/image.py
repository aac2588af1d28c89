"""A CLIP that learns which of two pictures is preferred for a prompt, as PickScore does (arXiv 2305.01569).

    P(a preferred to b) = softmax(t <e, x_a>, t <e, x_b>)_a,    loss = -log P(chosen)

x are the pictures' embeddings and e the prompt's, all of length one, and t is the checkpoint's temperature, which is
trained too. The embeddings are those of the reward `text_image_similarity`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoImageProcessor

from configs.errors import UserError
from rewards.images.dual_encoder import DualEncoder
from rl.data.image_columns import pixels
from rl.preference.options import PreferenceOptions
from rl.preference.pairs import Pair
from rl.preference.trained import TrainedModel


def train_image(training: Sequence[Pair], held: Sequence[Pair], options: PreferenceOptions) -> TrainedModel:
    """Raises UserError where the base is no CLIPModel."""
    try:
        encoder = DualEncoder(options.base, options.device)
        processor = AutoImageProcessor.from_pretrained(options.base)
    except (OSError, ValueError) as error:
        raise UserError(f"base={options.base}: {str(error).partition(chr(10))[0]}") from error
    losses = _train(encoder, training, options)

    def save(folder: Path) -> None:
        encoder.model.save_pretrained(folder)
        encoder.tokenizer.save_pretrained(folder)
        processor.save_pretrained(folder)

    return TrainedModel(
        margins=_margins(encoder, held, options.batch_size),
        training_margins=_margins(encoder, training, options.batch_size),
        losses=losses,
        about={"temperature": float(encoder.model.logit_scale.exp())},
        save=save,
    )


def log_odds(encoder: DualEncoder, pairs: Sequence[Pair]) -> Tensor:
    """(B,) that the chosen picture is preferred, differentiable in the encoder's weights."""
    texts = encoder.texts([str(pair.prompt) for pair in pairs])
    chosen = encoder.seen(torch.cat([_pixels(encoder, pair.chosen) for pair in pairs]))
    rejected = encoder.seen(torch.cat([_pixels(encoder, pair.rejected) for pair in pairs]))
    return encoder.model.logit_scale.exp() * (texts * (chosen - rejected)).sum(1)


def _train(encoder: DualEncoder, pairs: Sequence[Pair], options: PreferenceOptions) -> list[tuple[int, float]]:
    encoder.model.requires_grad_(True)
    optimizer = torch.optim.AdamW(encoder.model.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    steps = -(-len(pairs) // options.batch_size) * options.epochs
    warmup = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / max(1, steps - warmup + 1))
    )
    losses = []
    for step, batch in enumerate(_batches(pairs, options)):
        loss = -functional.logsigmoid(log_odds(encoder, batch)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append((step + 1, float(loss.detach())))
    encoder.model.requires_grad_(False)
    return losses


def _batches(pairs: Sequence[Pair], options: PreferenceOptions) -> Iterator[list[Pair]]:
    generator = np.random.default_rng(options.seed)
    for _ in range(options.epochs):
        order = generator.permutation(len(pairs))
        for first in range(0, len(pairs), options.batch_size):
            yield [pairs[place] for place in order[first : first + options.batch_size]]


def _margins(encoder: DualEncoder, pairs: Sequence[Pair], batch_size: int) -> np.ndarray:
    with torch.inference_mode():
        parts = [log_odds(encoder, pairs[first : first + batch_size]) for first in range(0, len(pairs), batch_size)]
        return torch.cat(parts).double().cpu().numpy()


def _pixels(encoder: DualEncoder, picture: object) -> Tensor:
    array = torch.from_numpy(np.array(pixels(picture, "a pair")))  # a copy: Pillow's is read-only
    return encoder.pixels(array.permute(2, 0, 1)[None].to(encoder.model.device).float() / 255)

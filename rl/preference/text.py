"""A Bradley-Terry model of texts: a sequence classifier of one number, trained by TRL's RewardTrainer.

Loss of a pair: -log sigmoid(r(chosen) - r(rejected)), where r is the mean over the segments of an answer if the texts
are scored in segments.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase, PrinterCallback
from trl import RewardConfig, RewardTrainer

from configs.errors import UserError
from models.files import local_folder, read_json
from models.options import ModelOptions
from models.text.checkpoint import load_text_policy, published_config
from models.text.families import named_family
from rewards.preference.form import Form, TextError
from rewards.preference.reward import classifier_logits, padded
from rl.preference.options import PreferenceOptions
from rl.preference.pairs import BadRow, Pair, refuse
from rl.preference.randomness import lent_generators
from rl.preference.trained import TrainedModel

Ids = list[list[int]]
"""Tokens of each segment of a sample."""


def train_text(
    training: Sequence[Pair], held: Sequence[Pair], files: tuple[Path, Path], options: PreferenceOptions
) -> TrainedModel:
    """
    Args:
        files: that the pairs of both parts are from, for errors.

    Raises:
        UserError: the base cannot be loaded as a sequence classifier.
        DataError: rows that the model cannot read, all of them by name.
    """
    with lent_generators(options.seed):
        model, tokenizer = _classifier(options.base)
    form = Form(tokenizer, _max_tokens(model, tokenizer, options), options.segments)
    chosen, rejected, bad = _formed(training, form)
    held_chosen, held_rejected, held_bad = _formed(held, form)
    if files[0] == files[1]:
        refuse(sorted([*bad, *held_bad], key=lambda each: each.row), files[0], len(training) + len(held))
    refuse(bad, files[0], len(training))
    refuse(held_bad, files[1], len(held))
    losses = _train(model, chosen, rejected, tokenizer, options)
    model.eval()

    def logits(samples: Sequence[Ids]) -> np.ndarray:
        flat = iter(classifier_logits(model, [ids for sample in samples for ids in sample], options.batch_size))
        return np.array([np.mean([next(flat) for _ in sample]) for sample in samples])

    of_chosen, of_rejected = logits(chosen), logits(rejected)

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return TrainedModel(
        margins=logits(held_chosen) - logits(held_rejected),
        training_margins=of_chosen - of_rejected,
        losses=losses,
        about={
            "form": {"max_tokens": form.max_tokens, "segments": form.segments.value},
            "centre": float(np.concatenate([of_chosen, of_rejected]).mean()),
        },
        save=save,
    )


def _classifier(base: str) -> tuple[Any, PreTrainedTokenizerBase]:
    """The network of `base` under a new head of one number, in fp32, and its tokenizer.

    A text policy of ours is one of transformers' own networks, of which there is a sequence classifier, too: with the
    causal attention that it has there, and read at the last token.
    """
    folder = local_folder(base)
    config = read_json(folder / "config.json") if folder is not None and (folder / "config.json").is_file() else {}
    if (family := named_family(config)) is not None:
        policy, tokenizer = load_text_policy(ModelOptions(path=base))
        wanted = family.network_config(published_config(policy))
        wanted.num_labels, wanted.pad_token_id = 1, policy.spec.pad_id
        model = getattr(transformers, f"{family.network}ForSequenceClassification")(wanted)
        model.model.load_state_dict(policy.network.model.state_dict())
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(policy.spec.pad_id)
        return model, tokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(base)
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"base={base} cannot be loaded as a sequence classifier: {reason}") from error
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise UserError(f"base={base}: its tokenizer has no padding token and no stop token; give it one of them")
        tokenizer.pad_token = tokenizer.eos_token
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id  # a causal network finds the last token by it
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def _max_tokens(model: Any, tokenizer: PreTrainedTokenizerBase, options: PreferenceOptions) -> int:
    built = getattr(model.config.get_text_config(), "max_position_embeddings", None) or int(1e9)
    limit = min(built, tokenizer.model_max_length)
    if options.max_tokens is None:
        if limit >= 1e9:
            raise UserError(f"base={options.base} does not say how many tokens it reads: set max_tokens")
        return int(limit)
    if options.max_tokens > limit:
        raise UserError(f"max_tokens={options.max_tokens}: base={options.base} reads {limit}; lower it")
    return options.max_tokens


def _formed(pairs: Sequence[Pair], form: Form) -> tuple[list[Ids], list[Ids], list[BadRow]]:
    """Of each pair that can be read the chosen and the rejected sample, and the rows of the others."""
    chosen: list[Ids] = []
    rejected: list[Ids] = []
    bad: list[BadRow] = []
    for pair in pairs:
        ids: list[Ids] = []
        for column, answer in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            try:
                ids.append(form.ids(pair.prompt, answer))
            except TextError as error:
                bad.append(BadRow(pair.row, column, str(error)))
                break
        if len(ids) < 2:
            continue
        if ids[0] == ids[1]:
            bad.append(BadRow(pair.row, "rejected", "it has the tokens of `chosen`, so neither can be better"))
        chosen.append(ids[0])
        rejected.append(ids[1])
    return chosen, rejected, bad


def _train(
    model: Any,
    chosen: Sequence[Ids],
    rejected: Sequence[Ids],
    tokenizer: PreTrainedTokenizerBase,
    options: PreferenceOptions,
) -> list[tuple[int, float]]:
    steps = -(-len(chosen) // options.batch_size) * options.epochs
    with tempfile.TemporaryDirectory() as folder, lent_generators(options.seed):
        arguments = RewardConfig(
            output_dir=folder,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            weight_decay=options.weight_decay,
            warmup_steps=0.1,  # a share
            lr_scheduler_type="linear",
            center_rewards_coefficient=options.centre_coefficient,
            max_length=None,  # what is too long was refused by name, and TRL would leave it out without a word
            remove_unused_columns=False,
            seed=options.seed,
            use_cpu=options.device == "cpu",
            bf16=False,
            gradient_checkpointing=False,
            logging_steps=max(1, steps // 50),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        if arguments.n_gpu > 1:
            arguments._n_gpu = 1  # several would each see a part of the rows, which are not one for each sample
        trainer = _Trainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict({"chosen_ids": chosen, "rejected_ids": rejected}),
            processing_class=tokenizer,
            data_collator=_Collator(model.config.get_text_config().pad_token_id),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return [(int(row["step"]), row["loss"]) for row in trainer.state.log_history if "loss" in row]


@dataclass(frozen=True)
class _Collator:
    """Chosen samples first, then the rejected ones, as TRL's own; each is one row or one for each of its segments."""

    pad_id: int

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        samples = [example[column] for column in ("chosen_ids", "rejected_ids") for example in examples]
        ids, mask = padded([row for sample in samples for row in sample], self.pad_id)
        counts = torch.tensor([len(sample) for sample in samples])
        return {"input_ids": ids, "attention_mask": mask, "segments": counts}


class _Trainer(RewardTrainer):
    """TRL's, whose loss sees one logit a sample: the mean over its segments."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *others: Any, **named: Any) -> Any:
        counts = inputs.pop("segments").tolist()

        def of_samples(**given: Any) -> Any:
            outputs = model(**given)
            outputs.logits = torch.stack([part.mean(0) for part in outputs.logits.split(counts)])
            return outputs

        return super().compute_loss(of_samples, inputs, *others, **named)

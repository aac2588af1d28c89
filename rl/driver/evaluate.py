"""Held-out evaluation: fixed problems under fixed noise, greedy and sampled, with 95 % intervals."""

from __future__ import annotations

from configs.schema import Config
from rl.data.tickets import TicketKind
from rl.driver.generation import Generation
from rl.driver.schedule import evaluation_tickets
from rl.run.evaluation import Evaluation


def evaluate(generation: Generation, config: Config, update: int) -> Evaluation:
    """Greedy and sampled completions of every held-out problem, by the policy of version `update`."""
    samples = {TicketKind.greedy: config.evaluation.images_per_prompt, TicketKind.sampled: config.evaluation.samples}
    tickets = [
        ticket
        for kind, count in samples.items()
        if count > 0
        for ticket in evaluation_tickets(
            config.run.seed,
            update,
            len(generation.sources[kind].problems),
            config.evaluation.prompts_per_ticket,
            count,
            kind,
        )
    ]
    generation.ask(tickets)
    scored = generation.collect(tickets)
    return Evaluation.of(update, scored, config.reward, generation.modality, generation.sources)

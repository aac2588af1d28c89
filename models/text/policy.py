"""A masked or block-diffusion language model: one of transformers' own networks under our attention rule."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.lean_transformers import DynamicCache, PreTrainedModel
from models.policy import Policy
from models.text.attention import visibility
from models.text.spec import TextSpec


class TextPolicy(Policy):
    """`network` is a transformers `...ForCausalLM`; its causal mask is always replaced by `models.text.attention`."""

    def __init__(self, network: PreTrainedModel, spec: TextSpec) -> None:
        super().__init__()
        self.network = network
        self.spec = spec

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        stream: Tensor,
        block: Tensor,
        read: Tensor,
    ) -> Tensor:
        """Logits of the tokens at chosen places.

        The head runs on the chosen rows only: its cost and memory grow with the targets, not with the context.

        Args:
            input_ids, position_ids, stream, block: (B, N); see `models.text.attention` for the last two.
            read: (2, M) row and column of each token to predict. The logit shift is applied here.

        Returns:
            (M, V) fp32.
        """
        hidden = self._hidden(input_ids, position_ids, visibility(stream, block, stream, block), None)  # (B, N, D)
        return self._head(hidden, read)

    def forward_cached(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        visible: Tensor,
        cache: DynamicCache,
        read: Tensor | None,
    ) -> Tensor | None:
        """Like `forward` behind cached keys and values, which grow by these tokens; `visible` is (B, 1, N, K + N).

        Returns None when nothing is to be read (`read=None`: the call only fills the cache).
        """
        hidden = self._hidden(input_ids, position_ids, visible, cache)
        return None if read is None else self._head(hidden, read)

    def _hidden(self, input_ids: Tensor, position_ids: Tensor, visible: Tensor, cache: DynamicCache | None) -> Tensor:
        output = self.network.model(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=visible,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return output.last_hidden_state

    def _head(self, hidden: Tensor, read: Tensor) -> Tensor:
        rows, columns = read[0], read[1] - self.spec.logit_shift
        return self.network.lm_head(hidden[rows, columns]).float()

    @property
    def adaptable(self) -> nn.Module:
        """Where adapters may go: everything but the output head."""
        return self.network.model

    @property
    def device(self) -> torch.device:
        return self.network.device

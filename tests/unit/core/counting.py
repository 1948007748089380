"""An engine that counts what it runs, for tests of what is run once only."""

from __future__ import annotations

from typing import Any

import torch

from locas_agent.inference import Engine


class Counting(Engine):
    """An engine that counts the tokens it runs, padding left out."""

    tokens = 0

    def hidden(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, *rest: Any, **options: Any
    ) -> torch.Tensor:
        ran = input_ids if attention_mask is None else attention_mask[:, -input_ids.shape[1] :]
        self.tokens += int(ran.sum()) if attention_mask is not None else ran.numel()
        return super().hidden(input_ids, attention_mask, *rest, **options)

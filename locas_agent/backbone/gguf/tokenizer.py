"""The tokenizer that a .gguf file describes, with its chat template.

The file names the rule by which text is split before tokens are looked up. Where transformers has no such rule it takes
GPT-2's without a word; the rules that keep digits apart are put right here.
"""

from __future__ import annotations

import logging
from typing import Any, cast

from tokenizers import normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.integrations.gguf.gguf_tokenizer_mapping import (
    GGUF_PRE_TOKENIZER_SPLITS,
    convert_gguf_tokenizer,
    get_gguf_tokenizer,
)

from locas_agent.backbone.gguf.header import Header
from locas_agent.errors import UnsupportedBackbone

logger = logging.getLogger(__name__)

_DIGITS_APART = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})
"""Rules under which each digit stands alone and the rest is split as in GPT-2."""
_AS_GPT2 = frozenset({"default", "gpt-2", "gpt2", "phi-2", "olmo", "mpt", "trillion", "jais"})
"""Rules that are GPT-2's."""
_COMPOSED = frozenset({"qwen2", "deepseek-r1-qwen", "qwen35"})
"""Rules of models whose own tokenizer composes letters and their marks first (NFC), of which the file says nothing."""


def tokenizer_of(header: Header) -> PreTrainedTokenizerBase:
    """Make the tokenizer of a file.

    Raises:
        UnsupportedBackbone: a kind of vocabulary that transformers cannot read from a .gguf file, or none.
    """
    try:
        architecture, described, settings = get_gguf_tokenizer(str(header.path))
        backend, _ = convert_gguf_tokenizer(architecture, described)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UnsupportedBackbone(
            f"{str(header.path)!r} holds no tokenizer that can be read: {error}; name the folder or hub id of the "
            "original checkpoint"
        ) from error
    rule = described.get("pre_tokenizer_type")
    if described["tokenizer_type"] == "gpt2" and rule not in GGUF_PRE_TOKENIZER_SPLITS:
        if rule in _DIGITS_APART:
            backend.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
            )
        elif rule is not None and rule not in _AS_GPT2:
            logger.warning(
                "%s names a rule of splitting text that is unknown here (%r): GPT-2's is taken, so some texts may get "
                "other tokens than in training",
                header.path.name,
                rule,
            )
    if rule in _COMPOSED:
        backend.normalizer = normalizers.NFC()
    turn = header.number("tokenizer.ggml.eot_token_id")
    if turn is not None and settings.get("chat_template") is not None:
        settings["eos_token"] = described["tokens"][turn]  # as the tokenizers of chat models have it
    made: Any = PreTrainedTokenizerFast
    return cast(PreTrainedTokenizerBase, made(tokenizer_object=backend, **settings))

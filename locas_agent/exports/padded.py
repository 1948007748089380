"""The padded backbone: the one checkpoint below everybody's adapters, and what it says of itself.

Its FFNs have zero neurons more, so it computes what the backbone does. It holds nobody's data.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from locas_agent.backbone import Backbone
from locas_agent.errors import ExchangeError
from locas_agent.exports.dense import write_checkpoint
from locas_agent.exports.places import check_free, placed
from locas_agent.exports.widening import check_same, set_width, slots_for, widened

BASE_NOTE = "locas_base.json"
"""Says of a padded backbone which one it is and how many neurons were added."""


class PaddedNote(BaseModel):
    """What stands beside a padded backbone."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: Literal["locas-padded-base"] = "locas-padded-base"
    """Tells our notes from other JSON."""
    backbone_fingerprint: str
    """Of the backbone without the padding: memories of it fit."""
    slots: int = Field(ge=1)
    """Neurons added to each FFN: the width of the widest memory that fits."""
    personal_data: Literal[False] = False
    """For programs that look for such files."""


def write_padded_base(backbone: Backbone, path: str | Path, *, slots: int) -> Path:
    """Write the backbone with zero neurons added to every FFN.

    The same function, with room for adapters of up to `slots` slots.

    One is enough for all users. It holds nobody's data.

    Args:
        backbone: what is padded.
        path: a folder that is not there yet.
        slots: neurons added to each FFN, at least the width of the widest memory.

    Raises:
        ExchangeError: the architecture or the place refuses it.
    """
    place = check_free(path)
    added = slots_for(backbone, slots, multiple=1)
    model = widened(backbone, torch.zeros(backbone.n_layers, 3, added, backbone.hidden_size))
    check_same(backbone, None, model)
    with placed(place) as folder:
        write_checkpoint(backbone, model, folder)
        note = PaddedNote(backbone_fingerprint=backbone.fingerprint, slots=added)
        (folder / BASE_NOTE).write_text(json.dumps(note.model_dump(), indent=2) + "\n", encoding="utf-8")
    return place


def read_note(padded: Path) -> PaddedNote:
    """Read what a padded backbone says of itself.

    Raises:
        ExchangeError: there is no such note, or it cannot be read.
    """
    try:
        return PaddedNote.model_validate_json((padded / BASE_NOTE).read_bytes())
    except (OSError, ValidationError) as error:
        raise ExchangeError(
            f"{padded.name!r} is no padded backbone: a file {BASE_NOTE} was looked for; name another place"
        ) from error


def check_padded(padded: Path, backbone: Backbone, width: int) -> int:
    """Return how many neurons a padded backbone has to spare.

    Raises:
        ExchangeError: it is none, of another backbone, or too narrow for a memory of this width.
    """
    note = read_note(padded)
    if note.backbone_fingerprint != backbone.fingerprint or note.slots < width:
        raise ExchangeError(
            f"{padded.name!r} pads the backbone {note.backbone_fingerprint[:12]} by {note.slots} neurons; this memory "
            f"needs {width} on {backbone.fingerprint[:12]}: name another place for a new one"
        )
    return note.slots


def outline_of_padded(padded: Path) -> Backbone:
    """Return the backbone that was padded, as far as adapters ask: names, shapes, dtype and fingerprint, no weights.

    A program that writes adapters for a server need not hold the model a second time.

    Args:
        padded: a folder that `write_padded_base` wrote.

    Raises:
        ExchangeError: it is none, or its files cannot be read.
    """
    note = read_note(padded)
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(padded, **options)
        set_width(config, -note.slots)
        with torch.device("meta"):
            model = cast(Any, AutoModelForCausalLM).from_config(config, dtype=config.dtype, attn_implementation="sdpa")
        tokenizer = AutoTokenizer.from_pretrained(padded, **options)
    except (OSError, ValueError, KeyError) as error:
        raise ExchangeError(f"{padded.name!r} holds no backbone that can be read: {type(error).__name__}") from error
    return Backbone(model, tokenizer, name=str(padded.absolute()), fingerprint=note.backbone_fingerprint)

"""Settings: what can be chosen, in which bounds, and why the default is what it is.

Every model is frozen and refuses unknown names. The whole configuration is saved, hashed, with every revision.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from locas_agent.types import Initialization, ScaleRule

Objective = Literal["self_study", "ntp", "sd", "mix"]
StoredAs = Literal["float32", "bfloat16", "int8"]
_Depth = r"(0(\.[0-9]+)?|1(\.0+)?)"
Layers = (
    Annotated[int, Field(ge=1)]
    | Annotated[str, Field(pattern=rf"^(auto|all|{_Depth}-{_Depth})$")]
    | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    | None
)
"""Which layers carry a memory; see `MemorySettings.layers`."""


MAX_SEED = (1 << 63) - 1
"""Largest seed that is saved with a revision."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class MemorySettings(_Settings):
    """The shape of a new memory."""

    width: int | None = Field(None, ge=1)
    """Slots per layer; None means 48, or as many as the backbone's FFN has neurons if that is less, and with rows from
    "inputs" as many as what is learnt takes: the memory grows. Origin: `docs/decisions.md`."""
    layers: Layers = "auto"
    """Which layers carry the memory: how many of the topmost, a range of depth such as "0.5-0.8" (0 is below the first
    layer, 1 above the last), a list of numbers from 0, or "all" (None too), as in the paper. "auto" is the last layer
    alone of a backbone of few layers, and the topmost third of a deeper one; nothing below the lowest changes, so the
    higher they are the faster they train. Origin: `docs/decisions.md`, placement."""
    initialization: Initialization | None = None
    """Rows a memory starts from: Gaussian ("random"), cloned from the most or least activated neurons or any, or the
    inputs of the FFN before what is to be answered ("inputs"): such slots answer to the user's questions and to little
    else. None is "random" beside the last layer alone and "inputs" at other depths. Origin: `docs/decisions.md`,
    initial rows."""
    scale_rule: ScaleRule = "none"
    """Output scale: mean norm of the down rows divided by the width ("width", the paper's), by its root ("sqrt"), or
    not ("none"); where rows start from inputs also by what slots answer on this backbone. Origin: `docs/decisions.md`,
    scale rule, what a slot gives."""
    stored_as: StoredAs = "float32"
    """What a revision's rows are saved as. "float32" is exact; "bfloat16" takes half and "int8" about a quarter of its
    bytes and round, see `memory.serialization.to_bytes`. Training goes on from what was saved, and the admission gate
    judges that. Origin: `docs/decisions.md`, int8."""

    @field_validator("layers")
    @classmethod
    def _in_order(cls, layers: Layers) -> Layers:
        if isinstance(layers, str) and "-" in layers:
            start, end = (float(part) for part in layers.split("-"))
            if start >= end:
                raise ValueError("memory.layers: a range of depth goes from the lower to the higher, such as 0.5-0.8")
        if isinstance(layers, tuple) and len(set(layers)) < len(layers):
            raise ValueError("memory.layers: a layer is named twice")
        return layers


class FormSettings(_Settings):
    """Forms of reading and writing given by hand; see `study/forms/`."""

    reading: str = "chat"
    """Form in which a turn is read."""
    reading_wide: str | None = None
    """Form in which a session is read; None is that of a turn."""
    writing: tuple[str, ...] = Field(("seed",), min_length=1)
    """Forms in which questions are written, the first first. "seed" alone asks in the format that the bundled backbone
    was trained on."""


class StudySettings(_Settings):
    """How the backbone writes study sets about a chunk of overflow."""

    forms: FormSettings | None = None
    """How the backbone is asked; None takes what is measured for it, once (`locas-agent calibrate`)."""

    scribe: bool | None = None
    """Whether a scribe writes and reads where the backbone is not one that was trained on the seed prompts. It is
    taught once for each backbone, which takes minutes to hours on a CPU; None waits where it takes no hours, see
    `consolidation/scribes.py`. False, or `forms` by hand, opens the answers of the bare backbone."""

    first_samples: int = Field(4, ge=1)
    """Questions sampled about every turn at first; one about which none is written is left alone."""
    samples_per_turn: int = Field(6, ge=1)
    """Questions sampled in each further round about a turn that still lacks wordings."""
    max_rounds: int = Field(4, ge=1)
    """Rounds a turn that carries a fact may take until it has `wordings_per_turn` kept items."""
    wordings_per_turn: int = Field(5, ge=1)
    """Kept items after which a turn is done."""
    negatives_per_piece: int = Field(32, ge=0)
    """Questions the chunk does not answer, sampled per chunk. Without them a memory makes the backbone invent
    (`docs/decisions.md`, negatives)."""
    probe_share: float = Field(0.4, ge=0, le=0.5)
    """Share of turns, among those with at least three wordings, of which one wording is held out to measure recall
    before and after."""
    temperature: float = Field(0.8, gt=0)
    """Sampling temperature of questions; answers are greedy."""
    max_question_tokens: int = Field(64, ge=8)
    """Longest question with its answer, in tokens."""
    max_answer_tokens: int = Field(24, ge=2)
    """Longest answer kept, in tokens; an answer that does not end by then is dropped."""
    max_piece_tokens: int = Field(512, ge=32)
    """Longest chunk of overflow put before the teacher, in tokens; half the backbone's context if that is less."""
    min_confidence: float = Field(0.35, ge=0, lt=1)
    """Least probability of the least likely token of an answer that is kept: what the teacher doubts is not learnt."""
    teacher_top_k: int = Field(16, ge=1)
    """Entries of the teacher's distribution kept per answer token; the rest is one bucket."""


class SourceSettings(_Settings):
    """Who may be learnt from, by role, name and the label `trust` of a turn.

    A label that stands nowhere here is not trusted: the teacher never reads such a turn. Origin: `docs/decisions.md`,
    who may be learnt from.
    """

    user: tuple[str, ...] = ("user", "import")
    """Labels of the user's turns that are learnt."""
    assistant: tuple[str, ...] = ("promised", "found")
    """Labels of the assistant's turns that are learnt; without one of them what it says is only the context of what the
    user says."""
    context: tuple[str, ...] = ("user", "import")
    """Labels of turns that the teacher reads beside the two above, no matter who says them."""
    named_speakers: bool = True
    """Where the user's turns carry names, a turn of the assistant that carries one is another person's, and follows
    `user`."""


class TrainingSettings(_Settings):
    """How a memory is trained."""

    objective: Objective = "self_study"
    """What is learnt from; see `training/losses.py`."""
    learning_rate: float | None = Field(None, gt=0)
    """Peak rate of AdamW; None follows from where the memory stands, see `training/schedule.py`."""
    max_steps: int | None = Field(None, ge=1)
    """Steps of one consolidation; None is 192 beside the last layer alone, and follows from the number of items at
    other depths. Origin: `docs/decisions.md`, steps and placement."""
    falling_steps: int = Field(72, ge=1)
    """Steps in which the rate falls to nothing, the last ones of a training; half of `max_steps` if that is less."""
    items_per_step: int | None = Field(None, ge=2)
    """Study items of one user in one step; None is 12 beside the last layer alone, fewer at other depths."""
    rehearsal_share: float | None = Field(None, ge=0, lt=1)
    """Share of the items that come from earlier sessions' study sets, once there are any. 0 forgets them; None is 0.3
    beside the last layer alone, and grows with the number of earlier facts at other depths."""
    negative_share: float | None = Field(None, ge=0, lt=1)
    """Share of the items that are questions never answered; None is 0.22 beside the last layer alone, and 0.2 at other
    depths."""
    question_noise: float | None = Field(None, ge=0, lt=1)
    """Share of a question's tokens left out at random each time it is trained on, so that the wording is not learnt by
    heart; None is none beside the last layer alone, and 0.15 at other depths (`docs/decisions.md`, noise)."""
    window_tokens: int | None = Field(None, ge=0)
    """Longest run of turns, other people's or the user's own, before the items of a step that are asked as in a running
    conversation; 0 leaves them out, None is 256 beside the last layer alone and 96 at other depths, where every
    second is up to four times as long. What is answered from weights alone is otherwise not answered behind a window
    (`docs/decisions.md`, windows, beginnings and long beginnings)."""
    found_facts: int | None = Field(None, ge=0)
    """Facts of one consolidation for which turns are put before the items of a step as a search would find them, mostly
    with the telling one among them; 0 leaves them out, None is 0 beside the last layer alone and 16 at other depths
    (`docs/decisions.md`, found groups)."""
    window_weight: float = Field(1.0, ge=0)
    """Weight of these items beside the mean of the others."""
    anchor_weight: float | None = Field(None, ge=0)
    """Weight of KL(bare backbone || with memory) on neutral text. None is 16 beside the last layer alone, and 96 at
    other depths, where such text is drawn in every sixth step; in every second without a local anchor."""
    local_anchor_weight: float | None = Field(None, ge=0)
    """Weight of what a memory adds to its layers on neutral text, relative to their FFNs, in every step; 0 leaves it
    out. None is 0 beside the last layer alone and where whole texts are learnt, and 48 otherwise
    (`docs/decisions.md`, local anchor)."""
    anchor_tokens: int | None = Field(None, ge=8)
    """Tokens of a row of neutral text at most; None is 96 on a backbone of few layers, and 320 on one of many
    (`docs/decisions.md`, long rows of neutral text)."""
    ntp_weight: float = Field(0.0, ge=0)
    """Weight of next-token loss on the raw turns beside self-study."""
    sd_weight: float = Field(1.0, ge=0)
    """Weight of `sd` in `mix`."""
    gradient_clip: float = Field(1.0, gt=0)
    """Largest gradient norm of one user; users do not share it."""
    max_batch_tokens: int = Field(2048, ge=64)
    """Tokens of one forward; a step over more users is split. Origin: two CPU cores (`docs/decisions.md`)."""
    seed: int = Field(0, ge=0, le=MAX_SEED)
    """Seed of sampling, of the initial rows and of the order of items."""

    def decay_steps_of(self, steps: int) -> int:
        """Return in how many of the last steps of a training of that many the rate falls."""
        return min(self.falling_steps, max(1, steps // 2))


class AdmissionSettings(_Settings):
    """What a trained memory must show before it replaces the former one."""

    min_gain: float = Field(0.05, ge=0, le=1)
    """Rise in recall of the new items that is worth a revision, unless they were known already."""
    max_old_loss: float = Field(0.1, ge=0, le=1)
    """Largest fall in recall of earlier items; beyond it a memory is trained again, with more of them, once."""
    max_drift_nats: float = Field(0.05, gt=0)
    """Largest mean KL(bare backbone || with memory) on neutral text."""


class WindowSettings(_Settings):
    """What goes into the prompt verbatim, and what is answered from it."""

    window_tokens: int = Field(256, ge=16)
    """Newest turns kept in the prompt, in tokens."""
    max_new_tokens: int = Field(48, ge=1)
    """Longest reply, in tokens, unless the call says otherwise."""
    least_certainty: float | None = Field(None, ge=0, lt=1)
    """Probability that a memory has to give the first token of an answer to be the one that writes it; below that the
    bare backbone answers, from the same prompt. 0 lets the memory write all answers; None is 0.5 on a deep backbone,
    where a memory stands beside several layers and is taught by self-study, and 0 elsewhere. Origin:
    `docs/decisions.md`, certainty."""

    def answer_tokens(self, asked: int | None) -> int:
        """Return the longest answer of a call that asked for this many tokens, or for nothing."""
        return self.max_new_tokens if asked is None else asked


class PolicySettings(_Settings):
    """When overflow is consolidated without being asked."""

    automatic: bool = True
    """Ask after each turn; otherwise only an explicit call consolidates."""
    overflow_tokens: int = Field(512, ge=1)
    """Pending overflow, in tokens, that is enough."""
    overflow_turns: int = Field(40, ge=1)
    """Pending overflow, in turns, that is enough."""
    max_age_seconds: float = Field(7 * 86400.0, gt=0)
    """Age of the oldest pending overflow turn that is enough, in seconds."""
    session_gap_seconds: float = Field(4 * 3600.0, gt=0)
    """Silence between two turns that ends a session; the overflow before it is then consolidated."""
    min_overflow_tokens: int = Field(64, ge=1)
    """Less than this is not worth a consolidation, whatever its age or the gap."""


class StoreSettings(_Settings):
    """How a store that is given by its URL keeps payloads. A ready store is told when it is made."""

    keep_payloads: int = Field(3, ge=1)
    """Different payloads kept of each user, the newest; older revisions are pruned and cannot be restored."""
    files: str | None = None
    """Where payloads beyond `inline_bytes` go: a folder, or any place fsspec can write to. Everybody who opens the
    database names the same place. None keeps all of them in the database."""
    inline_bytes: int = Field(32 << 20, ge=0)
    """Largest payload, in bytes, that lies in the database although there are files. Origin: `docs/decisions.md`, a
    payload's file."""


class LocasConfig(_Settings):
    """Everything that can be chosen."""

    memory: MemorySettings = MemorySettings()
    sources: SourceSettings = SourceSettings()
    study: StudySettings = StudySettings()
    training: TrainingSettings = TrainingSettings()
    admission: AdmissionSettings = AdmissionSettings()
    window: WindowSettings = WindowSettings()
    policy: PolicySettings = PolicySettings()
    store: StoreSettings = Field(StoreSettings(), exclude=True)
    """No part of what made a memory, and possibly a path of one machine: neither saved with a revision nor in the
    digest."""

    @model_validator(mode="after")
    def _consistent(self) -> LocasConfig:
        if (self.training.rehearsal_share or 0.0) + (self.training.negative_share or 0.0) >= 1:
            raise ValueError(
                "training.rehearsal_share and training.negative_share leave no room for new items: their sum must be "
                "under 1"
            )
        return self

    @property
    def least_certainty(self) -> float | None:
        """What `window.least_certainty` says; unless given, 0 where memories are taught another way than self-study."""
        given = self.window.least_certainty
        return 0.0 if given is None and self.training.objective != "self_study" else given

    def digest(self) -> str:
        """Return the SHA-256 of the settings, hexadecimal; saved with every revision."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

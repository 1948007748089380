"""How long, how fast and from what a memory is trained: what the settings leave open follows from where it stands.

It looks at the settings, the layers of the memory and the number of items; it runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from locas_agent.config import TrainingSettings
from locas_agent.memory.placement import LAST_LAYER
from locas_agent.study.items import NEGATIVE, PROBE, Item, fact_of

N = TypeVar("N", int, float)

LAST_LAYER_RATE, LAST_LAYER_STEPS, LAST_LAYER_ITEMS, LAST_LAYER_REHEARSAL = 1e-2, 192, 12, 0.3
"""Beside the last layer alone a step costs next to nothing. Origin: `docs/decisions.md`, steps."""
LAST_LAYER_NEGATIVES, DEEP_NEGATIVES = 0.22, 0.2
"""Shares of questions never answered. Origin: `docs/decisions.md`, steps and never told."""
LAST_LAYER_NOISE, DEEP_NOISE = 0.0, 0.15
"""Shares of a question's tokens that are left out. Origin: `docs/decisions.md`, noise."""
LAST_LAYER_VARIANTS, LAST_LAYER_WINDOW = 4, 256
DEEP_RATE, DEEP_ITEMS = 8e-3, 6
"""Peak rate and items of a step beside several layers or a lower one. Origin: `docs/decisions.md`, placement."""
DEEP_TEXT_RATE = 3e-4
"""Peak rate there where whole texts are learnt: every token of every turn pulls, and at 1e-3 the gate refuses what
comes of it. Origin: `docs/decisions.md`, rate of whole texts."""
DEEP_FOUND = 16
"""Groups behind turns that a search would find, beside several layers, among `DEEP_GROUPS`. Origin:
`docs/decisions.md`, found groups."""
DEEP_VARIANTS, DEEP_WINDOW = 2, 96
"""Fewer and shorter, since each is run once through the layers below, and a window with its questions once a step
through those above."""
PASSES, DRAWS_PER_FACT = 10, 32
"""How often each new item, and each new fact, is drawn at most beside several layers, where a step costs what runs
above the lowest: other wordings of a fact teach more than the same ones again."""
MIN_STEPS, MAX_STEPS = 16, 192
"""Fewest and most steps beside several layers; steps are multiples of `STEP_OF`, so that users share them."""
STEP_OF = 8
OLD_FACT = 0.5
"""Draws of an earlier fact for each of a new one, beside several layers: it is known already, and kept."""
MAX_REHEARSAL = 0.4
MORE_REHEARSAL = 0.6
"""Share of the items that come from earlier consolidations where a training with less forgot too many of them."""
SLOTS_PER_FACT, SLOTS_OF = 3, 8
"""New slots of a memory whose rows start from inputs, for each new fact; a multiple, so that users share steps."""
MOST_SLOTS = 88
"""Width beyond which a memory does not grow by itself."""
FORMER_PACE = 0.2
"""How fast slots of former consolidations move beside new ones, at depth: what they hold is answered in words that no
rehearsal has. Origin: `docs/decisions.md`, former slots."""
DEEP_GROUPS, GROUP_EVERY = 48, 2
"""Beginnings and found turns behind which the items of a step stand together, and steps from one such step to the next,
beside several layers. Origin: `docs/decisions.md`, beginnings."""
WINDOW_EVERY = 4
"""Steps from one row behind a window to the next beside several layers: such a row costs as much as all items of a
step."""
LAST_LAYER_ANCHOR, DEEP_ANCHOR, DEEP_ANCHOR_EVERY = 16.0, 96.0, 2
"""Weights of neutral text, and steps from one row of it to the next beside several layers. Origin:
`docs/decisions.md`, neutral text."""
DEEP_LOCAL_ANCHOR, LOCAL_ANCHOR_EVERY = 48.0, 6
"""Weight of the local anchor beside several layers, and steps from one row of neutral text to the next beside it.
Origin: `docs/decisions.md`, local anchor."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is decided before a training begins.

    Attributes:
        steps: how many.
        items_per_step: items of one user in one step.
        decay_steps: in how many of them, the last ones, the rate falls to nothing.
        learning_rate: peak rate of AdamW.
        rehearsal_share: share of the items that come from earlier consolidations.
        negative_share: share of the items that are questions never answered.
        groups: how many times all items of a step stand behind the same beginning, or the same found turns.
        group_every: steps from one such step to the next.
        window_every: steps from one row of items behind a window to the next.
        anchor_every: steps from one row of neutral text to the next.
        anchor_weight: of that row.
        local_anchor_weight: of the local anchor, which is looked at in each step; 0 leaves it out.
        question_noise: share of a question's tokens that are left out.
        variants: ways in which a new question is put.
        window_tokens: longest window.
        found_facts: facts of which the turns that a search would find for them stand before such groups, in place of
            beginnings.
        former_pace: how fast slots that hold something already move, in parts of the rate.
    """

    steps: int
    items_per_step: int
    decay_steps: int
    learning_rate: float
    rehearsal_share: float
    negative_share: float
    groups: int
    group_every: int
    window_every: int
    anchor_every: int
    anchor_weight: float
    local_anchor_weight: float
    question_noise: float
    variants: int
    window_tokens: int
    found_facts: int
    former_pace: float

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: four steps of warm-up, the peak, then a straight fall to a fiftieth."""
        return self.learning_rate * wsd_factor(step, self.steps - self.decay_steps, self.decay_steps)


def schedule_of(
    settings: TrainingSettings,
    layers: tuple[int, ...],
    new: Iterable[Item],
    earlier: Iterable[Item],
    *,
    is_memory: bool = True,
) -> Schedule:
    """Fill in what the settings leave open.

    Args:
        settings: what is given in them holds.
        layers: beside which the memory stands, numbered from the last (-1).
        new: items of this consolidation.
        earlier: items of former ones that still hold.
        is_memory: it is a memory beside FFNs that is trained, which the local anchor holds; nothing else has one.
    """
    is_last = layers == LAST_LAYER
    new, earlier = list(new), list(earlier)
    learnt = [item for item in new if item.kind not in (PROBE, NEGATIVE)]
    n_new, n_earlier = len(facts(learnt)), len(facts(earlier))
    share = _given(settings.rehearsal_share, _rehearsal(n_new, n_earlier, is_last=is_last))
    items_per_step = settings.items_per_step or (LAST_LAYER_ITEMS if is_last else DEEP_ITEMS)
    negative_share = _given(settings.negative_share, LAST_LAYER_NEGATIVES if is_last else DEEP_NEGATIVES)
    others = share * bool(n_earlier) + negative_share * any(item.kind == NEGATIVE for item in new + earlier)
    wanted = min(PASSES * len(learnt), DRAWS_PER_FACT * n_new) / (items_per_step * (1 - others))
    deep = min(MAX_STEPS, max(MIN_STEPS, STEP_OF * round(wanted / STEP_OF)))
    steps = settings.max_steps or (LAST_LAYER_STEPS if is_last else deep)
    by_itself = DEEP_LOCAL_ANCHOR if not is_last and settings.objective == "self_study" else 0.0
    local_anchor = _given(settings.local_anchor_weight, by_itself) if is_memory else 0.0
    return Schedule(
        steps,
        items_per_step,
        settings.decay_steps_of(steps),
        settings.learning_rate or (LAST_LAYER_RATE if is_last else _deep_rate(settings)),
        share,
        negative_share,
        0 if is_last else DEEP_GROUPS,
        GROUP_EVERY,
        1 if is_last else WINDOW_EVERY,
        1 if is_last else LOCAL_ANCHOR_EVERY if local_anchor else DEEP_ANCHOR_EVERY,
        _given(settings.anchor_weight, LAST_LAYER_ANCHOR if is_last else DEEP_ANCHOR),
        local_anchor,
        _given(settings.question_noise, LAST_LAYER_NOISE if is_last else DEEP_NOISE),
        LAST_LAYER_VARIANTS if is_last else DEEP_VARIANTS,
        _given(settings.window_tokens, LAST_LAYER_WINDOW if is_last else DEEP_WINDOW),
        _given(settings.found_facts, 0 if is_last else DEEP_FOUND),
        1.0 if is_last else FORMER_PACE,
    )


def _deep_rate(settings: TrainingSettings) -> float:
    """Return the peak rate beside several layers, by what is learnt there."""
    return DEEP_RATE if settings.objective == "self_study" else DEEP_TEXT_RATE


def _given(setting: N | None, otherwise: N) -> N:
    """Return a setting, where one is given."""
    return otherwise if setting is None else setting


def facts(items: Iterable[Item]) -> set[tuple[str, int, str]]:
    """Return the facts that items ask about; what is never answered is none."""
    return {fact_of(item) for item in items if item.kind != NEGATIVE}


def _rehearsal(new: int, earlier: int, *, is_last: bool) -> float:
    """Return the share of earlier items: it grows with the facts to be kept, so that each is still rehearsed."""
    if is_last or not earlier:
        return LAST_LAYER_REHEARSAL
    return min(MAX_REHEARSAL, max(LAST_LAYER_REHEARSAL, OLD_FACT * earlier / (OLD_FACT * earlier + new)))


def wsd_factor(step: int, decay_start: int, decay_steps: int) -> float:
    """Return the learning rate of a step as a share of its peak.

    Four steps of warm-up, the peak, then a straight fall to a fiftieth.
    """
    return min(1.0, (step + 1) / 4) * min(1.0, max(0.02, 1 - (step + 1 - decay_start) / decay_steps))

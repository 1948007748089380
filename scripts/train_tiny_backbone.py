"""Train the bundled backbone `tiny` from the generator in this repository; on 2 CPU cores it takes about 50 minutes.

    python scripts/train_tiny_backbone.py --out build/tiny            train, or go on from the last checkpoint
    python scripts/train_tiny_backbone.py --out build/tiny --export locas_agent/backbone/tiny

Everything follows from --seed and --steps: document i is drawn from (seed, i), so an interrupted run resumes on the
same data. Checkpoints are safetensors: weights, both optimisers' state and the step.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

sys.path[:0] = [str(Path(__file__).parent)]
from tiny_backbone.documents import Document, Documents

VOCABULARY = 2048
CONTEXT_TOKENS = 1024
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LENGTHS = (96, 160, 256, 384, 512, 768, CONTEXT_TOKENS)
POOL_BATCHES = 10
HELD_OUT_DOCUMENTS = 10_000_000
"""Documents from here on are never trained on."""


def train_tokenizer(documents: Documents, *, sample: int) -> Tokenizer:
    """Train a byte-level BPE on drawn documents; digits stay single, as in Qwen."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (
        f"{message.role}\n{message.content}"
        for index in range(sample)
        for message in documents.draw(HELD_OUT_DOCUMENTS + index)
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class Encoder:
    """Documents to token ids and per-token loss weights, in the chat template's form."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.end, self.start, self.stop = (tokenizer.token_to_id(token) for token in SPECIAL)
        self.newline = tokenizer.encode("\n").ids

    def encode(self, document: Document) -> tuple[list[int], list[float]]:
        """Return ids and weights; the weight at position t is that of predicting token t."""
        ids: list[int] = []
        weights: list[float] = []
        for message in document:
            content = self.tokenizer.encode(message.content).ids
            if not message.role:
                ids += content
                weights += [message.weight] * len(content)
                continue
            head = [self.start, *self.tokenizer.encode(f"{message.role}\n").ids]
            ids += [*head, *content, self.stop, *self.newline]
            weights += [0.0] * len(head) + [message.weight] * (len(content) + 1) + [0.0] * len(self.newline)
        return ids[:CONTEXT_TOKENS], weights[:CONTEXT_TOKENS]


def batches_of(
    documents: Documents, encoder: Encoder, pool: int, *, batch_tokens: int, ease: float
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Draw one pool of documents and cut it into batches of one padded length each, shuffled; shapes (B, T)."""
    count = POOL_BATCHES * batch_tokens // 230
    drawn = [encoder.encode(documents.draw(pool * 100_000 + index, ease=ease)) for index in range(count)]
    batches = []
    for shorter, length in zip((1, *LENGTHS), LENGTHS, strict=False):
        fitting = [item for item in drawn if shorter < len(item[0]) <= length]
        rows = batch_tokens // length
        for start in range(0, len(fitting), rows):
            chunk = fitting[start : start + rows]
            ids = torch.zeros(len(chunk), length, dtype=torch.long)
            weights = torch.zeros(len(chunk), length)
            for row, (tokens, values) in enumerate(chunk):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                weights[row, : len(values)] = torch.tensor(values)
            batches.append((ids, weights))
    order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(pool))
    return [batches[int(index)] for index in order]


def weighted_loss(model: Qwen3ForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted mean negative log-likelihood in nats; logits only where a weight is positive."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        wanted = weights[:, 1:] > 0
        logits = model.lm_head(hidden[wanted])
    losses = cross_entropy(logits.float(), ids[:, 1:][wanted], reduction="none")
    chosen = weights[:, 1:][wanted]
    return (losses * chosen).sum() / chosen.sum()


@dataclass(frozen=True)
class Phase:
    """A stretch of training.

    Its last step (exclusive), learning rate, and the share of short dialogues at its start and end.
    """

    until: int
    rate: float
    ease: tuple[float, float]


PHASES = (
    Phase(1500, 1e-3, (1.0, 0.8)),
    Phase(3000, 1e-3, (0.8, 0.4)),
    Phase(5600, 1e-3, (0.4, 0.1)),
)
"""Steps of about 3,200 tokens. Copying is learnt on short dialogues first; three times the rate learnt words, but no
copying in 2,000 steps."""
STEPS = PHASES[-1].until
DECAY_FROM = 3000


def phase_at(step: int) -> tuple[float, float]:
    """Return learning rate and share of short dialogues at a step.

    The rate falls linearly to zero from `DECAY_FROM` on.
    """
    step = min(step, STEPS - 1)  # the last pool is finished once begun
    start = 0
    for phase in PHASES:
        if step < phase.until:
            break
        start = phase.until
    through = (step - start) / (phase.until - start)
    decay = min(1.0, (step + 1) / 100, max(0.01, (STEPS - step) / (STEPS - DECAY_FROM)))
    return phase.rate * decay, phase.ease[0] + through * (phase.ease[1] - phase.ease[0])


def build_model() -> Qwen3ForCausalLM:
    """Return the untrained model; residual outputs start small so that depth does not amplify noise."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT_TOKENS,
        rope_theta=10_000.0,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.mul_(1 / math.sqrt(2 * config.num_hidden_layers))
    return model


class Optimizers:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms, and their state as plain tensors."""

    def __init__(self, model: Qwen3ForCausalLM) -> None:
        named = dict(model.named_parameters())
        inner = {name: weight for name, weight in named.items() if weight.ndim == 2 and ".layers." in name}
        rest = {name: weight for name, weight in named.items() if name not in inner}
        self.muon = torch.optim.Muon(
            inner.values(), lr=1.0, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        )
        self.adamw = torch.optim.AdamW(rest.values(), lr=1.0, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.names = {"muon": list(inner), "adamw": list(rest)}

    def step(self, rate: float) -> None:
        """Make one step of both at the given learning rate and clear the gradients."""
        for optimizer in (self.muon, self.adamw):
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, torch.Tensor]:
        """Return every state tensor under a flat name."""
        flat = {}
        for label, optimizer in (("muon", self.muon), ("adamw", self.adamw)):
            for index, values in optimizer.state_dict()["state"].items():
                flat |= {f"{label}/{index}/{key}": torch.as_tensor(value).contiguous() for key, value in values.items()}
        return flat

    def restore(self, flat: dict[str, torch.Tensor]) -> None:
        """Put back what `state` returned."""
        for label, optimizer in (("muon", self.muon), ("adamw", self.adamw)):
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, value in flat.items():
                owner, index, key = name.split("/")
                if owner == label:
                    state.setdefault(int(index), {})[key] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def save_checkpoint(path: Path, model: Qwen3ForCausalLM, optimizers: Optimizers, step: int, pool: int) -> None:
    """Write weights and optimiser state, first beside, then over the former checkpoint."""
    tensors = {f"model/{name}": weight.detach().contiguous() for name, weight in model.named_parameters()}
    tensors |= {f"optimizer/{name}": value for name, value in optimizers.state().items()}
    fresh = path.with_suffix(".new")
    save_file(tensors, fresh, metadata={"step": str(step), "pool": str(pool)})
    os.replace(fresh, path)


def load_checkpoint(path: Path, model: Qwen3ForCausalLM, optimizers: Optimizers) -> tuple[int, int]:
    """Restore what `save_checkpoint` wrote; return the next step and pool."""
    from safetensors import safe_open

    tensors = load_file(path)
    model.load_state_dict(
        {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}, strict=False
    )
    optimizers.restore({k.removeprefix("optimizer/"): v for k, v in tensors.items() if k.startswith("optimizer/")})
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    return int(metadata["step"]), int(metadata["pool"])


@torch.no_grad()
def answer_accuracy(model: Qwen3ForCausalLM, documents: Documents, encoder: Encoder) -> dict[str, float]:
    """Return the share of spans of each weight, in unseen documents, that greedy decoding would reproduce whole."""
    hits: dict[float, list[float]] = {}
    for index in range(96):
        ids, weights = encoder.encode(documents.draw(HELD_OUT_DOCUMENTS * 2 + index))
        with torch.autocast("cpu", torch.bfloat16):
            guess = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].argmax(-1).tolist()
        position = 1
        while position < len(ids):
            end = position
            while end < len(ids) and weights[end] == weights[position]:
                end += 1
            if weights[position] == 1.0:
                known = ids[position : position + 2] != encoder.tokenizer.encode("I do").ids[:2]
                hits.setdefault(float(known), []).append(float(guess[position - 1 : end - 1] == ids[position:end]))
            position = end
    return {("known" if key else "unknown"): sum(values) / len(values) for key, values in sorted(hits.items())}


def export(model: Qwen3ForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the folder that ships: bfloat16 weights, tokenizer with chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL[0],
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[2],
        additional_special_tokens=[SPECIAL[1]],
        model_max_length=CONTEXT_TOKENS,
    )
    wrapped.chat_template = TEMPLATE
    wrapped.save_pretrained(folder)


def main() -> None:
    """Train, log one line per 50 steps as JSON, and export when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and log")
    parser.add_argument("--export", type=Path, help="write the trained backbone here at the end")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--stop-after", type=int, help="stop at this step without touching the schedule; a later call goes on"
    )
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    documents = Documents(options.seed)
    path = options.out / "tokenizer.json"
    if not path.exists():
        train_tokenizer(documents, sample=6000).save(str(path))
    tokenizer = Tokenizer.from_file(str(path))
    encoder = Encoder(tokenizer)
    model = build_model()
    optimizers = Optimizers(model)
    checkpoint = options.out / "checkpoint.safetensors"
    step, pool = load_checkpoint(checkpoint, model, optimizers) if checkpoint.exists() else (0, 0)
    model.model.compile(dynamic=True)
    print(json.dumps({"parameters": sum(w.numel() for w in model.parameters()), "step": step}), flush=True)
    started, first = time.time(), step
    last = min(STEPS, options.stop_after or STEPS)
    while step < last:
        # A pool is finished once begun, so that a resumed run sees the same batches.
        for ids, weights in batches_of(
            documents, encoder, pool, batch_tokens=options.batch_tokens, ease=phase_at(step)[1]
        ):
            loss = weighted_loss(model, ids, weights)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizers.step(phase_at(step)[0])
            step += 1
            if step % 50 == 0:
                line = {
                    "step": step,
                    "loss": round(loss.item(), 4),
                    "seconds_per_step": round((time.time() - started) / (step - first), 3),
                }
                if step % 250 == 0:
                    line |= answer_accuracy(model, documents, encoder)
                print(json.dumps(line), flush=True)
        pool += 1
        save_checkpoint(checkpoint, model, optimizers, step, pool)
    if options.export:
        export(model, tokenizer, options.export)


if __name__ == "__main__":
    main()

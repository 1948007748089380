"""A dense export in a process that has never heard of this package.

Token for token what the attached memory generates.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from locas_agent.backbone import Backbone
from locas_agent.exports.dense import merge, write_dense
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.training.initialization import initialize
from tests.conftest import byte_tokenizer
from tests.unit.core.architectures import SUPPORTED, build

NEW_TOKENS = 12
TIE = 1e-3
"""Logits closer than this are told apart by rounding: a hundred times what fp32 moves a logit of these models by."""

PROGRAM = """
import json, sys
import torch
from transformers import AutoModelForCausalLM
asked, answers = json.loads(sys.stdin.read()), {}
for folder, prompt in asked:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([prompt])
    how = {"do_sample": False, "return_dict_in_generate": True, "output_scores": True}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=int(sys.argv[1]), **how)
    ahead = [float(best - second) for best, second in (scores[0].topk(2).values for scores in out.scores)]
    answers[folder] = [out.sequences[0, len(prompt):].tolist(), ahead]
OURS = ("locas_agent", "locas_storage", "langchain_locas")
ours = sorted(name for name in sys.modules if name.partition(".")[0] in OURS)
print(json.dumps({"answers": answers, "ours": ours}))
"""


def taught(backbone: Backbone, *, layers: int | None) -> LocasMemory:
    memory = initialize(backbone, [], width=6, layers=layers, method="random_index", scale_rule="none", seed=1)
    memory.down_rows.copy_(torch.randn(memory.down_rows.shape, generator=torch.Generator().manual_seed(1)))
    strong = {
        "gemma": 50.0,
        "tiny": 1000.0,
    }  # where one token is far ahead of all others, more is needed to change what is said
    memory.scale.mul_(strong.get(backbone.name, 4.0))
    return memory


def test_dense_export_generates_the_same_tokens_in_plain_transformers(tmp_path: Path) -> None:
    backbones = {name: Backbone(build(name), byte_tokenizer(), name=name) for name in sorted(SUPPORTED)} | {
        "tiny": Backbone.load("tiny")
    }
    ways = [(name, "write_dense") for name in backbones] + [(name, "save_pretrained") for name in ("qwen3", "tiny")]
    asked, expected, bare, stops = [], {}, {}, {}
    for name, how in ways:
        backbone = backbones[name]
        memory = taught(backbone, layers=1 if name in ("tiny", "phi3") else None)
        folder = str(tmp_path / f"{name} by {how}")
        stops[folder] = backbone.stop_ids
        if how == "write_dense":
            write_dense(backbone, memory, folder, multiple=64)
        else:
            merge(backbone, memory).save_pretrained(folder)
        prompt = backbone.encode_chat([{"role": "user", "content": "What is my dog called?"}])
        asked.append((folder, prompt))
        batch = MemoryBatch.of([memory], backbone)
        engine = Engine(backbone)
        expected[folder] = list(engine.generate([prompt], memory=batch, max_new_tokens=NEW_TOKENS)[0].ids)
        bare[folder] = list(engine.generate([prompt], max_new_tokens=NEW_TOKENS)[0].ids)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(NEW_TOKENS)],
        input=json.dumps(asked),
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["ours"] == []
    assert set(report["answers"]) == set(expected)
    for folder, (answer, ahead) in report["answers"].items():
        ends = [at for at, token in enumerate(answer) if token in stops[folder]]
        answer = answer[: ends[0] if ends else None]
        # The two sum in another order: where two tokens are as good as equal, either may come first, and what follows
        # differs.
        ties = [at for at, lead in enumerate(ahead) if lead < TIE]
        upto = ties[0] if ties else None
        assert answer[:upto] == expected[folder][:upto], folder
        assert upto is None or upto >= NEW_TOKENS / 2, folder  # so something was compared
        assert expected[folder]
    assert [
        folder for folder in expected if expected[folder] == bare[folder]
    ] == []  # the memories do change what is said

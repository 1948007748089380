"""Teach a backbone's scribe for as long as one that ships, and put it among those.

    python -m scripts.ship_scribe --backbone smollm2
    python -m scripts.ship_scribe --backbone qwen.gguf --steps 160 --width 64

The first takes forty minutes on one core, the second an hour. What it writes replaces the one that shipped before.
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

from locas_agent.backbone import Backbone
from locas_agent.config import LocasConfig
from locas_agent.consolidation.course import SHIPPED, Course, teach_scribe
from locas_agent.consolidation.learner import Learner
from locas_agent.consolidation.scribes import KEPT_AS
from locas_agent.inference import Engine
from locas_agent.memory.serialization import as_stored, to_bytes


def main() -> None:
    """Read the options, teach, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="'smollm2', a folder, a .gguf file, or a hub id")
    parser.add_argument("--steps", type=int, default=SHIPPED.steps, help="of the course")
    parser.add_argument("--width", type=int, default=SHIPPED.width, help="slots per layer")
    options = parser.parse_args()
    engine = Engine(Backbone.load(options.backbone, device="cpu", dtype="bfloat16"))
    learner = Learner(engine, LocasConfig())

    def told(_: str, step: int, steps: int) -> None:
        if step % 16 == 0:
            print(f"step {step} of {steps}", flush=True)

    course = Course(options.steps, options.width)
    scribe = teach_scribe(engine, learner.last_layer, learner.neutral, course=course, progress=told)
    place = Path(str(files("locas_agent.study.scribe"))) / "taught" / f"{scribe.fingerprint}.safetensors"
    place.write_bytes(to_bytes(as_stored(scribe, dtype=KEPT_AS), dtype=KEPT_AS))
    print(place)


if __name__ == "__main__":
    main()

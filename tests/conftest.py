"""Fixtures of every test.

A tiny random backbone, one thread unless OMP_NUM_THREADS says more, no network, no LOCAS_* settings of the machine, and
nothing read from or written to the user's cache folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("TRITON_INTERPRET", "1")  # before transformers imports it: its kernels are tested without a GPU
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; processes that a test starts inherit it

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from locas_agent.backbone import Backbone
from locas_agent.config import FormSettings, StudySettings
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory
from locas_agent.study.forms.known import _path as kept_at
from locas_agent.study.forms.known import calibration_of
from locas_agent.training.initialization import initialize
from tests.postgres_server import postgres_server, postgres_url  # noqa: F401  fixtures for every test
from tests.rounding import _model_runs_in_marked_tests_only, pytest_collection_modifyitems  # noqa: F401  for every test

pytest.register_assert_rewrite(
    "locas_storage.conformance"
)  # before any test imports it: its failures then show both sides
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

MakeBackbone = Callable[..., Backbone]
MakeBackboneFolder = Callable[..., str]
MakeMemory = Callable[..., LocasMemory]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, then the three control tokens; 259 in all."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[2], pad_token=SPECIAL[0])
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_model(seed: int = 0) -> Qwen3ForCausalLM:
    """Two layers of the Qwen3 architecture with random weights."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=258,
        pad_token_id=256,
    )
    return Qwen3ForCausalLM(config)


@pytest.fixture(autouse=True, scope="session")
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for what is kept beside the user's own files, here and in processes that a test starts."""
    folder = tmp_path_factory.mktemp("user-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("LOCAS_"):
            monkeypatch.delenv(name)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def make_backbone() -> MakeBackbone:
    """Build a backbone of its own, for tests that change one; `make_backbone(seed=1)` has other weights."""

    def make(seed: int = 0) -> Backbone:
        return Backbone(tiny_model(seed), byte_tokenizer(), name=f"random-{seed}")

    return make


@pytest.fixture(scope="session")
def make_backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> MakeBackboneFolder:
    """Save the tiny random backbone, for whoever names one by its path.

    `reach` is its context in tokens, that is in bytes.
    """

    def make(reach: int | None = None) -> str:
        folder = tmp_path_factory.mktemp("backbone")
        model = tiny_model()
        if reach is not None:
            model.config.max_position_embeddings = reach
        model.save_pretrained(folder)
        byte_tokenizer().save_pretrained(folder)
        return str(folder)

    return make


@pytest.fixture(scope="session")
def backbone_folder(make_backbone_folder: MakeBackboneFolder) -> str:
    """A folder with the tiny random backbone as it is.

    What study asks leaves hardly room in its context: each letter is a chunk of its own, and a consolidation takes
    seconds. Modules that consolidate with it have one of their own, of a longer reach.
    """
    return make_backbone_folder()


@pytest.fixture
def measured_before(
    backbone_folder: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache folder that says of the random backbone, which reads nothing, that it is asked as the bundled one is.

    Here and in processes that the test starts, so that they come to what follows a measurement.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("measured")))
    engine = Engine(Backbone.load(backbone_folder))
    record = calibration_of(engine, StudySettings(forms=FormSettings()))
    path = kept_at(record.fingerprint)
    path.parent.mkdir(parents=True)
    path.write_text(record.model_dump_json(), encoding="utf-8")


@pytest.fixture(scope="session")
def backbone(make_backbone: MakeBackbone) -> Backbone:
    """The shared tiny random backbone; never change it."""
    return make_backbone()


@pytest.fixture(scope="session")
def engine(backbone: Backbone) -> Engine:
    """An engine on the shared backbone."""
    return Engine(backbone)


@pytest.fixture(scope="session")
def make_memory(backbone: Backbone) -> MakeMemory:
    """A memory that changes logits a lot: down rows random, scale 1. `make_memory(seed, width=4, on=backbone)`."""

    def make(seed: int = 0, *, width: int = 4, on: Backbone | None = None, down: float = 1.0) -> LocasMemory:
        memory = initialize(on or backbone, [], width=width, method="random_index", scale_rule="none", seed=seed)
        generator = torch.Generator().manual_seed(seed + 1000)
        memory.down_rows.copy_(down * torch.randn(memory.down_rows.shape, generator=generator))
        memory.scale.fill_(1.0)
        return memory

    return make

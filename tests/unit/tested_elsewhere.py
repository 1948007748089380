"""Modules without a test file of their name in the folder of their package: where they are tested.

A line holds a module or a whole package, and a file or folder of tests. The longest line that fits counts. The list
shrinks: a line that no module needs any more fails.
"""

TESTED_ELSEWHERE = {
    # The faces and what holds them together: every test of a verb, by what the verb is for.
    "locas_agent": "tests/unit/agent",
    "locas_agent.config": "tests/integration/test_cli_config.py",
    "locas_agent.errors": "tests/unit/test_house.py",
    "locas_agent.import_export": "tests/integration/test_memory_files.py",
    # One subject, several modules: split, each half would need the other's fixtures.
    "locas_agent.backbone": "tests/unit/backbone/test_model.py",
    "locas_agent.backbone.gguf": "tests/unit/backbone/test_gguf.py",
    "locas_agent.backbone.hooks": "tests/unit/memory/test_attach.py",
    "locas_agent.consolidation": "tests/unit/consolidation/test_worker.py",
    "locas_agent.exports": "tests/unit/exports/test_exports.py",
    "locas_agent.inference": "tests/unit/inference/test_engine.py",
    "locas_agent.memory.batch": "tests/unit/memory/test_attach.py",
    "locas_agent.paper.mlp": "tests/unit/paper/test_mlp.py",
    "locas_agent.server": "tests/unit/server/test_app.py",
    "locas_agent.serving.streams": "tests/unit/serving/test_one_at_a_time.py",
    "locas_agent.study": "tests/unit/study/test_self_study.py",
    "locas_agent.study.dates": "tests/unit/study/test_dates.py",
    "locas_agent.study.forms": "tests/unit/study/test_forms.py",
    "locas_agent.study.strategies": "tests/integration/test_own_study.py",
    "locas_agent.training": "tests/unit/training",
    # Measurements and commands: run whole, as a user runs them.
    "locas_agent.benchmarks": "tests/unit/benchmarks/test_quick.py",
    "locas_agent.cli": "tests/integration",
    "locas_agent.mcp_server": "tests/unit/mcp_server",
    "locas_agent.evaluation": "tests/unit/evaluation",
    # A store is tested through its contract: what it does with rows is its own affair.
    "locas_storage": "tests/unit/storage",
    # Adapters are tested through LangChain's own interfaces.
    "langchain_locas": "tests/unit/langchain",
    "locas_frameworks": "tests/unit/frameworks",
    # What needs a cluster is run on one by `make reliability`.
    "locas_ray": "tests/unit/on_ray",
    "locas_vllm": "tests/unit/vllm_plugin",  # a folder called vllm would be found in the place of vLLM
}

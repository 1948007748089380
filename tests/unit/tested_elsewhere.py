"""Modules without a test file of their name: where they are tested, and so why they have none.

A line holds a module or a whole package, and a file or folder of tests. The longest line that fits counts. The list
shrinks: a line that no module needs any more fails.
"""

TESTED_ELSEWHERE = {
    # The faces and what holds them together: every test of a verb.
    "locas_agent.agent": "tests/unit/agent",
    "locas_agent.aio": "tests/unit/agent/test_crews.py",
    "locas_agent.config": "tests/integration/test_cli_config.py",
    "locas_agent.errors": "tests/unit/test_house.py",
    "locas_agent.import_export": "tests/integration/test_exchange.py",
    "locas_agent.plots": "tests/unit/core/test_stats.py",
    "locas_agent.results": "tests/unit/agent",
    "locas_agent.runtime": "tests/unit/agent",
    "locas_agent.types": "tests/unit/agent",
    "locas_agent.user": "tests/unit/agent",
    # One subject, several modules.
    "locas_agent.backbone": "tests/unit/core/test_backbone.py",
    "locas_agent.backbone.hooks": "tests/unit/core/test_attach.py",
    "locas_agent.consolidation": "tests/unit/agent/test_worker.py",
    "locas_agent.consolidation.admission": "tests/unit/learning/test_gate.py",
    "locas_agent.consolidation.learner": "tests/integration/test_main_job.py",
    "locas_agent.consolidation.remarks": "tests/unit/learning/test_sources.py",
    "locas_agent.conversation.token_count": "tests/unit/agent/test_arguments.py",
    "locas_agent.exports": "tests/unit/core/test_exports.py",
    "locas_agent.inference": "tests/unit/core/test_engine.py",
    "locas_agent.memory": "tests/unit/core/test_memory.py",
    "locas_agent.paper.mlp": "tests/unit/core/test_mlp.py",
    "locas_agent.server": "tests/unit/server/test_app.py",
    "locas_agent.serving.streams": "tests/unit/serving/test_one_at_a_time.py",
    "locas_agent.serving.tool_calls": "tests/unit/serving/test_stream_filter.py",
    "locas_agent.study": "tests/unit/learning/test_study.py",
    "locas_agent.study.chunking": "tests/unit/learning/test_pieces.py",
    "locas_agent.study.forms": "tests/unit/learning/test_forms.py",
    "locas_agent.study.matching": "tests/unit/learning/test_seeds_and_answers.py",
    "locas_agent.study.prompts": "tests/unit/learning/test_seeds_and_answers.py",
    "locas_agent.study.strategies": "tests/integration/test_own_study.py",
    "locas_agent.study.forms.untold": "tests/unit/learning/test_opened.py",
    "locas_agent.training": "tests/unit/learning",
    # Measurements and commands: run whole, as a user runs them.
    "locas_agent.benchmarks": "tests/unit/benchmarks/test_quick.py",
    "locas_agent.cli": "tests/integration",
    "locas_agent.evaluation": "tests/unit/evaluation",
    "locas_agent.evaluation.synthetic": "tests/unit/learning/test_people.py",
    # A store is tested through its contract: what it does with rows is its own affair.
    "locas_storage": "tests/unit/storage",
    "locas_storage.conformance": "tests/unit/storage/test_store_contract.py",
    "locas_storage.in_memory": "tests/unit/storage/test_store_contract.py",
    "locas_storage.records": "tests/unit/storage/test_store_records.py",
    # Adapters are tested through LangChain's own interfaces.
    "langchain_locas": "tests/unit/langchain",
}

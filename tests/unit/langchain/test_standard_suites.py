"""The gate of LangChain's standard suites: without a network enough of them pass, and none is excused.

Counts in a process of its own.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests import forked

ROOT = Path(__file__).resolve().parents[3]
SUITES = Path(__file__).with_name("standard_suites.py")
AT_LEAST = {"ChatModel": 45, "Tools": 20, "Guard": 2}
NOT_APPLICABLE = (
    "init_from_env_params not specified",  # no key to take from the environment
    "Model is not serializable",  # the memory is a live object
    "model_override_value not specified",  # a memory belongs to one backbone: a call cannot name another
    "json mode",  # structured output is a call of a tool
    "PDF",
    "audio",
    "image",
    "Anthropic inputs",
    "VCR",  # nothing is sent, so nothing can be recorded
)


def suite(case: ElementTree.Element) -> str:
    """Name the standard that a case belongs to."""
    name = case.get("classname", "").rpartition(".Test")[2]
    return {"Unit": "ChatModel", "Integration": "ChatModel", "Guard": "Guard"}.get(name, "Tools")


@pytest.mark.rounding  # in a process of its own
@pytest.mark.slow
def test_standard_suites_pass_without_excuse(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    options = ("-p", "tests.unit.langchain.no_network", "-p", "no:cacheprovider", f"--junitxml={report}")
    options = ("-W", "ignore::pytest.PytestAssertRewriteWarning", *options)  # of plugins that are imported already
    done = forked.run("-m", "pytest", *options, str(SUITES), folder=ROOT, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = ElementTree.parse(report).getroot().findall(".//testcase")
    skips = [skip for case in cases for skip in case.findall("skipped")]
    # Counted, for a module that cannot be imported skips without a word.
    passed = Counter(suite(case) for case in cases if case.find("skipped") is None)
    assert {name: count for name, count in passed.items() if count < AT_LEAST[name]} == {}
    assert set(passed) == set(AT_LEAST)
    assert [skip.get("message") for skip in skips if skip.get("type") == "pytest.xfail"] == []
    assert [
        skip.get("message")
        for skip in skips
        if not any(reason in str(skip.get("message")) for reason in NOT_APPLICABLE)
    ] == []

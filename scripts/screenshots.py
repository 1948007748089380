"""Pictures of the server's pages for docs/serving.md: a made-up person on the bundled backbone, in a real browser.

    python -m scripts.screenshots          # writes docs/images/inspector-*.png; a few minutes, most of it learning

Needs Debian's `chromium` and `chromium-driver`.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from locas_agent import LocasConfig
from locas_storage import UserKey, open_store
from tests.integration.browser import chromium, press, wait_for_text, write
from tests.integration.server_process import ServerProcess, serving

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
SAID = (
    "My dog is called Zorbin.",
    "I live in Tromso.",
    "My sister is called Mirella.",
    "Good night.",
    "See you tomorrow.",
)
CONFIG = LocasConfig.model_validate(
    {
        "window": {"window_tokens": 16},
        "policy": {"overflow_tokens": 20, "overflow_turns": 2, "min_overflow_tokens": 1},
    }
)


def told(server: ServerProcess) -> str:
    """Have Ada say something and wait until it is learnt; return her key."""
    key = server.key(user="ada")
    messages: list[Any] = []
    with server.client(key) as client:
        for text in SAID:
            messages.append({"role": "user", "content": text})
            made = client.chat.completions.create(model="tiny", messages=messages)
            messages.append({"role": "assistant", "content": made.choices[0].message.content})
    with closing(open_store(server.store)) as store:
        while store.queue.jobs() or store.revision(UserKey("default", "ada")) is None:
            time.sleep(1)
    return key


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="locas-pictures-") as folder:
        config = Path(folder) / "config.json"
        config.write_text(CONFIG.model_dump_json())
        store, log = f"sqlite:///{folder}/locas.db", Path(folder) / "log"
        with serving(store, log, "--config", str(config)) as server, chromium("--hide-scrollbars") as browser:
            key = told(server)
            browser.set_window_size(960, 760)
            browser.get(f"http://127.0.0.1:{server.port}/inspect")
            write(browser, "key", key + Keys.ENTER)
            wait_for_text(browser, "Current revision")
            press(browser, "Ask")
            write(browser, "question", "What is my dog called?")
            press(browser, "Ask with and without the memory")
            browser.save_screenshot(str(IMAGES / "inspector-ask.png"))
            browser.execute_cdp_cmd(
                "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
            )
            press(browser, "What was said")
            last = browser.find_elements(By.TAG_NAME, "article")[-1]
            last.find_element(By.TAG_NAME, "summary").click()
            browser.execute_script("arguments[0].scrollIntoView()", last)
            browser.save_screenshot(str(IMAGES / "inspector-turns.png"))


if __name__ == "__main__":
    main()

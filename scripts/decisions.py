"""Keep each decision as a file of its own, and `docs/decisions.md` as their index.

    python -m scripts.decisions      # what was written into the index as a section becomes a file

A decision is a section `## DATE · TITLE` at the end of docs/decisions.md, or a file docs/decisions/NNNN-title.md with
the title as `# DATE · TITLE`. Nothing of a section is changed on its way into a file but links to other pages.
Where two branches gave one number to two files, the later by name gets the next free one.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
INDEX, FOLDER = DOCS / "decisions.md", DOCS / "decisions"
_SECTION = re.compile(r"^## (?P<title>\d{4}-\d\d-\d\d · .+)\n", re.MULTILINE)
_PAGE = re.compile(r"\]\(((?:\.\./)*[\w/.-]+\.md)")
_HEAD = """# Decisions

One file for each choice: the options, the choice, the reason, and the figure that decided it where there is one.
Oldest first. A choice that is undone keeps its file and gets a line saying what replaced it. "Measured" names the
machine or the prototype; what was not measured says so.

Add one as a section `## DATE · TITLE` at the end of this page and run `python -m scripts.decisions`.

"""


def sections(page: str) -> list[tuple[str, str]]:
    """Return the sections of a page: title and text."""
    found = list(_SECTION.finditer(page))
    ends = [*(match.start() for match in found[1:]), len(page)]
    return [(match["title"], page[match.end() : end].strip()) for match, end in zip(found, ends, strict=False)]


def slug(title: str) -> str:
    """Return what a file is called after its number: the title's words, at most eight."""
    words = re.findall(r"[a-z0-9]+", title.partition(" · ")[2].lower())
    return "-".join(words[:8])


def files() -> list[Path]:
    """Return the files of all decisions, oldest first."""
    return sorted(FOLDER.glob("[0-9][0-9][0-9][0-9]-*.md"))


def index() -> str:
    """Return the index of all decisions."""
    lines = []
    for path in files():
        date, _, title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").partition(" · ")
        lines.append(f"- {date} · [{title}](decisions/{path.name})\n")
    return _HEAD + "".join(lines)


def part_twins() -> None:
    """Give every file a number of its own; the first by name keeps one that two have."""
    taken: set[str] = set()
    twins = []
    for path in files():
        if path.name[:4] in taken:
            twins.append(path)
        taken.add(path.name[:4])
    for number, path in enumerate(twins, max(map(int, taken), default=0) + 1):
        path.rename(path.with_name(f"{number:04}{path.name[4:]}"))


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    part_twins()
    number = max((int(path.name[:4]) for path in files()), default=0)
    for title, text in sections(INDEX.read_text(encoding="utf-8")):
        number += 1
        moved = _PAGE.sub(r"](../\1", text)
        (FOLDER / f"{number:04}-{slug(title)}.md").write_text(f"# {title}\n\n{moved}\n", encoding="utf-8")
    INDEX.write_text(index(), encoding="utf-8")
    sys.stdout.write(f"{len(files())} decisions\n")


if __name__ == "__main__":
    main()

"""Made-up conversations in LoCoMo's schema, in both published layouts, with the quirks of the real data.

Nothing in it is LoCoMo's.

`SECRET` stands where an annotator's image search stands: it must turn up nowhere else.
"""

from __future__ import annotations

from typing import Any

SECRET = "zanzibar ferry timetable"

_TALK = {
    "lake-1": {
        1: (
            "1:56 pm on 8 May, 2021",
            [("Ilse", "My boat is called Albatros."), ("Marek", "I like it. Mine is in the shed.")],
        ),
        2: (
            "12:10 am on 3 June, 2021",
            [("Marek", "I sold two kites."), ("Ilse", "Look at this."), ("Ilse", "It flies well.")],
        ),
        10: ("9:00 am on 25 July, 2021", [("Ilse", "I paint in the evening."), ("Marek", "Good for you.")]),
    },
    "lake-2": {
        1: ("4:04 pm on 20 January, 2022", [("Tomke", "My cat is called Ada."), ("Jorin", "Hello Tomke.")]),
        2: ("6:30 pm on 1 February, 2022", [("Jorin", "I bought a violin."), ("Tomke", "Play it for me.")]),
    },
}
_PICTURES = {("lake-1", "D2:2"): "a photo of a red kite"}
_QUESTIONS: dict[str, list[dict[str, Any]]] = {
    "lake-1": [
        {"question": "What does Ilse do?", "answer": "paint, sail", "evidence": ["D1:1", "D10:1"], "category": 1},
        {"question": "When did Marek sell kites?", "answer": 2021, "evidence": ["D2:1; D2:03"], "category": 2},
        {
            "question": "Would Ilse like a harbour?",
            "answer": "Likely yes; she has a boat",
            "evidence": ["D:1:1", "D", "D9:9"],
            "category": 3,
        },
        {"question": "What is Ilse's boat called?", "answer": "Albatros", "evidence": ["D1:1"], "category": 4},
        {
            "question": "What is Marek's boat called?",
            "adversarial_answer": "Albatros",
            "evidence": ["D1:1"],
            "category": 5,
        },
    ],
    "lake-2": [
        {"question": "What is Tomke's cat called?", "answer": "Ada", "evidence": ["D1:1"], "category": 4},
        {
            "question": "What did Tomke buy?",
            "adversarial_answer": "a violin",
            "answer": "nothing",
            "evidence": ["D2:1"],
            "category": 5,
        },
        {"question": "Which cat does Jorin have?", "answer": "Ada", "evidence": [], "category": 5},
    ],
}


def numbered() -> list[dict[str, Any]]:
    """Return them as `locomo10.json` has them.

    Sessions out of order, a date without a session, a caption, a search query.
    """
    made = []
    for name, sessions in _TALK.items():
        told: dict[str, Any] = {"speaker_a": sessions[1][1][0][0], "speaker_b": sessions[1][1][1][0]}
        for number in sorted(sessions, key=str, reverse=True):
            date, lines = sessions[number]
            told[f"session_{number}_date_time"] = date
            told[f"session_{number}"] = [_turn(name, f"D{number}:{at}", *line) for at, line in enumerate(lines, 1)]
        told["session_40_date_time"] = "1:00 pm on 1 August, 2021"
        made.append(
            {
                "sample_id": name,
                "conversation": told,
                "qa": _QUESTIONS[name],
                "event_summary": {},
                "observation": {},
                "session_summary": {},
            }
        )
    return made


def flat() -> dict[str, Any]:
    """Return them as `locomo10_rag.json` has them."""
    return {
        name: {
            "conversation": [
                {"timestamp": date, **_turn(name, f"D{number}:{at}", *line), "dia_id": None}
                for number, (date, lines) in sessions.items()
                for at, line in enumerate(lines, 1)
            ],
            "question": _QUESTIONS[name],
        }
        for name, sessions in _TALK.items()
    }


def _turn(name: str, key: str, speaker: str, text: str) -> dict[str, Any]:
    picture = _PICTURES.get((name, key))
    shown = {"img_url": ["x"], "blip_caption": picture, "query": SECRET, "re-download": True} if picture else {}
    return {"speaker": speaker, "dia_id": key, "text": text, **shown}

"""Made-up exports, in the shapes in which ChatGPT and Claude hand them out."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def chatgpt_message(role: str, *parts: Any, at: float | None, number: str, **more: Any) -> Json:
    """Return one message as ChatGPT writes it; `more` replaces what it holds otherwise."""
    message = {
        "id": f"m-{number}",
        "author": {"role": role, "name": None, "metadata": {}},
        "create_time": at,
        "content": {"content_type": "text", "parts": list(parts)},
        "status": "finished_successfully",
        "weight": 1.0,
        "metadata": {},
        "recipient": "all",
    }
    return message | more


def chatgpt_chat(chat_id: str, messages: list[Json], *, at: float) -> Json:
    """Return a conversation without branches, below a root without a message."""
    mapping: Json = {"root": {"id": "root", "message": None, "parent": None, "children": []}}
    parent = "root"
    for message in messages:
        node = f"n-{message['id']}"
        mapping[parent]["children"].append(node)
        mapping[node] = {"id": node, "message": message, "parent": parent, "children": []}
        parent = node
    return {
        "title": "Made up",
        "create_time": at,
        "update_time": at,
        "mapping": mapping,
        "current_node": parent,
        "conversation_id": chat_id,
        "id": chat_id,
    }


def claude_chat(chat_id: str, said: list[tuple[str, str]], *, at: str) -> Json:
    """Return a conversation as Claude writes it."""
    messages = [
        {
            "uuid": f"{chat_id}-{number}",
            "text": text,
            "content": [{"type": "text", "text": text}],
            "sender": sender,
            "created_at": at,
            "updated_at": at,
            "attachments": [],
            "files": [],
        }
        for number, (sender, text) in enumerate(said)
    ]
    return {
        "uuid": chat_id,
        "name": "Made up",
        "created_at": at,
        "updated_at": at,
        "account": {"uuid": "a-1"},
        "chat_messages": messages,
    }


def branching_chat() -> Json:
    """A chat with all that is no message of a person or the assistant, and a question that was edited."""
    chat = chatgpt_chat(
        "c-branch",
        [
            chatgpt_message("system", "", at=None, number="0", weight=0),
            chatgpt_message("user", "I moved to Turin.", at=1700000000.5, number="1"),
            chatgpt_message("assistant", "search('Turin')", at=1700000001.0, number="2", recipient="browser"),
            chatgpt_message("tool", "Turin is a city.", at=1700000002.0, number="3"),
            chatgpt_message(
                "assistant",
                at=1700000003.0,
                number="4",
                content={"content_type": "thoughts", "thoughts": [{"content": "hidden"}]},
            ),
            chatgpt_message("assistant", "Welcome to Turin.", at=1700000004.0, number="5"),
            chatgpt_message(
                "user",
                "hidden note",
                at=1700000005.0,
                number="6",
                metadata={"is_visually_hidden_from_conversation": True},
            ),
            chatgpt_message(
                "user",
                at=1700000006.0,
                number="7",
                content={
                    "content_type": "multimodal_text",
                    "parts": [
                        {"content_type": "image_asset_pointer", "asset_pointer": "file://x"},
                        {"content_type": "audio_transcription", "text": "This is my cat."},
                        "She is called Mia.",
                    ],
                },
            ),
        ],
        at=1700000000.0,
    )
    edited = chatgpt_message("user", "I moved to Milan.", at=1700000000.2, number="old")
    chat["mapping"]["n-old"] = {"id": "n-old", "message": edited, "parent": "root", "children": []}
    chat["mapping"]["root"]["children"].insert(0, "n-old")
    return chat


def write_json(place: Path, chats: Any) -> Path:
    place.write_text(json.dumps(chats), encoding="utf-8")
    return place


def write_zip(place: Path, chats: Any, *, name: str = "conversations.json") -> Path:
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("users.json", "[]")
        archive.writestr(name, json.dumps(chats))
    return place

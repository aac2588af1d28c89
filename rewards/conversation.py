"""A prompt is a text, or a conversation: a list of chat messages `{"role": ..., "content": ...}`. Each as the other."""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]
Prompt = str | list[Message]


def text_of(prompt: Prompt) -> str:
    """For functions that read text: what the user said; of more than one message, each behind the name of its role."""
    if isinstance(prompt, str):
        return prompt
    if [message["role"] for message in prompt] == ["user"]:
        return prompt[0]["content"]
    return "\n\n".join(f"{message['role']}: {message.get('content', '')}" for message in prompt)


def messages_of(prompt: Prompt) -> list[Message]:
    """For functions that read chat messages, as TRL passes them."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt

"""Chat templates for published tokenizers that come without one; a checkpoint's own template always wins."""

from __future__ import annotations


def _llama3_style(newlines: str) -> str:
    return (
        "{% for message in messages %}"
        "{% if loop.first %}{{ bos_token }}{% endif %}"
        "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>" + newlines + "'"
        " + message['content'] | trim + '<|eot_id|>' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>" + newlines + "' }}"
        "{% endif %}"
    )


LLADA = _llama3_style(r"\n\n")
"""The template of LLaDA-8B-Instruct's tokenizer_config.json; the base model's tokenizer has none."""

MMADA = _llama3_style(r"\n")
"""MMaDA is trained and served with one newline after the header (Gen-Verse/MMaDA, generate.py and app.py)."""

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Qwen3, SDAR and TraDo without tools or thinking (JetAstra/SDAR, training/model/SDAR-4B-Chat/chat_template.jinja)."""

DREAM = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{% endif %}" + CHATML
)
"""Dream and DiffuCoder add a system message (written out by hand in Gen-Verse/dLLM-RL, sample/dream_sample.py)."""

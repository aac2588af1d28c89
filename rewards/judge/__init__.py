"""Judges: language models behind OpenAI's chat protocol, what they are asked, how they are read, and vLLM served."""

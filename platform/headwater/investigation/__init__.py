"""Investigations: a question looked into step by step, by a chat model or by a fixed plan, with a cited report at the end."""

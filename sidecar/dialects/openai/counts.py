"""
How many results an answer of the OpenAI family must have, as its request says.

The rule: a number only if every service reads the request alike; otherwise 0, which means any number. Sources: OpenAI's
API reference ("Create embeddings": ``input``; "Create completion": ``prompt`` and ``n``; "Create moderation":
``input``).
"""

from __future__ import annotations

from sidecar.core.dialect import Members


def choices(members: Members) -> int:
    """The choices of a chat: ``n``, 1 where it is not said."""
    number = members.get("n")
    if number is None:
        return 1
    return number if type(number) is int and number > 0 else 0


def completions(members: Members) -> int:
    """``n`` choices for each prompt; ``best_of`` are generated, but only ``n`` of them are returned."""
    if members.get("prompt_embeds") is not None:  # vLLM: further prompts, beside those in words
        return 0
    return inputs(members.get("prompt")) * choices(members)


def inputs(value: object) -> int:
    """
    The texts in *value*: a string is one, an array of tokens is one; an array of strings, or of arrays of tokens, is as
    many as it has. 0 for anything else, and for what is not known.
    """
    if type(value) is str:
        return 1
    if type(value) is not list or not value:
        return 0
    kinds = {type(one) for one in value}
    if kinds == {int}:
        return 1
    if kinds == {str} or (kinds == {list} and all(one and {type(token) for token in one} == {int} for one in value)):
        return len(value)
    return 0

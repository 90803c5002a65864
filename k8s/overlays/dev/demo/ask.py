"""
An application that asks an AI the same few questions over and over, and prints how each was answered.

The rule: it uses the standard library alone, and knows of the sidecar only what injection puts into its environment.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from urllib.error import URLError
from urllib.request import Request, urlopen

QUESTIONS = ("Which currency is this invoice in?", "Is this a contract?", "Who signed it?")
SECONDS = 5.0


def ask(base: str, question: str) -> str:
    """Ask *question* at the base URL; how long it took, and what ``Cache-Status`` says of it (RFC 9211)."""
    body = {"model": "gpt-4o", "temperature": 0, "messages": [{"role": "user", "content": question}]}
    key = os.environ.get("OPENAI_API_KEY", "demo")
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    request = Request(f"{base}/chat/completions", json.dumps(body).encode(), headers)  # noqa: S310  http on loopback
    began = time.perf_counter()
    try:
        with urlopen(request, timeout=60) as answer:  # noqa: S310  as above
            answer.read()
            said = answer.headers.get("cache-status", "no sidecar on the way")
    except URLError as error:
        said = f"failed: {error}"
    return f"{time.perf_counter() - began:7.3f} s  {question:36} {said}"


def main(rounds: int | None) -> None:
    """Ask for so many *rounds*; None for ever."""
    base = os.environ.get("OPENAI_BASE_URL", "")
    if not base:
        print("OPENAI_BASE_URL is not set: this pod was not injected. Its calls would go to the vendor.", flush=True)
    for question in itertools.islice(itertools.cycle(QUESTIONS), rounds):
        if base:
            print(ask(base, question), flush=True)
        if rounds is None:
            time.sleep(SECONDS)


if __name__ == "__main__":
    # The first process of a container ignores SIGTERM where it does not handle it; kubelet would wait for 30 s.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)

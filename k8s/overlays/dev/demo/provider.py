"""
The stand-in provider of the demo, for a cluster: it answers after a second, like a model.

The rule: as in ``sidecar/demo``: each of its answers says that it is canned.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from sidecar.demo.provider import DemoProvider

SECONDS = 1.0


async def serve(port: int) -> None:
    """Answer at *port* until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    provider = DemoProvider(latency=SECONDS)
    bound = await provider.start("0.0.0.0", port)  # noqa: S104  its Service leads here
    print(f"answering at {bound}", flush=True)
    await stopping.wait()
    await provider.stop()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))

#!/usr/bin/env python3
"""A long-lived process that attaches and detaches one volume with manypath, for the lab benches.

``agent.py PROPERTIES`` takes connection properties as JSON and, like ``benches/floor``, reads
"attach" and "detach" from stdin and answers with one line of JSON: seconds in total, measured
around the Python call, and of every phase.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import manypath


def phases(timings: Any, wall: float) -> dict[str, float]:
    """The library's own phases, and what is left for the Python call around them."""
    seconds = {name: value for name, value in timings.as_dict().items() if name != "total"}
    return {"total": wall, **seconds, "python": wall - timings.total}


def main() -> None:
    properties = json.loads(sys.argv[1])
    manypath.disconnect(properties)  # nothing is there: starts the engine
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        call = manypath.connect if line.strip() == "attach" else manypath.disconnect
        began = time.perf_counter()
        result = call(properties)
        wall = time.perf_counter() - began
        for warning in result.warnings:
            print(f"agent: {warning}", file=sys.stderr)
        for path in getattr(result, "paths", ()):
            if path.state != "active":
                print(f"agent: {path.as_dict()} {path.error!r}", file=sys.stderr)
        print(json.dumps(phases(result.timings, wall)), flush=True)


if __name__ == "__main__":
    main()

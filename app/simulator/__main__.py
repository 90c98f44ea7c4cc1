"""``python -m app.simulator``: a fake Gemini to point any Gemini client at."""

from __future__ import annotations

import argparse
import os
import sys
import threading

from app.simulator.server import Simulator


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m app.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=9999, help="0 takes a free one")
    parser.add_argument("--pace", type=float, default=0.02, help="seconds between chunks")
    options = parser.parse_args()
    simulator = Simulator(options.host, options.port, pace=options.pace)
    try:
        address = simulator.start()
    except OSError as error:
        sys.exit(
            f"can't listen on {options.host} port {options.port}: {os.strerror(error.errno or 0)}"
        )
    sys.stdout.write(f"simulated Gemini on {address} (Ctrl-C ends it)\n")
    sys.stdout.flush()
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        simulator.stop()


if __name__ == "__main__":
    main()

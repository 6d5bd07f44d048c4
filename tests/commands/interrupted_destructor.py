"""A program whose first signal meets a destructor, where Python ignores exceptions."""

import os
import signal
import threading

import cli


class Slow:
    """Is signaled while it is destroyed."""

    def __del__(self) -> None:
        """Let the signal come now."""
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    cli.take_signals([])
    try:
        Slow()
        threading.Event().wait(60)
    except KeyboardInterrupt:
        print("interrupted")

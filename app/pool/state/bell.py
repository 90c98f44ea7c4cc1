"""How the processes of one machine wake each other: a datagram on the loopback interface."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

log = logging.getLogger("gateway.state")

Tone = Literal["freed", "news"]
LOOPBACK = "127.0.0.1"


class Bell:
    """Hears and rings.

    A ring for nothing costs a look, and one that is not heard a second: what must not be missed
    is looked for now and then as well.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[bytes, list[Callable[[], None]]] = {}
        self._ear: socket.socket | None = None
        self._mouth: socket.socket | None = None
        self.port = 0
        """Where this process listens; 0 when it does not."""

    def listen(self, tone: Tone, tell: Callable[[], None]) -> None:
        """Have ``tell`` called from a daemon thread whenever ``tone`` is rung here."""
        with self._lock:
            self._listeners.setdefault(tone.encode(), []).append(tell)
            if self._ear:
                return
            ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                ear.bind((LOOPBACK, 0))
            except OSError as error:
                log.warning("workers can't wake each other, and look every second: %s", error)
                ear.close()
                return
            self._ear = ear
            self.port = int(ear.getsockname()[1])
        threading.Thread(target=self._hear, args=(ear,), name="bell", daemon=True).start()

    def ring(self, tone: Tone, ports: Sequence[int]) -> None:
        """Ring at those who listen at ``ports``, mostly nobody."""
        if not ports:
            return
        with self._lock:
            if self._mouth is None:
                self._mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            for port in ports:
                with suppress(OSError):
                    self._mouth.sendto(tone.encode(), (LOOPBACK, port))

    def close(self) -> None:
        """Listen and ring no more."""
        with self._lock:
            ear, self._ear = self._ear, None
            self.port = 0
            if ear:
                # Closing alone would leave the thread in its wait.
                with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                    last.sendto(b"", ear.getsockname())
            if self._mouth:
                self._mouth.close()
                self._mouth = None

    def _hear(self, ear: socket.socket) -> None:
        with ear:
            while self._ear is ear:
                try:
                    tone = ear.recv(16)
                except OSError:
                    return
                for tell in self._listeners.get(tone, ()):
                    try:
                        tell()
                    except Exception:
                        log.exception("looking after the pool failed")

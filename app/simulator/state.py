"""What a simulator remembers and can be told: for tests, and for people who try faults."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.simulator import faults
from app.simulator.faults import Fault
from app.simulator.oauth import TokenOffice
from app.simulator.quotas import Quota, Quotas

MODEL_CALLS = ("generateContent", "streamGenerateContent", "countTokens")
_KEPT_BYTES = 32 * 1024 * 1024
_KEPT_PREFIXES = 10_000


@dataclass
class Record:
    """One request as it was received. ``key`` is the API key or the owner of the token.

    ``headers`` have lower-case names and no credentials. ``body`` is the parsed JSON (None if
    there is none). ``aborted`` turns true when the client hung up before the end of its answer.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    key: str = ""
    project: str = ""
    call: str = ""
    model: str = ""
    fault: str = ""
    size: int = 0
    status: int = 0
    aborted: bool = False
    ended: threading.Event = field(default_factory=threading.Event, repr=False)


class SimulatorState:
    """Settings, controls and observations of one simulator. Thread-safe.

    ``pace`` is the pause between chunks in seconds. ``strict_signatures`` refuses thought
    signatures that another account was given. ``signature_bytes`` is their size.
    ``cache_threshold`` (tokens) replaces the models' own for implicit caching.
    ``token_lifetime`` is how long access tokens live, in seconds.
    """

    def __init__(
        self,
        *,
        pace: float = 0.02,
        keep: int = 2000,
        strict_signatures: bool = False,
        signature_bytes: int = 240,
        cache_threshold: int | None = None,
        token_lifetime: float = 3599,
    ) -> None:
        self.pace = pace
        self.strict_signatures = strict_signatures
        self.signature_bytes = signature_bytes
        self.cache_threshold = cache_threshold
        self.tokens = TokenOffice(token_lifetime)
        self.quotas = Quotas()
        self._changed = threading.Condition()
        self._keep = keep
        self._records: deque[Record] = deque()
        self._kept_bytes = 0
        self._served = 0
        self._aborted = 0
        self._in_flight: Counter[str] = Counter()
        self._most_in_flight: Counter[str] = Counter()
        self._scripts: dict[str, deque[tuple[Fault | None, tuple[str, ...]]]] = defaultdict(deque)
        self._timed: Counter[tuple[str, str]] = Counter()
        self._prefixes: OrderedDict[tuple[str, ...], None] = OrderedDict()
        self._new_to_code_assist: set[str] = set()

    # What happened

    @property
    def requests(self) -> list[Record]:
        """The latest requests, oldest first."""
        with self._changed:
            return list(self._records)

    @property
    def served(self) -> int:
        """How many requests there were in all."""
        with self._changed:
            return self._served

    @property
    def aborted(self) -> int:
        """How many answers the client did not wait for the end of."""
        with self._changed:
            return self._aborted

    def in_flight(self, key: str) -> int:
        """Return how many model calls of ``key`` are being answered now."""
        with self._changed:
            return self._in_flight[key]

    def max_in_flight(self, key: str) -> int:
        """Return the most there ever were at once."""
        with self._changed:
            return self._most_in_flight[key]

    def wait_for(self, predicate: Callable[[], object], timeout: float) -> bool:
        """Wait until ``predicate`` holds, looking whenever something happens.

        Returns False if it does not hold after ``timeout`` seconds.
        """
        with self._changed:
            return bool(self._changed.wait_for(predicate, timeout))

    # What to do

    def script(
        self, key: str, steps: Iterable[str | None], *, on: Iterable[str] = MODEL_CALLS
    ) -> None:
        """Queue faults for the next calls of ``key``, one each; None lets a call pass.

        ``on`` names the calls that take a step: model calls, unless ``("models",)`` means the
        listing. Raises `app.simulator.faults.UnknownFault`.
        """
        calls = tuple(on)
        parsed = [(faults.parse(step) if step else None, calls) for step in steps]
        with self._changed:
            self._scripts[key].extend(parsed)

    def quota(
        self,
        owner: str,
        model: str = "*",
        *,
        rpm: int | None = None,
        rpd: int | None = None,
        clock: Callable[[], float] | None = None,
    ) -> Quota:
        """Enforce requests per minute and per day for an API key, a token's owner or a project.

        ``model`` may be a glob; every model it names is counted apart.
        """
        return self.quotas.add(owner, model, rpm, rpd, clock)

    def require_onboarding(self, key: str) -> None:
        """Make Code Assist see ``key`` for the first time."""
        with self._changed:
            self._new_to_code_assist.add(key)

    # For the application

    def received(self, record: Record) -> None:
        """Note a request."""
        with self._changed:
            self._served += 1
            self._records.append(record)
            self._kept_bytes += record.size
            while len(self._records) > self._keep or (
                self._kept_bytes > _KEPT_BYTES and len(self._records) > 1
            ):
                self._kept_bytes -= self._records.popleft().size
            self._changed.notify_all()

    def begin(self, record: Record) -> None:
        """Note that a model call is being answered."""
        with self._changed:
            self._in_flight[record.key] += 1
            now = self._in_flight[record.key]
            self._most_in_flight[record.key] = max(now, self._most_in_flight[record.key])
            self._changed.notify_all()

    def end(self, record: Record, *, aborted: bool) -> None:
        """Note the end of an answer; only the first call for a record counts."""
        with self._changed:
            if record.ended.is_set():
                return
            record.ended.set()
            record.aborted = aborted
            self._aborted += aborted
            self._in_flight[record.key] -= 1
            self._changed.notify_all()

    def scripted(self, key: str, call: str) -> Fault | None:
        """Take the next step of the key's script, if it is meant for ``call``."""
        with self._changed:
            steps = self._scripts.get(key)
            if not steps or call not in steps[0][1]:
                return None
            return steps.popleft()[0]

    def still_due(self, key: str, name: str, times: int) -> bool:
        """Tell whether a fault that is to strike ``times`` times still has to, and count it."""
        with self._changed:
            self._timed[key, name] += 1
            return self._timed[key, name] <= times

    def remember_prefixes(self, digests: Sequence[tuple[str, ...]]) -> int:
        """Return how many leading ``digests`` of a prompt were seen before; keep all of them."""
        with self._changed:
            seen = 0
            for number, digest in enumerate(digests, 1):
                if digest in self._prefixes:
                    seen = number
                self._prefixes[digest] = None
                self._prefixes.move_to_end(digest)
            while len(self._prefixes) > _KEPT_PREFIXES:
                self._prefixes.popitem(last=False)
            return seen

    def is_new_to_code_assist(self, key: str) -> bool:
        """Tell whether ``key`` still has to be onboarded."""
        with self._changed:
            return key in self._new_to_code_assist

    def onboarded(self, key: str) -> None:
        """Note that ``key`` has been onboarded."""
        with self._changed:
            self._new_to_code_assist.discard(key)

"""The state store: what must outlive a request, and may outlive a process."""

from app.pool.state.guarded import GuardedStore, guarded
from app.pool.state.memory import MemoryStore
from app.pool.state.opening import open_store
from app.pool.state.store import StateError, StateStore

__all__ = ["GuardedStore", "MemoryStore", "StateError", "StateStore", "guarded", "open_store"]

"""One cheap call that tells whether an account answers."""

from __future__ import annotations

from app.backend.errors import UpstreamError
from app.backend.upstream import Call, Upstream
from app.pool.account import Account
from app.relay.jobs import target_of
from app.translate.conversation import Conversation
from app.translate.validation import load_count

CHECK_MODEL = "gemini-3.8-flash"
"""Asked for a token count where an account has no list of models to ask for."""


def check_account(upstream: Upstream, account: Account) -> tuple[str, str]:
    """Return what is wrong with ``account`` ("" if nothing), and a note on what it has."""
    try:
        models = upstream.list_models(account)
        if models:
            return "", f"{len(models)} models"
        body = {"model": CHECK_MODEL, "messages": [{"role": "user", "content": "hi"}]}
        asked = Conversation(load_count(body), CHECK_MODEL)
        project = account.quota_projects[0]
        target = target_of(account, CHECK_MODEL)
        counted = asked.render_count(target, {})
        upstream.count_tokens(account, project, CHECK_MODEL, counted, Call())
    except UpstreamError as error:
        return error.message, ""
    return "", "answers"

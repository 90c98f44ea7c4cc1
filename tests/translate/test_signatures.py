"""Signatures come back exactly as Gemini sent them, through every carrier."""

import re

import pytest

from app.translate import signatures as sig
from app.translate.target import Target

HERE = Target("gemini", "gemini-3.8-flash", "a1b2c3d4")
NONCE = "Ab3" * 7 + "z"
SIGNATURES = [
    "",
    "QUJDRA==",
    "QUJD",
    "EvsD+/9=",
    "not base64!",
    "url_safe-text",
    "dots.and%2E%",
    "ü" * 5,
]


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("call_id", ["", "dv8szvqe"])
@pytest.mark.parametrize("prefix", [sig.TOOL_PREFIX, sig.SERVER_TOOL_PREFIX])
def test_a_tool_id_brings_back_the_call_id_and_the_signature(signature, call_id, prefix):
    tool_id, kept = sig.pack_tool_id(NONCE, call_id, signature, HERE, prefix=prefix)
    assert re.fullmatch(r"[a-zA-Z0-9_-]+", tool_id)
    assert kept == {}
    ref = sig.unpack_tool_id(tool_id)
    signed = sig.Signed(signature, sig.Origin.of(HERE)) if signature else None
    assert ref == sig.ToolRef(NONCE, call_id, "a1b2c3d4", signed)


def test_a_long_signature_goes_to_the_store_and_leaves_a_short_id():
    long = "QUJD" * 1000
    tool_id, kept = sig.pack_tool_id(NONCE, "c1", long, HERE)
    assert len(tool_id) < 80
    assert sig.unpack_tool_id(tool_id) == sig.ToolRef(NONCE, "c1", "a1b2c3d4", None)
    assert list(kept) == [sig.tool_key(NONCE)]
    assert sig.read_note(kept[sig.tool_key(NONCE)]) == sig.Signed(long, sig.Origin.of(HERE))


@pytest.mark.parametrize("own", SIGNATURES)
@pytest.mark.parametrize("following", SIGNATURES)
def test_a_thinking_signature_brings_back_both(own, following):
    packed = sig.pack_thinking(own, following, HERE, length=7)
    origin = sig.Origin.of(HERE)
    assert sig.unpack_thinking(packed) == sig.ThinkingRef(
        sig.Signed(own, origin) if own else None,
        sig.Signed(following, origin) if following else None,
        7,
    )


def test_text_and_part_notes_come_back():
    origin = sig.Origin.of(HERE)
    value = sig.text_note([(0, 3, "a.b"), (9, 9, "QQ==")], HERE)
    assert sig.read_text_note(value) == [
        sig.TextMark(0, 3, sig.Signed("a.b", origin)),
        sig.TextMark(9, 9, sig.Signed("QQ==", origin)),
    ]
    part = {"toolCall": {"id": "x", "args": {"q": "a.b"}}, "thoughtSignature": "QQ=="}
    assert sig.read_part_note(sig.part_note(part, HERE)) == (part, origin)


@pytest.mark.parametrize(
    "foreign", ["", "toolu_01A", "call_0", "toolu_" + "A" * 60, "toolu_" + "é" * 40]
)
def test_foreign_tool_ids_are_none_of_ours(foreign):
    assert sig.unpack_tool_id(foreign) is None


@pytest.mark.parametrize("foreign", ["", "EqQBCkYIBxgC", "g1.x.y.z.0", "g1..a.b.c", "a.b.c.d.e"])
def test_foreign_thinking_signatures_are_none_of_ours(foreign):
    assert sig.unpack_thinking(foreign) is None


@pytest.mark.parametrize("value", ["", "x", "g3a1b2c3d4", "g3a1b2c3d4.{", "g3a1b2c3d4.[[1]]"])
def test_broken_notes_are_ignored(value):
    assert sig.read_text_note(value) == []
    assert sig.read_part_note(value) is None


def test_validity_follows_surface_generation_and_trust():
    origin = sig.Origin.of(HERE)
    other_account = Target("gemini", "gemini-3.1-pro-preview", "ffffffff")
    assert origin.valid_for(HERE)
    assert origin.valid_for(other_account)
    assert not origin.valid_for(
        Target("gemini", "gemini-3.1-pro-preview", "ffffffff", trust_foreign=False)
    )
    assert not origin.valid_for(Target("vertex", "gemini-3.8-flash", "a1b2c3d4"))
    assert not origin.valid_for(Target("gemini", "gemini-2.5-flash", "a1b2c3d4"))


def test_signatures_of_conversations_begun_before_models_were_told_apart_still_count():
    payload = sig._b64(b"g3a1b2c3d4" + b"\x02c1" + sig._pack("QUJD"))
    origin = sig.Origin("gemini", "3", "a1b2c3d4")
    signed = sig.Signed("QUJD", origin)
    assert sig.unpack_tool_id(f"toolu_{NONCE}{payload}") == sig.ToolRef(
        NONCE, "c1", "a1b2c3d4", signed
    )
    assert sig.unpack_thinking("g1.g3a1b2c3d4.QUJD..0") == sig.ThinkingRef(signed)
    assert sig.read_note("g3a1b2c3d4.QUJD") == signed
    assert origin.valid_for(HERE)
    assert not origin.valid_for(Target("gemini", HERE.model, "a1b2c3d4", trust_foreign=False))


def test_the_newest_of_our_tool_ids_names_the_account():
    ours, _ = sig.pack_tool_id(NONCE, "", "", HERE)
    assert sig.newest_account(["toolu_01A", ours, "call_1"]) == "a1b2c3d4"
    assert sig.newest_account(["x"]) == ""

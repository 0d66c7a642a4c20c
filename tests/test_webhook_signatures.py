"""Signatures of webhooks: those of Standard Webhooks, which nothing that was changed fits."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from headwater.errors import AuthError, UsageError
from headwater.webhooks import signing

KEY = bytes(range(32))
SECRET = signing.secret_of(KEY)


def test_a_signature_is_that_of_standard_webhooks() -> None:
    headers = signing.signed([KEY], "msg_1", 1_700_000_000, b'{"a":1}')
    wanted = base64.b64encode(hmac.new(KEY, b'msg_1.1700000000.{"a":1}', hashlib.sha256).digest()).decode()
    assert headers == {"webhook-id": "msg_1", "webhook-timestamp": "1700000000", "webhook-signature": f"v1,{wanted}"}


def test_a_body_an_id_a_time_or_a_key_that_is_another_is_not_verified() -> None:
    headers = signing.signed([KEY, KEY[::-1]], "msg_1", 1_700_000_000, b"{}")
    signing.verify([KEY], headers, b"{}", now_s=1_700_000_010)
    signing.verify([KEY[::-1]], headers, b"{}", now_s=1_700_000_010)  # while one is replaced either fits
    for changed, body, now in (
        (headers, b"[]", 1_700_000_000), (headers, b"{}", 1_700_000_400), ({}, b"{}", 1_700_000_000),
        ({**headers, "webhook-id": "msg_2"}, b"{}", 1_700_000_000),
        ({**headers, "webhook-timestamp": "1700000001"}, b"{}", 1_700_000_000),
        ({**headers, "webhook-signature": "v1,é"}, b"{}", 1_700_000_000),
    ):  # fmt: skip
        with pytest.raises(AuthError):
            signing.verify([KEY], changed, body, now_s=now)
    with pytest.raises(AuthError):
        signing.verify([b"x" * 32], headers, b"{}", now_s=1_700_000_000)


@pytest.mark.parametrize("value", ["", "whsec_", "plain", "whsec_c2hvcnQ=", SECRET + "é", f"{SECRET} other"])
def test_a_secret_that_is_none_is_refused_and_never_said(value: str) -> None:
    with pytest.raises(UsageError) as raised:
        signing.keys_of("WEBHOOK_SECRET", {"WEBHOOK_SECRET": value})
    assert SECRET not in str(raised.value)
    assert "headwater webhook secret" in str(raised.value)


def test_only_variables_that_are_meant_for_it_can_sign() -> None:
    with pytest.raises(UsageError, match="begins with WEBHOOK_"):
        signing.keys_of("PATH", {"PATH": SECRET})
    assert signing.keys_of("WEBHOOK_A", {"WEBHOOK_A": f"{SECRET} {SECRET}"}) == [KEY, KEY]

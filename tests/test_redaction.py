"""What is a secret is found and taken out; what only looks a little like one stays."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import ConfigError
from headwater.redaction import KINDS, NAMES, Redactor

HIDDEN = {
    "key AKIAIOSFODNN7EXAMPLE used": "key [aws-key] used",
    "push with ghp_" + "a1B2" * 9: "push with [github-token]",
    "glpat-abcdefghij0123456789": "[gitlab-token]",
    "xoxb-123456789012-abcdef": "[slack-token]",
    "https://hooks.slack.com/services/T00/B00/XXXXyyyy": "[slack-hook]",
    "sk_live_4eC39HqLyjWDarjtT1zdp7dc": "[stripe-key]",
    "sk-proj-abcdefghijklmnopqrstuvwx": "[model-key]",
    "AIza" + "x" * 35: "[google-key]",
    "hf_" + "a" * 34: "[hugging-face-token]",
    "npm_" + "a" * 36: "[package-token]",
    "SG." + "a" * 22 + "." + "b" * 43: "[sendgrid-key]",
    "SK" + "0a" * 16: "[twilio-key]",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcDEF123": "[jwt]",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- x": "[private-key] x",
    "postgres://bob:s3cr3t@db:5432/x": "postgres://bob:[url-password]@db:5432/x",
    "Authorization: Bearer abcdef1234567890XYZ": "Authorization: Bearer [authorization]",
    "password=hunter2 user=bob": "password=[password] user=bob",
    "DB_PASSWORD: Sup3rS3cret": "DB_PASSWORD: [password]",
    '{"api_key": "abc123def"}': '{"api_key": "[password]"}',
    "run --password hunter2 now": "run --password [password] now",
    "AccountKey=abc123/+==;x": "AccountKey=[password];x",
    "token: 9f8e7d6c5b4a39281706f5e4": "token: [token]",
    "mail bob.smith+x@example.co.uk now": "mail [email] now",
    "card 4111 1111 1111 1111 paid": "card [card] paid",
    "amex 378282246310005": "amex [card]",
    "IBAN DE89 3704 0044 0532 0130 00.": "IBAN [iban].",
    "ssn 078-05-1120": "ssn [ssn]",
    "call +49 30 1234567 or (415) 555-2671": "call [phone] or [phone]",
    "dbPassword=hunter2hunter PGPASSWORD=hunter2hunter psql": "dbPassword=[password] PGPASSWORD=[password] psql",
    '{"SecretAccessKey": "wJalrXUtnFEMI/K7MDENG"}': '{"SecretAccessKey": "[password]"}',
    "SharedAccessKeyName=Root;SharedAccessKey=abcdEFGH1234=": "SharedAccessKeyName=Root;SharedAccessKey=[password]",
    r"body {\"password\":\"s3cret99\",\"n\":1}": r"body {\"password\":\"[password]\",\"n\":1}",
    "{:password=>'s3cretpw', 'api_key' => \"0123456789\"}": "{:password=>'[password]', 'api_key' => \"[password]\"}",
    "{'api_key': b'0123456789abcdef'}": "{'api_key': b'[password]'}",
    "<user>bob</user><password>s3cretpw</password>": "<user>bob</user><password>[password]</password>",
    "run --db-password hunter2 now": "run --db-password [password] now",
    "Passwort: geheim123, mot de passe : azerty123": "Passwort: [password], mot de passe : [password]",
    "Cookie: JSESSIONID=1A530637289A; theme=dark": "Cookie: [token]",
    "GET /b?sv=2022&sig=Zm9vYmFyYmF6cXV4cXV1eA%3D%3D HTTP/1.1": "GET /b?sv=2022&sig=[token] HTTP/1.1",
    "hvs.CAESIJabcdefghijklmnopq": "[token]",
    "an anna.l\u00f3ra@ex\u00e4mple.de von ?email=bob%40example.com&x": "an [email] von ?email=[email]&x",
    "tel:+1-415-555-2671 ?phone=%2B14155552671&x": "tel:[phone] ?phone=[phone]&x",
    "phone: 030 901820, \u624b\u673a13812345678": "phone: [phone], \u624b\u673a[phone]",
    "IBAN NL91-ABNA-0417-1643-00": "IBAN [iban]",
    "ssn: 536904399": "ssn: [ssn]",
}
KEPT = (
    "password: incorrect for user bob",
    "invalid password for root",
    "Failed password for invalid user admin from 5.36.59.76 port 42393 ssh2",
    "081109 203615 148 INFO dfs.DataNode blk_38865049064139660",
    "request_id=5f4dcc3b5aa765d61d8327deb882cf99",
    "2026-11-21T14:05:00.123Z level=info",
    "192.168.1.12:8080",
    "max_tokens=4096",
    "version 1.2.3.4",
    "token expired",
    "call 12345678",
    "order 4111111111111112",
    "at 1605983157123",
    "user@localhost",
    "passed=12 failed=3",
    "session opened for user root",
    "2005-06-03-15.42.50.675872 R02-M1-N0-C:J12-U11 RAS KERNEL INFO",
    "token=[redacted]",
    "password=<your password>",
    "password=${DB_PASSWORD}",
    "git clone git@github.com:org/repo.git",
    "bearer authentication required",
    "cookie: not found, Set-Cookie: missing",
    "--no-password prompt --reset-password user",
    "forgotPassword: true, publicKey=abc, partitionKey: user_12345",
    "at com.example.Users.changePassword(Users.java:123)",
    "telemetry 12345678901 sent, tel aviv",
    "&signature=none ?sig=1",
    "<password></password>",
)


@pytest.mark.parametrize(("text", "wanted"), HIDDEN.items())
def test_secrets_and_personal_data_are_replaced_by_their_kind(text: str, wanted: str) -> None:
    assert Redactor().redact(text).text == wanted


@pytest.mark.parametrize("text", KEPT)
def test_what_logs_are_full_of_is_left_as_it_is(text: str) -> None:
    assert Redactor().redact(text).text == text


@pytest.mark.parametrize("text", HIDDEN.values())
def test_what_was_redacted_once_stays_as_it_is(text: str) -> None:
    assert Redactor().redact(text).text == text


def test_machines_addresses_are_hidden_where_that_is_asked_for() -> None:
    text = "from 10.0.0.7 and fe80::1ff:fe23:4567:890a, nic 00:1a:2b:3c:4d:5e"
    assert Redactor().redact(text).text == text
    assert Redactor(["network"]).redact(text).text == "from [ip] and [ip], nic [mac]"


def test_kinds_are_chosen_by_name_or_family_and_patterns_of_ones_own_come_beside() -> None:
    text = "bob@example.com password=hunter2 EMP-00123"
    assert Redactor(["email"]).redact(text).text == "[email] password=hunter2 EMP-00123"
    assert (
        Redactor(["secrets"], {"employee": r"EMP-\d{5}"}).redact(text).text == "bob@example.com password=[password] [employee]"
    )
    with pytest.raises(ConfigError, match="no kind of secret"):
        Redactor(["emails"])
    with pytest.raises(ConfigError, match="not a regular expression"):
        Redactor([], {"mine": "("})


def test_the_places_found_are_those_of_the_text() -> None:
    text = "a bob@example.com b 078-05-1120"
    assert [(c.kind, text[c.start : c.end]) for c in Redactor().find(text)] == [
        ("email", "bob@example.com"),
        ("ssn", "078-05-1120"),
    ]


def test_texts_inside_json_are_redacted_and_a_secrets_name_hides_its_value() -> None:
    value = {"user": "bob@example.com", "password": "opensesame", "n": 3, "list": ["+49 30 1234567", None], "token_count": "12"}
    assert Redactor().redact_all(value) == {
        "user": "[email]", "password": "[password]", "n": 3, "list": ["[phone]", None], "token_count": "12",
    }  # fmt: skip


def test_a_number_under_the_name_of_a_telephone_is_hidden_in_json_and_json_it_stays() -> None:
    text = '{"phone":4155552671,"homePhone":"030 901820","userPassword":"opensesame","n":4155552671,"phones":2}'
    hidden = '{"phone":"[phone]","homePhone":"[phone]","userPassword":"[password]","n":4155552671,"phones":2}'
    assert Redactor().text(text) == hidden
    assert Redactor().text(hidden) == hidden


@given(st.text(alphabet=st.sampled_from("a1@.:/-_= +\"'[]pasworkeyt\n4"), max_size=300))
def test_any_text_is_redacted_without_loss_of_what_is_around(text: str) -> None:
    done = Redactor((*NAMES,)).redact(text)
    rest = done.text
    for one in reversed(done.found):
        assert 0 <= one.start < one.end <= len(text)
    for one in done.found:
        assert f"[{one.kind}]" in rest


def test_no_text_makes_a_pattern_slow() -> None:
    began = time.thread_time()
    for unit in (
        "a@",
        "a.",
        "+1 ",
        "password=",
        "4111-",
        "eyJa.",
        "a:b@",
        "://",
        "DE89 ",
        "a_",
        "0:",
        "-----BEGIN PRIVATE KEY-----",
        "Cookie: a=bbbbbbbb;",
        "aSecretKey\\",
        "phone number (",
        "a%40b.",
        "--a-a-a-password ",
    ):
        Redactor(NAMES).redact(unit * (20_000 // len(unit)))
    assert time.thread_time() - began < 10  # not a speed: a pattern that backtracks takes hours
    assert len(KINDS) > 20

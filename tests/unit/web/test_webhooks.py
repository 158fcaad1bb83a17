"""Signatures against the examples that the providers publish, replays, and what operators see."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from symphony.web.marks import REMEMBERED, Marks
from symphony.web.webhooks import WebhookConfig, Webhooks

NOW = 1_800_000_000.0


class Desk:
    """Webhooks with a clock and a configuration that the test moves."""

    def __init__(self, kind: str, secret: str, now: float = NOW, path: Path | None = None) -> None:
        self.now = now
        self.config: WebhookConfig | None = WebhookConfig(kind, secret, 3600.0)
        self.marks = Marks(path)
        self.hooks = Webhooks(config=lambda: self.config, wall=lambda: self.now, marks=self.marks)

    def judge(self, kind: str, body: bytes, **headers: str) -> str:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.hooks.judge(kind, named, body).code


def signed(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


# docs.github.com, "Validating webhook deliveries", section "Testing the webhook payload validation"
GITHUB = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
# developer.atlassian.com, Jira Cloud platform, "Webhooks", section "Secure admin webhooks"
JIRA = "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"
SECRET = "It's a Secret to Everybody"


def test_the_example_of_github_is_accepted() -> None:
    desk = Desk("github", SECRET)
    assert desk.judge("github", b"Hello, World!", x_hub_signature_256=GITHUB) == "accepted"


def test_the_example_of_jira_is_accepted() -> None:
    desk = Desk("jira", SECRET)
    assert desk.judge("jira", b"Hello World!", x_hub_signature=JIRA) == "accepted"


def test_the_example_of_standard_webhooks_is_accepted_from_gitlab() -> None:
    # github.com/standard-webhooks/standard-webhooks, the vector of its libraries' tests
    desk = Desk("gitlab", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", now=1614265330.0)
    headers = {
        "webhook_id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook_timestamp": "1614265330",
        "webhook_signature": "v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    body = b'{"test": 2432232314}'
    assert desk.judge("gitlab", body, **headers) == "accepted"
    assert desk.judge("gitlab", body, **headers) == "duplicate"
    assert desk.judge("gitlab", body + b" ", **headers) == "webhook_signature_invalid"
    other = {**headers, "webhook_id": "msg_other"}
    assert desk.judge("gitlab", body, **other) == "webhook_signature_invalid"
    desk.now += 301
    assert desk.judge("gitlab", body, **headers) == "webhook_stale"


def test_the_older_secret_token_of_gitlab_is_compared() -> None:
    # docs.gitlab.com, "Webhooks": the token is sent along as X-Gitlab-Token
    desk = Desk("gitlab", "a token of ours")
    assert desk.judge("gitlab", b"{}", x_gitlab_token="a token of ours") == "accepted"
    assert desk.judge("gitlab", b"{}", x_gitlab_token="ä") == "webhook_signature_invalid"
    assert desk.judge("gitlab", b"{}") == "webhook_signature_missing"


def linear(desk: Desk, at: float, **more: Any) -> tuple[bytes, str]:
    # linear.app/developers/webhooks: hex HMAC-SHA256 of the raw body; webhookTimestamp in ms
    content = {"action": "update", "type": "Issue", "webhookTimestamp": int(at * 1000), **more}
    body = json.dumps(content).encode()
    assert desk.config is not None
    return body, signed(desk.config.secret, body)


def test_a_delivery_of_linear_counts_for_a_minute() -> None:
    desk = Desk("linear", "lin_wh_secret")
    for offset, code in ((-59, "accepted"), (59, "accepted"), (-61, "webhook_stale")):
        body, signature = linear(desk, NOW + offset)
        assert desk.judge("linear", body, linear_signature=signature) == code


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"webhookTimestamp": true}',
        b'{"webhookTimestamp": "1"}',
        b"[" * 100_000,
        b'{"webhookTimestamp": 1e400}',
        b'{"webhookTimestamp": 9' + b"9" * 400 + b"}",
    ],
)
def test_a_signed_body_without_an_instant_is_stale(body: bytes) -> None:
    desk = Desk("linear", "lin_wh_secret")
    signature = signed("lin_wh_secret", body)
    assert desk.judge("linear", body, linear_signature=signature) == "webhook_stale"


@pytest.mark.parametrize(
    "signature", ["0", "sha256=", "é", GITHUB.upper(), GITHUB + " ", "sha1=" + GITHUB[7:]]
)
def test_another_signature_is_refused(signature: str) -> None:
    desk = Desk("github", SECRET)
    code = desk.judge("github", b"Hello, World!", x_hub_signature_256=signature)
    assert code == "webhook_signature_invalid"


def test_the_poll_may_rest_while_deliveries_come_and_are_well() -> None:
    desk = Desk("github", SECRET)
    assert not desk.hooks.wakes
    assert desk.judge("github", b"Hello, World!", x_hub_signature_256=GITHUB) == "accepted"
    assert desk.hooks.wakes
    desk.judge("github", b"Hello, World!", x_hub_signature_256="sha256=0")
    assert not desk.hooks.wakes
    desk.judge("github", b"Hello, World!", x_hub_signature_256=GITHUB)
    assert desk.hooks.wakes
    desk.now += 3600
    assert not desk.hooks.wakes
    desk.config = None
    assert not desk.hooks.wakes


def test_only_the_configured_tracker_is_heard() -> None:
    desk = Desk("jira", SECRET)
    assert (
        desk.judge("github", b"Hello, World!", x_hub_signature_256=GITHUB)
        == "webhook_not_configured"
    )
    desk.config = None
    assert desk.judge("jira", b"Hello World!", x_hub_signature=JIRA) == "webhook_not_configured"
    assert desk.hooks.problem() is None


def test_a_delivery_is_known_by_its_id_and_by_its_content() -> None:
    desk = Desk("github", SECRET)

    def give(body: bytes, number: str) -> str:
        signature = f"sha256={signed(SECRET, body)}"
        return desk.judge("github", body, x_hub_signature_256=signature, x_github_delivery=number)

    assert give(b"one", "1") == "accepted"
    assert give(b"one", "2") == "duplicate"
    assert give(b"two", "1") == "duplicate"
    assert give(b"three", "3") == "accepted"


def test_what_is_remembered_is_bounded() -> None:
    desk = Desk("jira", SECRET)
    for number in range(REMEMBERED + 1):
        body = str(number).encode()
        desk.judge("jira", body, x_hub_signature=f"sha256={signed(SECRET, body)}")
    again = f"sha256={signed(SECRET, b'0')}"
    assert len(desk.marks) == REMEMBERED
    assert desk.judge("jira", b"0", x_hub_signature=again) == "accepted"


def test_rejected_deliveries_are_told_until_a_good_one(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk("github", SECRET)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            desk.judge("github", b"x", x_hub_signature_256="sha256=0")
    problem = desk.hooks.problem()
    assert problem is not None
    assert problem.startswith("3 webhook deliveries were rejected")
    assert SECRET not in problem
    assert [record.message for record in caplog.records] == ["Webhook delivery rejected"]
    desk.judge("github", b"Hello, World!", x_hub_signature_256=GITHUB)
    assert desk.hooks.problem() is None


def test_silence_is_told_once_in_the_log_and_shown_until_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = Desk("github", SECRET)
    desk.now += 3599
    assert desk.hooks.problem() is None
    desk.now += 1
    with caplog.at_level(logging.WARNING):
        assert "no webhook of github has come for 1 h" in (desk.hooks.problem() or "")
        assert desk.hooks.problem() is not None
    assert [record.message for record in caplog.records] == ["Webhooks are silent"]
    desk.judge("github", b"Hello, World!", x_hub_signature_256=GITHUB)
    assert desk.hooks.problem() is None


def test_whoever_repeats_an_old_delivery_does_not_hide_silence() -> None:
    desk = Desk("github", SECRET)
    desk.judge("github", b"Hello, World!", x_hub_signature_256=GITHUB)
    desk.now += 3600
    assert desk.judge("github", b"Hello, World!", x_hub_signature_256=GITHUB) == "duplicate"
    assert "no webhook of github has come" in (desk.hooks.problem() or "")
    assert not desk.hooks.wakes


def test_a_delivery_is_known_again_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "webhooks.seen"
    first = Desk("github", SECRET, path=path)
    assert first.judge("github", b"Hello, World!", x_hub_signature_256=GITHUB) == "accepted"
    body = b"another"
    signature = f"sha256={signed(SECRET, body)}"
    second = Desk("github", SECRET, path=path)
    assert second.judge("github", b"Hello, World!", x_hub_signature_256=GITHUB) == "duplicate"
    assert second.judge("github", body, x_hub_signature_256=signature) == "accepted"
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"Hello" not in path.read_bytes()


def test_one_that_woke_nothing_may_come_again_also_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "webhooks.seen"
    desk = Desk("github", SECRET, path=path)
    headers = {"x-hub-signature-256": GITHUB}
    assert desk.hooks.judge("github", headers, b"Hello, World!").code == "accepted"
    desk.hooks.forget("github", headers, b"Hello, World!")
    again = Desk("github", SECRET, path=path)
    assert again.judge("github", b"Hello, World!", x_hub_signature_256=GITHUB) == "accepted"
    assert desk.judge("github", b"Hello, World!", x_hub_signature_256=GITHUB) == "accepted"


def test_the_file_of_what_came_is_bounded_and_a_cut_line_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "webhooks.seen"
    marks = Marks(path)
    for number in range(3 * REMEMBERED):
        assert not marks.add([f"{number:064x}"])
    assert path.stat().st_size <= 2 * REMEMBERED * 65 + 65
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 10)
    after = Marks(path)
    assert len(after) == REMEMBERED
    assert after.add([f"{3 * REMEMBERED - 2:064x}"])
    assert not after.add([f"{3 * REMEMBERED - 1:064x}"]), "its line was cut"
    assert Marks(path).add([f"{3 * REMEMBERED - 1:064x}"])


def test_a_file_that_can_not_be_used_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "webhooks.seen"
    path.mkdir()
    with caplog.at_level(logging.WARNING):
        marks = Marks(path)
        assert not marks.add(["a" * 64])
        assert marks.add(["a" * 64])
    assert [record.message for record in caplog.records] == [
        "Deliveries of webhooks are not remembered over a restart"
    ]


def test_the_signature_is_of_the_bytes_and_not_of_their_meaning() -> None:
    desk = Desk("github", SECRET)
    body = b'{"b": 1, "a": "\\u00e9"}'
    signature = f"sha256={signed(SECRET, body)}"
    for rewritten in (b'{"a": "\\u00e9", "b": 1}', b'{"b":1,"a":"\\u00e9"}', body + b"\n"):
        assert json.loads(rewritten) == json.loads(body)
        code = desk.judge("github", rewritten, x_hub_signature_256=signature)
        assert code == "webhook_signature_invalid"
    assert desk.judge("github", body, x_hub_signature_256=signature) == "accepted"


@pytest.mark.parametrize("kind", ["github", "jira", "linear", "gitlab"])
def test_an_empty_secret_is_never_configured_and_matches_nothing(kind: str) -> None:
    desk = Desk(kind, SECRET)
    body = json.dumps({"webhookTimestamp": int(NOW * 1000)}).encode()
    bare = hmac.new(b"", body, hashlib.sha256).hexdigest()
    code = desk.judge(
        kind,
        body,
        x_hub_signature_256=f"sha256={bare}",
        x_hub_signature=f"sha256={bare}",
        linear_signature=bare,
        x_gitlab_token="",
    )
    assert code in ("webhook_signature_invalid", "webhook_signature_missing")


def test_a_signing_token_that_is_not_base64_is_used_as_it_is() -> None:
    secret = "whsec_not base64!"
    desk = Desk("gitlab", secret)
    digest = hmac.new(secret.encode(), f"1.{NOW:.0f}.x".encode(), hashlib.sha256).digest()
    headers = {
        "webhook_id": "1",
        "webhook_timestamp": f"{NOW:.0f}",
        "webhook_signature": f"v1,{base64.b64encode(digest).decode()}",
    }
    assert desk.judge("gitlab", b"x", **headers) == "accepted"


def test_the_secret_is_not_in_the_representation() -> None:
    assert SECRET not in repr(WebhookConfig("jira", SECRET, 1.0))

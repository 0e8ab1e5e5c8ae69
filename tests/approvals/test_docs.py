"""docs/approvals.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.approvals import ApprovalsSpec, Outcome, WebhookSpec
from gateway.approvals.webhook import Call, read_answer, read_secret
from gateway.documents import DocumentError, parse
from gateway.policy.load import load_policies
from gateway.refusal import Reason

PAGE = (Path(__file__).parents[2] / "docs" / "approvals.md").read_text(encoding="utf-8")
YAML = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def read(text: str) -> ApprovalsSpec:
    (document,) = parse(text, "page")
    return document.validate(ApprovalsSpec)


def test_the_example_of_a_policy_shows_every_term() -> None:
    (policy,) = load_policies({"page": YAML[0]})
    approval = policy.spec.rules[0].approval
    assert approval is not None
    assert approval.model_fields_set == set(type(approval).model_fields)


def test_the_example_of_settings_shows_every_field_with_its_default() -> None:
    text = YAML[1].removeprefix("approvals:\n").replace("# caFile", "caFile")
    spec = read(text)
    webhook = spec.webhook
    assert webhook is not None
    assert spec.model_copy(update={"webhook": None}) == ApprovalsSpec()
    assert spec.model_fields_set == set(ApprovalsSpec.model_fields)
    assert webhook.model_fields_set == set(WebhookSpec.model_fields)
    assert webhook.timeout_s == WebhookSpec(url=webhook.url, secret_file=webhook.secret_file).timeout_s


def test_every_outcome_and_every_refusal_is_on_the_page() -> None:
    for outcome in Outcome:
        assert f"| `{outcome.value}` |" in PAGE
    for reason in (Reason.APPROVAL_DENIED, Reason.APPROVAL_TIMEOUT):
        assert f"{reason.status} `{reason.slug}`" in PAGE
    metrics = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert all(f"`{call.value}`" in metrics for call in Call)


@pytest.mark.parametrize(
    "text",
    [
        "maxWaiting: 0",
        "remember: 25h",
        "webhook: {url: 'http://approvals.example/', secretFile: s}",
        "webhook: {url: 'ftp://approvals.example/', secretFile: s}",
        "webhook: {url: 'https://approvals.example:x/', secretFile: s}",
        "webhook: {url: 'https://approvals.example/'}",
        "webhook: {url: 'http://127.0.0.1/', secretFile: s, caFile: c}",
    ],
)
def test_settings_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(DocumentError):
        read(text)


@pytest.mark.parametrize("text", ["", "short", "whsec_not base64 at all, not at all", "whsec_c2hvcnQ="])
def test_a_secret_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"secret|base64"):
        read_secret(text)


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b'{"decision": "approve"}'), (302, b""), (200, b"yes"), (200, b'{"decision": "sure"}'), (200, b"[1]")],
)
def test_an_answer_that_is_none_approves_nothing(status: int, body: bytes) -> None:
    with pytest.raises(ValueError, match="answer"):
        read_answer(status, body)

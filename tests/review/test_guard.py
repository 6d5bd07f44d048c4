"""What the server refuses, over HTTP: foreign names and sites, missing and replayed tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from review.security import hash_of, new_token, single_login
from tests.review.conftest import Serve, Visitor

FORM = {"lang": "ko", "theme": "dark", "size": "large", "next": "/"}


def test_a_page_says_what_it_may_do(serve: Serve, workspace: Path) -> None:
    answer = Visitor(serve(workspace).port).get("/")
    assert answer.status == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    # No inline script or style, which the policy would block.
    assert "<style" not in answer.text
    assert " style=" not in answer.text
    assert answer.text.count("<script") == 1


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_foreign_host_is_refused(serve: Serve, workspace: Path, host: str) -> None:
    # A page of evil.example whose name was rebound to 127.0.0.1 sends its own name.
    answer = Visitor(serve(workspace).port).get("/", Host=host)
    assert answer.status == 421
    assert "Gold" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_a_form_of_another_site_is_refused(
    serve: Serve, workspace: Path, headers: dict[str, str]
) -> None:
    visitor = Visitor(serve(workspace).port)
    token = visitor.get("/settings").token
    assert visitor.post("/settings", FORM | {"form_token": token}, **headers).status == 403
    # It was refused before the form was read: its token is as good as before.
    own = {"Origin": f"http://127.0.0.1:{visitor.port}"}
    assert visitor.post("/settings", FORM | {"form_token": token}, **own).status == 303


def test_a_form_needs_a_token_of_its_own_session(serve: Serve, workspace: Path) -> None:
    port = serve(workspace).port
    visitor, other = Visitor(port), Visitor(port)
    foreign = other.get("/settings").token
    visitor.get("/settings")
    for token in ("", "x", "a.1.b", foreign, foreign[:-1]):
        answer = visitor.post("/settings", FORM | {"form_token": token})
        assert answer.status == 403, token
        assert "stepgold-lang" not in visitor.cookies
    # Our script gets a new token with the refusal, and sends the form again.
    fresh = answer.headers["x-form-token"]
    assert visitor.post("/settings", FORM, X_Form_Token=fresh).status == 303
    assert visitor.cookies["stepgold-lang"] == "ko"


def test_a_form_counts_once(serve: Serve, workspace: Path) -> None:
    visitor = Visitor(serve(workspace).port)
    form = FORM | {"form_token": visitor.get("/settings").token}
    assert visitor.post("/settings", form).status == 303
    assert visitor.post("/settings", form).status == 409


def test_a_form_never_leads_elsewhere(serve: Serve, workspace: Path) -> None:
    visitor = Visitor(serve(workspace).port)
    for target in ("//evil.example", "https://evil.example", "/\\evil.example"):
        token = visitor.get("/settings").token
        answer = visitor.post("/settings", FORM | {"next": target, "form_token": token})
        assert answer.headers["location"] == "/"


def test_a_login_is_a_link_whose_token_is_known_as_a_hash(serve: Serve, workspace: Path) -> None:
    token = new_token()
    visitor = Visitor(serve(workspace, login=single_login(hash_of(token), "e1")).port)
    assert visitor.get("/").status == 401
    assert visitor.get("/image?dataset=d&problem=p&number=0").status == 401
    assert visitor.get("/login?token=wrong").status == 401
    assert not visitor.cookies
    assert visitor.get(f"/login?token={token}").status == 303
    assert visitor.get("/").status == 200
    assert visitor.get("/static/app.css").status == 200


def test_guessing_tokens_is_slowed_down(serve: Serve, workspace: Path) -> None:
    login = single_login(hash_of(new_token()), "e1")
    visitor = Visitor(serve(workspace, login=login, settings={"logins_per_minute": 3.0}).port)
    statuses = [visitor.get(f"/login?token=guess{number}").status for number in range(6)]
    assert statuses == [401, 401, 401, 429, 429, 429]


def test_an_address_may_not_ask_without_end(serve: Serve, workspace: Path) -> None:
    settings = {"burst": 5, "per_second": 0.001}
    visitor = Visitor(serve(workspace, settings=settings).port)
    answers = [visitor.get("/stamp") for _ in range(8)]
    assert [each.status for each in answers] == [200] * 5 + [429] * 3
    assert int(answers[-1].headers["retry-after"]) > 0


def test_a_large_body_is_refused(serve: Serve, workspace: Path) -> None:
    visitor = Visitor(serve(workspace).port)
    form = FORM | {"form_token": visitor.get("/settings").token, "more": "x" * (1024 * 1024)}
    assert visitor.post("/settings", form).status == 413


@pytest.mark.parametrize(
    "cookie", ["x" * 40 + "\\015\\012evil: 1", "x" * 40 + "; Domain=evil.example"]
)
def test_a_cookie_that_is_no_session_is_not_repeated(visitor: Visitor, cookie: str) -> None:
    answer = visitor.get("/", Cookie=f'stepgold-{visitor.port}="{cookie}"')
    assert answer.status == 200
    assert "evil" not in answer.headers["set-cookie"]

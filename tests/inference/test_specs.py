"""Model specs and base URLs as users write them."""

from __future__ import annotations

import pytest

from inference.destinations import checked_base_url, is_loopback
from inference.specs import ModelSpec
from traces.errors import InputError


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("gemini:gemini-3.5-flash-lite", "gemini", "gemini-3.5-flash-lite"),
        ("gemini:models/gemini-3.8-flash", "gemini", "gemini-3.8-flash"),
        ("openai:org/model:free", "openai", "org/model:free"),
        ("hf:./my models/policy", "hf", "./my models/policy"),
        ("lab", "lab", ""),
    ],
)
def test_the_four_forms(text: str, kind: str, name: str) -> None:
    assert ModelSpec.parse(text) == ModelSpec(kind, name)  # type: ignore[arg-type]


def test_a_spec_reads_back_what_it_prints() -> None:
    for text in ("gemini:g", "openai:a:b", "hf:x/y", "lab"):
        assert str(ModelSpec.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "gpt-4", "gemini", "gemini:", "hf: ", "lab:x", "GEMINI:x", "claude:x", ":x"]
)
def test_everything_else_is_refused_with_the_list_of_forms(text: str) -> None:
    with pytest.raises(InputError) as refusal:
        ModelSpec.parse(text)
    assert "gemini:MODEL, vertex:MODEL, openai:MODEL, hf:PATH_OR_ID or lab" in str(refusal.value)


def test_a_hosted_name_that_would_change_the_url_is_refused() -> None:
    with pytest.raises(InputError, match="a space"):
        ModelSpec.parse("gemini:x?key=1")


def test_a_base_url_loses_only_its_slash() -> None:
    assert checked_base_url(" http://h:8/v1/ ", named_by="--base-url") == "http://h:8/v1"


@pytest.mark.parametrize(
    "url", ["http://user:pass@host/v1", "https://token@host", "http://u:p@host:bad"]
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InputError, match="user:password") as refusal:
        checked_base_url(url, named_by="OPENAI_BASE_URL")
    assert "pass" not in str(refusal.value).replace("user:password", "")
    assert "token" not in str(refusal.value)
    assert "OPENAI_BASE_URL" in str(refusal.value)


@pytest.mark.parametrize("url", ["", "host:80", "ftp://host", "http://", "http://h:port", "h/v1"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="is not an http or https URL"):
        checked_base_url(url, named_by="--base-url")


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:1/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:8/v1", True),
        ("http://127.example.org", False),
        ("http://localhost.example.org", False),
        ("https://api.openai.com/v1", False),
    ],
)
def test_only_this_machine_is_local(url: str, local: bool) -> None:
    """A host that merely looks local would get patient texts without the question being asked."""
    assert is_loopback(url) is local


@pytest.mark.parametrize(
    "name", ["../x", "a&b", "a/../b", "models/", "/x", "a%2Fb", "gemini\u00e9"]
)
def test_what_the_service_could_not_have_listed_is_refused_before_any_call(name: str) -> None:
    with pytest.raises(InputError, match="not a name of a Gemini model"):
        ModelSpec.parse(f"gemini:{name}")


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({}, "gemini"),
        ({"GOOGLE_GENAI_USE_VERTEXAI": "true"}, "vertex"),
        ({"GOOGLE_GENAI_USE_VERTEXAI": "1"}, "vertex"),
        ({"GOOGLE_GENAI_USE_VERTEXAI": "false"}, "gemini"),
        ({"GOOGLE_GENAI_USE_VERTEXAI": "true", "GOOGLE_GENAI_USE_ENTERPRISE": "false"}, "gemini"),
    ],
)
def test_the_environment_chooses_the_service_of_gemini(environ: dict[str, str], kind: str) -> None:
    assert ModelSpec.parse("gemini:g").on_its_service(environ) == ModelSpec.parse(f"{kind}:g")
    assert ModelSpec.parse("openai:g").on_its_service(environ).kind == "openai"

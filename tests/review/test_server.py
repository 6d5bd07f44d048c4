"""The command: where it serves, how it stops, and which addresses it refuses."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cli import execute
from review import Running, ViewOptions
from stepgold import InputError, Workspace
from stepgold.workspace import WorkspaceFolder
from tests.review.conftest import DEADLINE_S, Serve, Visitor


@contextmanager
def started(workspace: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`stepgold view` in a process of its own, and the line that says where it serves."""
    words = [sys.executable, "-m", "cli", "--workspace", str(workspace), "view", "--port", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen([*words, *options], stdout=pipe, stderr=pipe, text=True) as child:
        try:
            assert child.stderr is not None
            yield child, child.stderr.readline()
        finally:
            child.kill()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_good_order(workspace: Path, number: signal.Signals) -> None:
    with started(workspace, "--json") as (child, line):
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found is not None
        assert Visitor(int(found[1])).get("/").status == 200
        child.send_signal(number)
        out, err = child.communicate(timeout=DEADLINE_S)
    assert child.returncode == 0
    assert json.loads(out) == {"command": "view", "url": found[0].rstrip("/")}
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"host": "0.0.0.0"}, "--certfile"),
        ({"host": "192.0.2.1"}, "--behind-proxy"),
        ({"host": "::"}, "--certfile"),
        ({"behind_proxy": "http://review.example.org"}, "https://"),
        ({"behind_proxy": "https://review.example.org/path"}, "https://"),
    ],
)
def test_others_are_not_served_without_encryption(options: dict[str, str], remedy: str) -> None:
    with pytest.raises(InputError) as refused:
        ViewOptions(**options)  # type: ignore[arg-type]
    assert remedy in str(refused.value.remedy)


def test_a_taken_port_is_bad_input(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert execute(["--workspace", str(workspace), "view", "--port", port]) == 2
    assert "--port 0" in capsys.readouterr().err


def test_a_workspace_without_a_database_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["--workspace", str(tmp_path), "view", "--port", "0"]) == 2
    assert "There is no database here." in capsys.readouterr().err


def test_a_key_without_a_certificate_is_bad_input(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("no key")
    on = ["--workspace", str(workspace), "view", "--port", "0"]
    assert execute([*on, "--keyfile", str(tmp_path / "key.pem")]) == 2
    both = ["--certfile", str(tmp_path / "key.pem"), "--keyfile", str(tmp_path / "key.pem")]
    assert execute([*on, *both]) == 2


def certificate(place: Path) -> tuple[Path, Path]:
    """A certificate of localhost and its key, made now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain, secret = place / "chain.pem", place / "key.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return chain, secret


def test_pages_are_served_by_https(serve: Serve, workspace: Path, tmp_path: Path) -> None:
    chain, secret = certificate(tmp_path)
    running = serve(workspace, certfile=chain, keyfile=secret)
    assert running.url == f"https://127.0.0.1:{running.port}"
    trusted = ssl.create_default_context(cafile=str(chain))
    connection = http.client.HTTPSConnection(
        "localhost", running.port, context=trusted, timeout=DEADLINE_S
    )
    connection.request("GET", "/")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 200
    assert "; Secure" in (answer.getheader("set-cookie") or "")
    assert "max-age" in (answer.getheader("strict-transport-security") or "")


def test_behind_a_proxy_its_name_is_ours(serve: Serve, workspace: Path) -> None:
    running = serve(workspace, behind_proxy="https://review.example.org")
    assert running.url == "https://review.example.org"
    visitor = Visitor(running.port)
    name = {"Host": "review.example.org"}
    answer = visitor.get("/settings", **name)
    assert answer.status == 200
    assert "; Secure" in answer.headers["set-cookie"]
    form = {"lang": "ko", "next": "/", "form_token": answer.token}
    plain = {"Origin": "http://review.example.org"}
    assert visitor.post("/settings", form, **name, **plain).status == 403
    own = {"Origin": "https://review.example.org"}
    assert visitor.post("/settings", form, **name, **own).status == 303


def test_a_labeler_may_go_while_its_trace_is_open(serve: Serve, tmp_path: Path) -> None:
    from tests.commands.labelled_workspace import make_workspace

    workspace = make_workspace(tmp_path)
    visitor = Visitor(serve(workspace).port)
    assert visitor.get("/trace?dataset=d&id=t1").status == 200
    Workspace(workspace, progress=False).remove_labeler("blank", dataset="d")
    assert visitor.get("/trace?dataset=d&id=t1").status == 200


def test_without_the_extra_one_line_says_what_to_install(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert execute(["--workspace", str(workspace), "view", "--port", "0"]) == 2
    assert "pip install 'stepgold[review]'" in capsys.readouterr().err


def test_a_server_may_be_stopped_twice(workspace: Path) -> None:
    running = Running(WorkspaceFolder(workspace), ViewOptions(port=0))
    with running:
        assert Visitor(running.port).get("/stamp").status == 200
        running.stop()
        running.stop()

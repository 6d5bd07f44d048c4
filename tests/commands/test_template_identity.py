"""A template is known by what its files hold: another one under the same name is another configuration."""

from __future__ import annotations

from pathlib import Path

from stepgold.models import template_identity


def test_a_template_is_its_name_and_its_content(tmp_path: Path) -> None:
    identities = []
    for parent, template in (("a", "{{ messages }}"), ("b", "{{ messages }}"), ("c", "other")):
        folder = tmp_path / parent / "tokenizer"
        folder.mkdir(parents=True)
        (folder / "chat_template.jinja").write_text(template)
        (folder / "tokenizer.json").write_text("{}")
        identities.append(template_identity(folder))
    assert identities[0] == identities[1] != identities[2]
    assert all(str(one).startswith("tokenizer@") for one in identities)
    assert template_identity(None) is None

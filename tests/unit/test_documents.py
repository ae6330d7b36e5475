"""Chunks of a folder as prompts: where they come from is on the record, and no file is passed over in silence."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfWriter

from outcross.errors import ConfigError, DataError
from outcross.recipe import fingerprint
from outcross.tasks.attributes import Category
from outcross.tasks.compose import Compose
from outcross.tasks.documents import Documents
from outcross.types import Message, content_hash

INSTALL = "# Install\n\nIntroduction.\n\n## Linux\n\nUse `pm`.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docs" / "guide").mkdir(parents=True)
    (tmp_path / "docs" / "guide" / "install.md").write_text(INSTALL)
    (tmp_path / "docs" / "notes.txt").write_text("Plain text.\n\n# no heading here\n")
    (tmp_path / "docs" / ".hidden").write_bytes(b"\0\1")
    return tmp_path / "docs"


def pdf(path: Path, *pages: str) -> Path:
    """A PDF that pypdf did not write by itself: one text line a page."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    kids = []
    for text in pages:
        stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET" if text else ""
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        font = "<< /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >>"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /Contents {len(objects)} 0 R /MediaBox [0 0 612 792] /Resources << /Font {font} >> >>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    out, places = "%PDF-1.4\n", []
    for number, item in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{item}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    path.write_text(out)
    return path


def test_each_chunk_is_a_task_that_knows_its_place(folder: Path) -> None:
    tasks = list(Documents(folder, "From {{ title }}, {{ headings }}:\n{{ chunk }}"))
    assert [task.prompt for task in tasks] == [
        "From Install, Install:\n# Install\n\nIntroduction.",
        "From Install, Install > Linux:\n## Linux\n\nUse `pm`.",
        "From notes, :\nPlain text.\n\n# no heading here",
    ]
    identifier = content_hash("chunk", "## Linux\n\nUse `pm`.")
    assert dict(tasks[1].columns) == {
        "path": "guide/install.md",
        "title": "Install",
        "headings": "Install > Linux",
        "position": "2",
        "chunk_id": identifier,
    }
    assert tasks[1].origin.parents == (identifier,) and tasks[1].origin.source.startswith("guide/install.md@blake2b:")
    assert (tasks[1].origin.kind, tasks[1].origin.proof) == ("unknown", "none")
    assert len({task.id for task in tasks}) == 3


def test_who_attests_makes_documents_real(folder: Path) -> None:
    (first, *_) = Documents(folder, attested="the authors, 2024, CC0")
    assert first.origin.is_real and first.origin.note == "the authors, 2024, CC0"


def test_equal_chunks_share_an_identifier_and_are_tasks_of_their_own(folder: Path) -> None:
    (folder / "guide" / "copy.md").write_text(INSTALL)
    tasks = list(Documents(folder / "guide"))
    assert len({task.id for task in tasks}) == 4 and len({task.origin.parents for task in tasks}) == 2


def test_chunks_are_rows_for_compose(folder: Path) -> None:
    made = Compose("{{ style }}: {{ chunk }} ({{ position + 1 }})", {"style": Category(("x",))}, Documents(folder), system="On {{ path }}.")
    task = list(made)[1]
    assert task.prompt == (Message("system", "On guide/install.md."), Message("user", "x: ## Linux\n\nUse `pm`. (3)"))
    assert task.origin.parents == (dict(task.columns)["chunk_id"],) and dict(task.columns)["style"] == "x"


def test_a_pattern_or_a_single_file_chooses_and_skip_leaves_out(folder: Path) -> None:
    def paths(documents: Documents) -> set[str]:
        return {dict(task.columns)["path"] for task in documents}

    assert paths(Documents(folder / "**" / "*.md")) == {"guide/install.md"}
    assert paths(Documents(folder / "notes.txt")) == {"notes.txt"}
    assert paths(Documents(folder, skip=("guide/*",))) == {"notes.txt"}
    (folder / "app.log").write_text("Named, so it is text.")
    assert paths(Documents(folder / "*.log")) == {"app.log"}


def test_the_identity_is_names_and_content(folder: Path, tmp_path: Path) -> None:
    first = fingerprint(Documents(folder))
    moved = folder.rename(tmp_path / "elsewhere")
    assert fingerprint(Documents(moved)) == first != fingerprint(Documents(moved, size=10))
    (moved / "notes.txt").write_text("Something else.")
    assert fingerprint(Documents(moved)) != first


def test_a_split_keeps_all_chunks_of_a_document_on_one_side(tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number}.md").write_text(f"# Of {number}\n\nText {number}.\n\n## More\n\nOther text {number}.\n")
    sides = [{dict(task.columns)["path"] for task in Documents(tmp_path, split=side, share=0.3)} for side in ("train", "held_out")]  # type: ignore[arg-type]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 60 and 8 <= len(sides[1]) <= 30


def test_pdf_pages_are_headings_and_pictures_alone_are_reported(tmp_path: Path) -> None:
    pdf(tmp_path / "paper.pdf", "Hello from page one", "And page two")
    found = [(dict(task.columns)["headings"], str(task.prompt).strip(), dict(task.columns)["title"]) for task in Documents(tmp_path)]
    assert found == [("page 1", "Hello from page one", "paper"), ("page 2", "And page two", "paper")]
    writer = PdfWriter()
    writer.add_blank_page(100, 100)
    writer.write(tmp_path / "scan.pdf")
    with pytest.raises(DataError, match=r"scan\.pdf: it has no text \(pages of pictures\?\)"):
        list(Documents(tmp_path))


def test_every_file_that_cannot_be_read_is_named_with_its_reason(folder: Path) -> None:
    (folder / "empty.md").write_text(" \n\n")
    (folder / "picture.png").write_bytes(b"\x89PNG\0")
    (folder / "null.txt").write_bytes(b"abc\0def")
    (folder / "latin.txt").write_bytes("caf\xe9 au lait".encode("latin-1"))
    (folder / "wide.txt").write_text("wide", encoding="utf-16")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    with pytest.raises(DataError) as caught:
        list(Documents(folder))
    message = str(caught.value)
    for said in (
        "6 of 8 files",
        "empty.md: it is empty",
        "picture.png: its ending is none of .md",
        "null.txt: it is binary",
        "latin.txt: it is not utf-8",
        "wide.txt: it is UTF-16; write it as UTF-8, or set encoding: utf-16",
        "broken.pdf: it is no readable PDF",
        "leave them out: skip: ['broken.pdf', 'empty.md'",
    ):
        assert said in message
    bad = ("empty.md", "*.png", "null.txt", "wide.txt", "*.pdf")
    assert len(list(Documents(folder, skip=bad, encoding="latin-1"))) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "dosc"}, "there is no file or folder .*dosc; did you mean 'docs'"),
        ({"path": "docs/*.rst"}, "names no files"),
        ({"path": "docs", "skip": ("*",)}, "names no files that are not skipped"),
        ({"path": "docs", "encoding": "utf8x"}, "encoding is 'utf8x', which Python does not know"),
        ({"path": "docs", "split": "held_out", "share": 1e-9}, "no document is left by split='held_out'"),
        ({"path": "docs", "split": "test"}, "split='test'"),
        ({"path": "docs", "size": 0}, "size=0"),
        ({"path": "docs", "prompt": "{{ chunks }}"}, "documents: prompt uses 'chunks'.* did you mean 'chunk'"),
        ({"path": "docs", "prompt": "{{ chunk[:0] }}"}, r"chunk 1 of guide/install.md: the prompt is empty"),
        ({"path": "docs", "prompt": "{{ chunk.__class__ }}"}, "unsafe"),
    ],
)
def test_settings_that_name_nothing_are_refused(settings: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        list(Documents(**{**settings, "path": folder.parent / settings["path"]}))


def test_line_ends_and_byte_order_marks_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "windows.md").write_bytes(b"\xef\xbb\xbf# A\r\n\r\ntext\r\n")
    (task,) = Documents(tmp_path)
    assert task.prompt == "# A\r\n\r\ntext" and dict(task.columns)["headings"] == "A"


@pytest.mark.parametrize("name", ["long.txt", "long.md"])
def test_a_large_document_streams(name: str, tmp_path: Path) -> None:
    with (tmp_path / name).open("w") as file:
        for _ in range(400):
            file.write("Some words of a line that never ends. " * 500)
    size = (tmp_path / name).stat().st_size
    tracemalloc.start()
    count = sum(1 for _ in Documents(tmp_path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count > size / 2100 and peak < size / 2


def test_templates_in_a_document_are_only_text(tmp_path: Path) -> None:
    (tmp_path / "hostile.md").write_text("{{ ''.__class__ }} {% raise %}")
    assert [task.prompt for task in Compose("{{ chunk }}", rows=Documents(tmp_path))] == ["{{ ''.__class__ }} {% raise %}"]
    assert json.dumps(next(iter(Documents(tmp_path))).prompt) == json.dumps("{{ ''.__class__ }} {% raise %}")

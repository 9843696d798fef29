"""docs/notebook.ipynb, run cell by cell in a kernel of its own, as Jupyter does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.demo_run import environment
from tests.support.documents import PROJECT

NOTEBOOK = PROJECT / "docs" / "notebook.ipynb"


def read_notebook() -> Any:
    """The notebook as it is committed."""
    return nbformat.read(NOTEBOOK, as_version=4)


def list_code(notebook: Any) -> list[Any]:
    """Its cells that run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def read_output(cell: Any, kind: str) -> str:
    """What `cell` has put out as `kind`: text/plain, text/html, or stdout."""
    found = [one for one in cell.outputs if one.get("name") == kind or kind in one.get("data", {})]
    return "".join(one["text"] if "text" in one else one["data"][kind] for one in found)


def test_the_notebook_is_valid_is_committed_without_outputs_and_its_links_lead_to_pages() -> None:
    notebook = read_notebook()
    nbformat.validate(notebook)
    assert not [cell for cell in list_code(notebook) if cell.outputs or cell.execution_count is not None]
    text = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([\w.-]+)(?:#[\w-]+)?\)", text)
    assert len(links) > 4 and all((NOTEBOOK.parent / link).is_file() for link in links)


@pytest.mark.slow
def test_every_cell_runs_and_shows_what_the_text_says(tmp_path: Path) -> None:
    notebook = read_notebook()
    (tmp_path / "temporary").mkdir()
    own = {name: str(tmp_path / name) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR")}
    variables = environment() | own | {"TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": str(PROJECT)}
    client = NotebookClient(notebook, timeout=850, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=variables)
    shown = {cell.source.partition("\n")[0]: cell for cell in list_code(notebook)}

    kept = read_output(shown['manifest.show("kept order by sharpness desc", limit=12)'], "text/html")
    assert kept.count("<figure") == 12 and kept.count("<details>") == 12
    counted = read_output(next(cell for cell in shown.values() if "manifest.query(" in cell.source), "text/plain")
    assert "kept" in counted and "pictures" in counted
    (told,) = (cell for cell in shown.values() if "--what-if" in cell.source)
    assert all(rule in read_output(told, "stdout") for rule in ("min_side", "said", "plain", "wide"))
    batches = read_output(next(cell for cell in shown.values() if "Loader(" in cell.source), "stdout").splitlines()
    assert len(batches) > 3 and all("(32, 3, 64, 64) (32, 77)" in line for line in batches)
    (sheet,) = (tmp_path / "temporary").glob("book-*/sheet.html")
    assert "contact-sheet" in sheet.read_text(encoding="utf-8")

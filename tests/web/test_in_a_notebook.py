"""``tfstyle.ui()`` in a kernel: the page appears below the cell, and answers."""

import re

import nbformat
import pytest
from nbclient import NotebookClient

pytest.importorskip("gradio")
pytestmark = pytest.mark.ui

CELLS = (
    "import tfstyle\npage = tfstyle.ui()",
    "import urllib.request\nprint(len(urllib.request.urlopen(page.local_url).read()))",
    "page.close()",
)


def test_the_page_is_shown_below_the_cell(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = "".join(
        output.data.get("text/html", "") for output in notebook.cells[0].outputs if "data" in output
    )
    assert re.search(r'<iframe src="http://127\.0\.0\.1:\d+/', shown)
    (answer,) = (output.text for output in notebook.cells[1].outputs if output.output_type == "stream")
    assert int(answer) > 1000

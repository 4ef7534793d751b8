"""Write the report of a run: the notebook executed on it, without the code, as one self-contained HTML file.

    python report.py                    results/ -> results/report.html
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

from unet.system.signals import end_at_once

if __name__ == "__main__":
    end_at_once()

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter

from unet.report.by_task import pictures_of
from unet.report.run import last_run
from unet.report.viewer import viewer
from utils import Parser, UserError, atomic_path, run

NOTEBOOK = Path(__file__).resolve().with_name("jupyter.ipynb")
WORK = Path("results")
SECONDS = 600  # the longest time for a cell to run, and for the kernel to start
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body {{ font: 16px/1.5 sans-serif; color: #222; max-width: 1240px; margin: 2em auto; padding: 0 1.5em; }}
p, li {{ max-width: 50em; }}
img {{ max-width: 100%; }}
table {{ border-collapse: collapse; font-size: 14px; margin: 1em 0; }}
th, td {{ border-bottom: 1px solid #ccc; padding: .25em .7em; text-align: left; vertical-align: top; }}
a.anchor-link, .prompt {{ display: none; }}
pre {{ white-space: pre-wrap; }}
</style></head><body>
{body}
</body></html>
"""


def execute(parameters: dict[str, str], notebook: Path = NOTEBOOK) -> nbformat.NotebookNode:
    """Execute the notebook and return it with its outputs, except stderr.

    `parameters` replace those in the cell with the tag "parameters". Raises UserError if a cell fails.
    """
    node = nbformat.read(notebook, as_version=4)
    if parameters:
        cell = next(cell for cell in node.cells if "parameters" in cell.metadata.get("tags", ()))
        cell.source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    # run in this Python, whatever kernels the user has installed under the same name
    kernel = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    client = NotebookClient(node, kernel, timeout=SECONDS, startup_timeout=SECONDS,
                            resources={"metadata": {"path": str(notebook.parent)}})
    try:
        client.execute(stderr=subprocess.DEVNULL)  # TensorFlow's messages
    except CellExecutionError as error:
        raise UserError(f"{notebook.name} stopped at a cell: {error.ename}: {error.evalue}; run it in Jupyter to see "
                        "where") from None
    except DeadKernelError:
        raise UserError(f"{notebook.name}: its process was killed, most often because memory ran out; close other "
                        "programs and run this again") from None
    _tidy(node)
    node.metadata["executed"] = code_hash(node)
    return node


def code_hash(node: nbformat.NotebookNode) -> str:
    """Return the SHA-256 of a notebook's code, to tell whether its outputs are of this very code."""
    code = "\n\n".join(cell.source for cell in node.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()


def _tidy(node: nbformat.NotebookNode) -> None:
    """Remove all but results, and give each picture the heading above it as alternative text."""
    title = ""
    for cell in node.cells:
        cell.metadata.pop("execution", None)  # times of day, which differ from run to run
        if cell.cell_type == "markdown":
            title = re.sub("[#*`]", "", cell.source).strip().splitlines()[0].split(". ")[0]
            continue
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]  # TensorFlow's messages
        for output in cell.outputs:
            if "image/jpeg" in output.get("data", {}):
                output.metadata["image/jpeg"] = {"alt": title}


def page(node: nbformat.NotebookNode, title: str, top: str = "") -> str:
    """Return an executed notebook as one HTML page: text, tables and pictures without code or external links.

    `top` is HTML that comes before it.
    """
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(node)
    return PAGE.format(title=title, body=top + body)


def main() -> None:
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the run")
    parser.add_argument("--data", type=Path, help="folder of the run's data, if it was moved")
    parser.add_argument("--out", type=Path, help="file or folder of the run's prediction, if it was moved")
    parser.add_argument("--notebook", type=Path, metavar="FILE", help="also write the executed notebook")
    args = parser.parse_args()
    source = last_run(args.work, args.data, args.out)  # first: a missing run is one line, not a notebook's traceback
    places = {"work": source.work, "data": source.layout.folder, "out": source.outputs.out}
    # the notebook stays as it is if it finds the run without parameters
    finds_run = Path.cwd() == NOTEBOOK.parent and (args.work, args.data, args.out) == (WORK, None, None)
    node = execute({} if finds_run else {name: str(place.resolve()) for name, place in places.items()})
    path = source.work / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(page(node, f"Report of {source.work.resolve().name}",
                                  viewer(source, pictures_of(source.task))), encoding="utf-8")
    if args.notebook:
        with atomic_path(args.notebook) as temporary:
            nbformat.write(node, temporary)
    print(f"{path}: settings, scores, pictures and a methods paragraph of this run, in one file")


if __name__ == "__main__":
    run(main)

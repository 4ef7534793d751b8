"""The report of a run: the notebook executed on it, code hidden, as one HTML file that needs nothing else.

    python report.py                    results/ -> results/report.html
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from unet.signals import end_at_once

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
SECONDS = 600  # that a cell may take, and the kernel to start
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
    """Execute the notebook and return it with its outputs, without what went to stderr.

    `parameters` take the place of those in its first cell, which is tagged so. Raises UserError where a cell fails.
    """
    node = nbformat.read(notebook, as_version=4)
    if parameters:
        cell = next(cell for cell in node.cells if "parameters" in cell.metadata.get("tags", ()))
        cell.source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    # this very Python, whatever kernels the user has installed under the same name
    kernel = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    client = NotebookClient(node, kernel, timeout=SECONDS, startup_timeout=SECONDS,
                            resources={"metadata": {"path": str(notebook.parent)}})
    try:
        client.execute(stderr=subprocess.DEVNULL)  # where TensorFlow greets
    except CellExecutionError as error:
        raise UserError(f"{notebook.name} stopped at a cell: {error.ename}: {error.evalue}") from None
    except DeadKernelError:
        raise UserError(f"{notebook.name}: its process was ended from outside, mostly for want of memory") from None
    _tidy(node)
    return node


def _tidy(node: nbformat.NotebookNode) -> None:
    """Leave out what is no result, and give each picture the text above it for readers who do not see it."""
    title = ""
    for cell in node.cells:
        cell.metadata.pop("execution", None)  # times of day: they differ from run to run
        if cell.cell_type == "markdown":
            title = re.sub("[#*`]", "", cell.source).strip().splitlines()[0].split(". ")[0]
            continue
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]  # TensorFlow's greetings
        for output in cell.outputs:
            if "image/jpeg" in output.get("data", {}):
                output.metadata["image/jpeg"] = {"alt": title}


def page(node: nbformat.NotebookNode, title: str, top: str = "") -> str:
    """An executed notebook as one HTML page: text, tables and pictures without the code, no links out.

    `top` is HTML that comes first.
    """
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(node)
    return PAGE.format(title=title, body=top + body)


def main() -> None:
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the run (results)")
    parser.add_argument("--data", type=Path, help="folder of the data that it was made of, where they were moved")
    parser.add_argument("--out", type=Path, help="what it predicted, where that was moved")
    parser.add_argument("--notebook", type=Path, metavar="FILE", help="write the executed notebook, too")
    args = parser.parse_args()
    one = last_run(args.work, args.data, args.out)  # a run that is not there is one line, not a notebook's traceback
    places = {"work": one.work, "data": one.layout.folder, "out": one.outputs.out}
    # what the notebook finds by itself leaves its code as it is
    by_itself = Path.cwd() == NOTEBOOK.parent and (args.work, args.data, args.out) == (WORK, None, None)
    node = execute({} if by_itself else {name: str(place.resolve()) for name, place in places.items()})
    path = one.work / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(page(node, f"Report of {one.work.resolve().name}",
                                  viewer(one, pictures_of(one.task))), encoding="utf-8")
    if args.notebook:
        with atomic_path(args.notebook) as temporary:
            nbformat.write(node, temporary)
    print(f"{path}: settings, scores, pictures and a methods paragraph of this run, in one file")


if __name__ == "__main__":
    run(main)

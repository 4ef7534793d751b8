"""Files that change while they are read are said."""

import pytest

from unet.inputs.samples import Samples
from utils import UserError


class Files(Samples):
    """Samples of which nothing but their files is asked."""

    def __init__(self, *files):
        self.watch(files)

    def __getitem__(self, number):
        raise IndexError(number)


@pytest.mark.parametrize("change", ["replaced", "longer", "gone"])
def test_a_file_that_changes_while_it_is_read_is_said(tmp_path, change):
    path, other, discarded = tmp_path / "a.tif", tmp_path / "b.tif", []
    path.write_text("one")
    other.write_text("two")
    samples = Files(path, tmp_path / "never")
    with samples.require_unchanged():
        pass
    with pytest.raises(UserError, match=r"a\.tif was replaced while it was being read"), \
            samples.require_unchanged(lambda: discarded.append(1)):
        if change == "replaced":
            other.replace(path)
        else:
            path.write_text("three") if change == "longer" else path.unlink()
        raise OSError("pixels that are elsewhere now")  # what is raised meanwhile has its cause in the change
    assert discarded


def test_what_is_raised_for_another_cause_is_raised(tmp_path):
    samples = Files(tmp_path)
    with pytest.raises(OSError, match="disk"), samples.require_unchanged(lambda: pytest.fail("nothing changed")):
        raise OSError("disk")

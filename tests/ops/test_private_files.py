"""Who may read a file with secrets, once it has been written."""

import os
import stat
from pathlib import Path

import pytest

from app.ops import private_files
from app.ops.private_files import write_private

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
SERVICE = 4711


@pytest.fixture
def path(tmp_path):
    return tmp_path / "accounts.toml"


def access(path):
    found = path.stat()
    return found.st_uid, found.st_gid, oct(stat.S_IMODE(found.st_mode))


def test_a_new_file_is_its_owners(path):
    write_private(path, "new")
    assert (path.read_text(), access(path)[2]) == ("new", "0o600")


@pytest.mark.parametrize(("before", "after"), [(0o600, 0o600), (0o640, 0o640), (0o664, 0o660)])
def test_a_mode_is_kept_but_for_others(path, before, after):
    path.write_text("old")
    path.chmod(before)
    write_private(path, "new")
    assert (path.read_text(), access(path)[2]) == ("new", oct(after))
    assert [each.name for each in path.parent.iterdir()] == ["accounts.toml"]


@as_root
def test_root_leaves_a_file_to_whom_it_belongs(path):
    path.write_text("old")
    path.chmod(0o640)
    os.chown(path, 0, SERVICE)
    write_private(path, "new")
    assert access(path) == (0, SERVICE, "0o640")
    os.chown(path, SERVICE, SERVICE)
    write_private(path, "newer")
    assert access(path) == (SERVICE, SERVICE, "0o640")


@as_root
@pytest.mark.parametrize(
    ("folder", "file"),
    [(0o750, (0, SERVICE, "0o640")), (0o755, (0, 0, "0o600")), (0o700, (0, 0, "0o600"))],
)
def test_what_root_makes_in_the_folder_of_a_service_the_service_can_read(path, folder, file):
    os.chown(path.parent, 0, SERVICE)
    path.parent.chmod(folder)
    write_private(path, "new")
    assert access(path) == file


def test_no_other_group_gets_to_read_it(path, monkeypatch):
    """Whoever is not in the file's group can't keep it: then it is for no group."""

    def refused(*_):
        raise PermissionError

    path.write_text("old")
    path.chmod(0o660)
    monkeypatch.setattr(private_files.os, "fchown", refused)
    write_private(path, "new")
    assert access(path)[2] == "0o600"


def test_a_folder_that_takes_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_private(Path(tmp_path / "file" / "accounts.toml"), "new")

import pytest

from headstart.files import replacing


def test_an_error_leaves_what_was_there_and_no_litter(tmp_path):
    path = tmp_path / "new folder" / "a.csv"
    with replacing(path) as stream:
        stream.write("first\n")
    with pytest.raises(TypeError), replacing(path) as stream:
        stream.writelines(["second\n", 3])
    assert path.read_text() == "first\n"
    assert list(path.parent.iterdir()) == [path]

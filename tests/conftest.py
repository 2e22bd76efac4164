"Where tests find real data and golden values; both are optional."
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _folder(variable, default):
    path = Path(os.environ.get(variable, ROOT / default))
    return path if path.is_dir() else None


REAL, GOLDEN = _folder('SIGNBOOK_REAL_DATA', '../shared/data'), _folder('SIGNBOOK_GOLDEN', '../shared/golden')


@pytest.fixture(scope='session')
def real():
    "Folder of real corpora."
    return REAL or pytest.skip('no real data: set SIGNBOOK_REAL_DATA')


@pytest.fixture(scope='session')
def golden():
    "Folder of golden values."
    return GOLDEN or pytest.skip('no golden values: set SIGNBOOK_GOLDEN')


@pytest.fixture
def place(tmp_path, monkeypatch):
    "An empty place for data and outputs."
    monkeypatch.setenv('SIGNBOOK_DATA', str(tmp_path / 'data'))
    monkeypatch.setenv('SIGNBOOK_OUTPUTS', str(tmp_path / 'outputs'))
    monkeypatch.delenv('SIGNBOOK_MIRROR', raising=False)
    return tmp_path

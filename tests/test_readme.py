"The examples of the README, as they stand."
import re

import numpy as np
import pytest

from conftest import ROOT

EXAMPLES = re.findall(r'^```python\n(.*?)^```', (ROOT / 'README.md').read_text(encoding='utf-8'), re.M | re.S)


@pytest.mark.parametrize('code', EXAMPLES, ids=[re.findall(r'from signbook\.(\w+)', c)[-1] for c in EXAMPLES])
def test_example(code, monkeypatch, request):
    if 'load_corpus' in code: monkeypatch.setenv('SIGNBOOK_DATA', str(request.getfixturevalue('real')))
    here, lines = {}, code.strip().split('\n')
    exec('\n'.join(lines[:-1]), here)
    shown = eval(lines[-1], here) if not re.match(r'[\w, *]+ = ', lines[-1]) else exec(lines[-1], here) or here['gloss']
    assert len(lines) <= 6 and shown is not None
    if 'sign_density_ratio' in here: assert 0 < shown.sdr < 150 and len(here['middle']) == len(here['isolated'])
    if 'cico_similarity' in here: assert [tuple(s.shape) for s in shown] == [(4, 4)] * 2
    if 'SLGCN' in here: assert tuple(shown.shape) == (2, 2731) and len(here['features']) == 16 and np.isfinite(shown.detach().numpy()).all()

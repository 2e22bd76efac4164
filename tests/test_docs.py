"The documentation site: every link leads somewhere, every notebook, module and guide has its page."
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT


def test_site_builds_and_no_link_is_broken(tmp_path):
    pytest.importorskip('mkdocs')
    done = subprocess.run([sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet', '--site-dir', tmp_path], cwd=ROOT, capture_output=True, text=True, env={**os.environ, 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}', 'NO_MKDOCS_2_WARNING': '1'})
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'WARNING' not in done.stderr
    pages = {str(p.relative_to(tmp_path).parent) for p in tmp_path.rglob('index.html')}
    assert {f'notebooks/{p.stem}' for p in (ROOT / 'nbs').glob('*.ipynb')} <= pages and {f'guides/{p.stem}' for p in (ROOT / 'docs/guides').glob('*.md')} <= pages
    assert 'api/density' in pages and 'class="doc doc-heading"' in (tmp_path / 'api/density/index.html').read_text()
    assert (tmp_path / 'report.html').read_text().startswith('<!doctype html>') and (tmp_path / 'search').is_dir()
    home = (tmp_path / 'index.html').read_text()
    for link in re.findall(r'href="((?:notebooks|guides|reference)/[^"#]*)"', home): assert (tmp_path / link).exists(), link

"Run All in JupyterLab, in a real Chromium: every table notebook, with its defaults."
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from conftest import ROOT
from signbook.run import table_notebooks

TABLES, SECONDS = list(table_notebooks()), 300
STORED = Path(sys.prefix) / 'test-outputs/units'  # of the notebook tests that `make test` runs first


def blank(path, folder):
    "A copy without outputs, so that what is seen was made now."
    nb = json.loads(path.read_text(encoding='utf-8'))
    for c in nb['cells']:
        if c['cell_type'] == 'code': c |= dict(outputs=[], execution_count=None)
    (folder / path.name).write_text(json.dumps(nb), encoding='utf-8')


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "(address, folder of results) of a JupyterLab over copies of the notebooks."
    pytest.importorskip('playwright.sync_api')
    if not shutil.which('chromium'): pytest.skip('no chromium')
    at = tmp_path_factory.mktemp('lab')
    for n in ('nbs', 'settings', 'outputs'): (at / n).mkdir()
    if STORED.is_dir(): (at / 'outputs/units').symlink_to(STORED)
    for p in (*table_notebooks().values(), ROOT / 'nbs/000_start.ipynb'): blank(p, at / 'nbs')
    (at / 'settings/overrides.json').write_text(json.dumps({'@jupyterlab/notebook-extension:tracker': {'windowingMode': 'none'}, '@jupyterlab/apputils-extension:notification': {'fetchNews': 'false', 'checkForUpdates': False}}))
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    env = {**os.environ, 'SIGNBOOK_OUTPUTS': str(at / 'outputs'), 'SIGNBOOK_DATA': str(at / 'data'), 'JUPYTER_CONFIG_DIR': str(at / 'config'), 'JUPYTER_RUNTIME_DIR': str(at / 'runtime'), 'JUPYTER_DATA_DIR': str(at / 'share'), 'JUPYTERLAB_WORKSPACES_DIR': str(at / 'spaces'), 'PYTHONPATH': str(ROOT)}
    log = open(at / 'log', 'w')
    server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', f'--ServerApp.port={port}', '--ServerApp.port_retries=0', '--IdentityProvider.token=', '--ServerApp.disable_check_xsrf=True', f'--ServerApp.root_dir={at / "nbs"}', f'--LabApp.app_settings_dir={at / "settings"}'], cwd=at, env=env, stdout=log, stderr=log, start_new_session=True)
    for _ in range(240):
        try: urllib.request.urlopen(f'http://127.0.0.1:{port}/api/status', timeout=2).close(); break
        except OSError: time.sleep(.5)
    else: server.kill(); pytest.fail((at / 'log').read_text()[-2000:])
    yield f'http://127.0.0.1:{port}', at / 'outputs/results'
    server.terminate()
    try: server.wait(20)
    except subprocess.TimeoutExpired: os.killpg(server.pid, 9)


@pytest.fixture(scope='module')
def browser(lab):
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        yield p.chromium.launch(executable_path=shutil.which('chromium'), args=['--no-sandbox', '--disable-background-networking', '--disable-component-update'])


STATE = '''() => { const cells = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')]; const said = cells.map(c => c.querySelector('.jp-InputPrompt')?.innerText.trim() ?? '');
  return { waiting: said.filter(s => s.includes('*')).length, ran: said.filter(s => /\\[\\d+\\]/.test(s)).length, cells: cells.length,
           errors: [...document.querySelectorAll('.jp-RenderedText[data-mime-type="application/vnd.jupyter.error"]')].map(e => e.innerText.slice(-400)) } }'''


@pytest.mark.parametrize('name', ['000_start', *TABLES])
def test_run_all_in_the_browser(name, lab, browser, tmp_path):
    address, results = lab
    tab = browser.new_page(viewport=dict(width=1400, height=1000)); tab.set_default_timeout(120_000)
    tab.goto(f'{address}/lab/tree/{name}.ipynb?reset')
    tab.wait_for_selector('.jp-Notebook .jp-CodeCell')
    tab.wait_for_function("document.querySelector('#jp-main-statusbar')?.innerText.includes('| Idle')")
    tab.click('.lm-MenuBar-itemLabel:text-is("Run")')
    tab.click('.lm-Menu-itemLabel:text-is("Run All Cells")')
    end = time.monotonic() + SECONDS
    while True:
        tab.wait_for_timeout(500)
        state = tab.evaluate(STATE)
        if state['errors'] or state['ran'] and not state['waiting']: break
        assert time.monotonic() < end, state
    tab.screenshot(path=tmp_path / 'lab.png')
    assert state['errors'] == [] and state['ran'] >= state['cells'] - 3
    if name in TABLES: assert json.loads((results / f'{name}.smoke.json').read_text())['notebook'] == name
    tab.close()

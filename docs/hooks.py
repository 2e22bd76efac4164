"Pages that mkdocs makes while it builds: the README as home, one API page a module."
import json
import re
import tempfile
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent


def modules():
    "Names of the package's modules, by the number of their notebooks."
    cells = ((p, c) for p in sorted((ROOT / 'nbs').glob('*.ipynb')) for c in json.loads(p.read_text(encoding='utf-8'))['cells'])
    return [m[1] for _, c in cells if (m := re.search(r'^#\| default_exp (\S+)', ''.join(c['source']), re.M))]


def home():
    "The README with its links turned to the site's pages."
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    for there, here in (('](nbs/', '](notebooks/'), ('](outputs/reference/', '](reference/'), ('](CONTRIBUTING.md', '](contributing.md'), ('](docs/', '](')): text = text.replace(there, here)
    return text.replace('[CITATION.cff](CITATION.cff)', 'CITATION.cff')


def report_page():
    "The report of the committed reference results."
    from signbook.report import gather, render
    with tempfile.TemporaryDirectory() as empty: return render(gather(empty))


def on_files(files, config):
    page = lambda name, text: files.append(File.generated(config, name, content=text))
    page('index.md', home())
    page('contributing.md', (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8'))
    for m in modules(): page(f'api/{m}.md', f'# signbook.{m}\n\n::: signbook.{m}\n    options: {{show_root_heading: false}}\n')
    files.append(File.generated(config, 'report.html', content=report_page()))
    files.append(File.generated(config, 'reference/overview.svg', content=(ROOT / 'outputs/reference/overview.svg').read_bytes()))
    return files


def on_config(config):
    "Home, report, notebooks and API in order."
    notebooks = [f'notebooks/{p.name}' for p in sorted((ROOT / 'nbs').glob('*.ipynb'))]
    guides, cards = ([f'{d}/{p.name}' for p in sorted((ROOT / 'docs' / d).glob('*.md'))] for d in ('guides', 'cards'))
    config.nav = [{'Home': 'index.md'}, {'Report': 'report.html'}, {'Notebooks': notebooks}, {'Guides': guides}, {'Cards': cards}, {'API': [{f'signbook.{m}': f'api/{m}.md'} for m in modules()]}, {'Contributing': 'contributing.md'}]
    return config

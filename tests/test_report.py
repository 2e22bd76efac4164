"The report: one self-contained page, whatever the result files hold."
import re
import shutil
from html.parser import HTMLParser

import pytest

import signbook.report as report_module
from signbook.core import InputError, provenance, save_json
from signbook.evidence import cell, claim, claim_of, not_run, papers, save_result
from signbook.report import check_readable, command_of, gather, overview_figure, render, report, results_of, save_overview

VOID = {'meta', 'img', 'br', 'source', 'link', 'input', 'hr'}
EVIL = '</td></table><script>alert(1)</script>"><img src=http://evil.example/x onerror=alert(2)>{{ 7*7 }}'
ROW = 'ensemble fine-tuned on validation, RGB'


class Page(HTMLParser):
    "Element tree checks: balanced, nothing loaded, tables described."
    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.loads, self.handlers, self.ids, self.text = [], [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.handlers += [k for k in attrs if k.startswith('on')]
        self.loads += [v for k, v in attrs.items() if k in ('src', 'srcset', 'data', 'action', 'style') or (k == 'href' and tag != 'a')]
        if 'id' in attrs: self.ids.append(attrs['id'])
        if tag not in VOID: self.open.append(tag)

    def handle_endtag(self, tag): assert self.open.pop() == tag, tag

    def handle_data(self, data): self.text.append(data)

    def all(self, tag): return [a for t, a in self.tags if t == tag]


def small_figure():
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, 1])
    plt.close(fig)
    return fig


def write(folder, name='12_autsl', scale='smoke', text='RGB reaches 98.42 %', evidence='rescored', value=98.4, **provenance_changes):
    "A small real result file; returns it."
    common = dict(evidence=evidence, corpus='autsl-scores', n=3742)
    made = {**provenance({'scale': scale, 'seeds': '7', 'out': ''}), **provenance_changes}
    claims = [claim('rgb', text, paper='samslr', verdict='holds', printed=98.42, effect=value, low=value - .4, high=value + .4, unit='%', note=text, **common),
              claim('depth', 'Depth helps', paper='samslr', verdict='inconclusive', kind='difference', effect=.1, low=-.1, high=.3, p=.4, unit='points', **common)]
    return save_result(folder / f'{name}.{scale}.json', name, text, [cell('samslr', 'table8', ROW, 'top-1', value, scale=scale, low=value - .4, high=value + .4, **common), cell('samslr', text, text, text, 1.5, scale=scale, **common)],
                       claims, missing=[not_run('samslr', 'table8', text, text, text)], figures=[('dots', text, text, small_figure())], provenance=made)


@pytest.fixture
def results(place, monkeypatch):
    "The folder where results are looked for, and no shipped references."
    monkeypatch.setattr(report_module, 'packaged', lambda kind: place / 'none')
    (place / 'outputs/results').mkdir(parents=True)
    return place / 'outputs/results'


@pytest.fixture
def page(results):
    write(results)
    return report().read_text(encoding='utf-8')


def test_page_is_balanced_and_loads_nothing(page):
    seen = Page(page)
    assert seen.handlers == [] and not seen.all('script') and not seen.all('link') and not seen.all('iframe')
    assert seen.loads and all(x.startswith('data:image/svg+xml;base64,') for x in seen.loads)
    assert not re.search(r'url\(|@import', page)
    assert all(a['href'].startswith(('#', 'https://')) for a in seen.all('a'))
    assert len(set(seen.ids)) == len(seen.ids)
    assert {a['href'][1:] for a in seen.all('a') if a['href'].startswith('#')} <= set(seen.ids)


def test_page_can_be_read_without_eyes(page):
    seen = Page(page)
    assert seen.all('html') == [{'lang': 'en'}] and seen.all('a')[0]['class'] == 'skip'
    assert all(a.get('alt') for a in seen.all('img'))
    assert all(a.get('scope') in ('row', 'col', 'rowgroup') for a in seen.all('th'))
    assert len(seen.all('caption')) == len(seen.all('table')) > 50
    assert all(a.get('tabindex') == '0' and a.get('aria-label') for a in seen.all('div') if a.get('class') == 'scroll')
    assert [t for t, _ in seen.tags if t in ('h1', 'main', 'header', 'footer', 'nav')].count('h1') == 1
    levels = [int(t[1]) for t, _ in seen.tags if re.fullmatch('h[1-6]', t)]
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:]))


def test_every_transcribed_table_is_there_with_its_notes(page):
    text = re.sub(r'\s+', ' ', ' '.join(Page(page).text))
    for p in papers().values():
        assert p['title'] in text
        for t in p['tables']:
            assert re.sub(r'\s+', ' ', t['caption']) in text
            assert all(re.sub(r'\s+', ' ', n) in text for n in t['notes'])


def luminance(colour):
    c = colour.lstrip('#')
    parts = [int(x, 16) / 255 for x in ([h * 2 for h in c] if len(c) == 3 else [c[i:i + 2] for i in (0, 2, 4)])]
    return sum(w * (x / 12.92 if x <= .03928 else ((x + .055) / 1.055)**2.4) for w, x in zip((.2126, .7152, .0722), parts))


def contrast(a, b): return (max(map(luminance, (a, b))) + .05) / (min(map(luminance, (a, b))) + .05)


def test_contrast_of_all_text_colours(page):
    schemes = [dict(re.findall(r'--(\w+): (#\w+)', block)) for block in re.findall(r':root \{([^}]*)\}', page)]
    assert len(schemes) == 3 and abs(contrast('#000', '#fff') - 21) < 1e-6
    for s in schemes:
        for ink in ('ink', 'soft', 'link', 'good', 'bad', 'open'):
            assert min(contrast(s[ink], s['bg']), contrast(s[ink], s['tint'])) >= 4.5, (ink, s)


def test_hostile_texts_stay_texts(results):
    write(results, text=EVIL)
    page = report().read_text(encoding='utf-8')
    seen = Page(page)
    assert not seen.all('script') and seen.handlers == [] and all(x.startswith('data:image/svg+xml') for x in seen.loads)
    assert 'evil.example' in ' '.join(seen.text) and '{{ 7*7 }}' in page


def test_hostile_parameters_are_quoted_for_the_shell(results):
    r = write(results)
    r['provenance']['parameters'] = {'scale': 'cpu', 'seeds': '7', 'corpus': '$(rm -rf x)', 'extra key': "a'b", 'out': 'secret/place'}
    assert command_of(r) == """signbook run 12_autsl --scale cpu --seeds 7 --corpus '$(rm -rf x)' -p 'extra key' 'a'"'"'b'"""


@pytest.mark.parametrize('edit, field', [
    (lambda r: r.pop('claims'), '$.claims'),
    (lambda r: r['rows'][0].pop('n'), '$.rows[0].n'),
    (lambda r: r['rows'][0].update(value='98'), '$.rows[0].value'),
    (lambda r: r['rows'][0].update(value=True), '$.rows[0].value'),
    (lambda r: r['rows'][0].update(low=[1]), '$.rows[0].low'),
    (lambda r: r['rows'][0].update(evidence='guessed'), '$.rows[0].evidence'),
    (lambda r: r['rows'][0].update(evidence='transcribed'), '$.rows[0].evidence'),
    (lambda r: r['rows'][0].update(paper='samsrl'), '$.rows[0].paper'),
    (lambda r: r['rows'][0].update(seed=[1]), '$.rows[0].seed'),
    (lambda r: r['rows'][0].update(seed='1'), '$.rows[0].seed'),
    (lambda r: r['claims'][0].update(verdict='maybe'), '$.claims[0].verdict'),
    (lambda r: r['claims'][0].update(evidence='guessed'), '$.claims[0].evidence'),
    (lambda r: r['claims'][0].update(evidence=['rescored']), '$.claims[0].evidence'),
    (lambda r: r['claims'][0].update(kind='guess'), '$.claims[0].kind'),
    (lambda r: r['claims'][1].update(effect='much'), '$.claims[1].effect'),
    (lambda r: r['claims'][1].update(text=None), '$.claims[1].text'),
    (lambda r: r['not_run'][0].update(command=3), '$.not_run[0].command'),
    (lambda r: r['figures'][0].update(file='../../secret.svg'), '$.figures[0].file'),
    (lambda r: r['figures'][0].update(file='secret.txt'), '$.figures[0].file'),
    (lambda r: r['provenance'].update(git='main'), '$.provenance.git'),
    (lambda r: r['provenance'].update(seconds='long'), '$.provenance.seconds'),
    (lambda r: r['provenance']['parameters'].update(scale='huge'), '$.provenance.parameters.scale'),
    (lambda r: r['provenance']['parameters'].update(scale=['cpu']), '$.provenance.parameters.scale'),
    (lambda r: r.update(notebook=7), '$.notebook'),
    (lambda r: r['rows'][0].update(error='but it has a value'), '$.rows[0].error'),
    (lambda r: r['claims'][1].update(p_holm='.4'), '$.claims[1].p_holm'),
    (lambda r: r['claims'][1].update(margin=[1]), '$.claims[1].margin'),
    (lambda r: r['claims'][1].update(uncorrected='perhaps'), '$.claims[1].uncorrected'),
    (lambda r: r['provenance'].update(units={'row': 'x'}), '$.provenance.units'),
    (lambda r: r['provenance'].update(units=['x']), '$.provenance.units[0]'),
    (lambda r: r['provenance'].update(units=[{}, {'cpu': '3 s'}]), '$.provenance.units[1].cpu'),
    (lambda r: r['provenance'].update(units=[{'device': None}]), '$.provenance.units[0].device'),
    (lambda r: r['provenance'].update(units=[{'row': None}, {'row': 3}]), '$.provenance.units[1].row'),
])
def test_malformed_result_is_refused_by_file_and_field(edit, field, results):
    r = write(results)
    page = report_module.outputs_dir() / 'report.html'
    page.write_text('as it was')
    edit(r)
    save_json(results / '12_autsl.smoke.json', r)
    with pytest.raises(InputError) as e: report()
    assert str(e.value).startswith('12_autsl.smoke.json') and field in str(e.value) and '\n' not in str(e.value)
    assert page.read_text() == 'as it was' and not list(page.parent.glob('.*part'))


@pytest.mark.parametrize('text', ['', '[]', '{"rows": [', '{"a": NaN}', 'null'])
def test_a_file_that_is_no_result_is_refused(text, results):
    (results / '12_autsl.smoke.json').write_text(text)
    with pytest.raises(InputError, match='12_autsl.smoke.json'): report()


def test_without_any_result_every_claim_waits(results):
    page = report().read_text(encoding='utf-8')
    seen = Page(page)
    assert report_module.judged(results_of(gather())) == [] and 'No claim has been measured yet' in page
    statements = sum(len(t['rows']) for p in papers().values() for t in p['tables'] if t['id'] == 'claims')
    assert page.count('<span class="absent">not run</span>') == statements
    assert 'signbook run 12_autsl' in page and seen.loads == []


def test_absent_cells_and_papers_say_not_run(page):
    table = page[page.index('<caption><span>Table 8.'):]
    assert table[:table.index('</table>')].count('<span class="absent">not run</span>') >= 3
    assert page.count('Nothing has been measured for this paper yet') >= 1


def test_kinds_of_evidence_stay_on_lines_of_their_own(results):
    r = write(results)
    r['rows'].append({**r['rows'][0], 'evidence': 'mechanism', 'value': 12.5, 'low': None, 'high': None})
    r['claims'].append({**r['claims'][0], 'evidence': 'mechanism', 'effect': 12.5, 'low': None, 'high': None})
    save_json(results / '12_autsl.smoke.json', r)
    entry = next(e for e in gather() if e.notebook == '12_autsl')._replace(reference=None)
    lines = [x for g in report_module.cell_tables(entry, 'samslr')[0]['groups'] if g['head'] == ROW for x in g['lines'] if x[0].startswith('top-1')]
    assert [(x[2], x[3], x[4]) for x in lines] == [('98.40 [98.00, 98.80]', '✓ holds', 'rescored'), ('12.50', '', 'mechanism')]
    assert [(c['evidence'], c['effect']) for c in report_module.judged([entry.result]) if c['id'] == 'rgb'] == [('rescored', 98.4), ('mechanism', 12.5)]


def test_the_largest_run_is_shown_beside_the_reference(results, tmp_path):
    import os
    write(results, scale='gpu', value=90.)
    write(results, scale='smoke', value=91.)
    os.utime(results / '12_autsl.gpu.json', (1, 1))
    write(tmp_path / 'shipped', scale='cpu', value=92.)
    entry, = gather(results, tmp_path / 'shipped')
    assert (entry.result['rows'][0]['value'], entry.reference['rows'][0]['value']) == (90., 92.)
    page = render([entry])
    assert 'signbook run 12_autsl --scale gpu --seeds 7' in page and 'signbook run 12_autsl --scale cpu --seeds 7' in page
    assert [c['effect'] for c in report_module.judged(results_of([entry])) if c['id'] == 'rgb'] == [90.]
    empty = write(results, scale='paper')
    save_json(results / '12_autsl.paper.json', dict(empty, rows=[], claims=[], figures=[]))
    assert gather(results, tmp_path / 'shipped')[0].result['rows'][0]['value'] == 90.


def test_corpora_are_not_merged_and_the_page_names_them(results):
    for corpus, effect, verdict, scale in (('phoenix14t', 1.5, 'holds', 'gpu'), ('talks', -2., 'contradicted', 'paper')):
        c = claim('bleu', 'SignCL raises BLEU-4', paper='signcl', kind='difference', verdict=verdict, printed=1.44, effect=effect, low=effect - .5, high=effect + .5, unit='points', evidence='replicated', corpus=corpus, n=100)
        save_result(results / f'32_signcl_tables.{corpus}.{scale}.json', '32_signcl_tables', 'SignCL', [], [c], provenance=provenance({'scale': scale, 'corpus': corpus}))
    mine = report_module.judged(results_of(gather()))
    assert sorted((c['corpus'], c['verdict'], c['on']) for c in mine) == [('phoenix14t', 'holds', 'phoenix14t'), ('talks', 'contradicted', 'talks')]
    assert {c['corpus']: report_module.placed(c)[4] for c in mine} == {'phoenix14t': 1.44, 'talks': None}
    assert {'SignCL: SignCL raises BLEU-4 (on talks)', 'SignCL: SignCL raises BLEU-4 (on phoenix14t)'} <= {t.get_text() for ax in overview_figure(results_of(gather())).axes for t in ax.texts}
    page = report().read_text(encoding='utf-8')
    assert '<span class="soft">on talks</span>' in page and '<span class="soft">on phoenix14t</span>' in page


def test_the_picture_of_the_readme_is_that_of_the_reference_results(tmp_path):
    there = report_module.packaged('reference')
    save_overview(tmp_path / 'overview.svg', results_of(gather(there)), decided=True)
    assert (tmp_path / 'overview.svg').read_bytes() == (there / 'overview.svg').read_bytes(), 'CONTRIBUTING, "Reference results", says how it is drawn'


def test_a_missing_figure_is_said_and_the_page_still_made(results):
    write(results)
    (results / '12_autsl.smoke.dots.svg').unlink()
    assert 'Figure 12_autsl.smoke.dots.svg is missing' in report().read_text(encoding='utf-8')


def test_provenance_reaches_the_page(results):
    write(results, git={'commit': 'c0ffee' + '0'*34, 'dirty': True}, device='a toaster', packages={'numpy': '2.0', 'torch': None}, corpora={'autsl-scores': ['a1b2', 'c3d4']}, seconds=12.34, peak_memory_mib=512.)
    page = report().read_text(encoding='utf-8')
    for said in ('c0ffee' + '0'*34 + ' with uncommitted changes', 'a toaster', 'numpy 2.0', 'a1b2 c3d4', '12.3 s', '512 MiB'): assert said in page
    assert 'torch None' not in page


def write_broken(folder, error='NonFinite: loss at step 12', units=()):
    "A result with failed cells, several seeds, a claim that Holm's correction changed and recorded units; returns it."
    mech = dict(evidence='mechanism', corpus='signworld')
    made = lambda row, seed, value, error=None: cell('samslr', 'streams', row, 'top-1', value, seed=seed, error=error, scale='smoke', n=100, **mech)
    claims = [claim_of(dict(effect=1., low=.1, high=1.9, p=p, n=3, dropped=1), f'better-{p}', 'Ours is better', paper='samslr', unit='points', **mech) for p in (.03, .04)]
    return save_result(folder / '99_toy.smoke.json', '99_toy', 'Toy', [made('some', 0, 50.), made('some', 1, 52.), made('some', 2, None, error), made('none', 0, None, error), made('none', 1, None, error)],
                       [*claims, claim_of(dict(effect=.1, low=-.2, high=.4, p=.001, n=3, margin=.5), 'same', 'Half does as well', paper='samslr', unit='points', **mech)],
                       provenance={**provenance({'scale': 'smoke', 'seeds': '0,1,2'}), **({'units': list(units)} if units else {})})


def test_failed_cells_say_so_in_the_cell_in_a_list_and_at_the_top(results):
    write_broken(results)
    page = report().read_text(encoding='utf-8')
    text = re.sub(r'\s+', ' ', ' '.join(Page(page).text))
    assert page.count('<span class="failed">failed: NonFinite: loss at step 12</span>') == 1 and '(2 of 3 seeds)' in text
    assert 'failed cells <b>3</b>' in page and 'Failed in 99_toy' in text and 'none top-1 0, 1 NonFinite' in text
    write_broken(results, 'x' * 5000)
    assert max(map(len, re.findall('x+', report().read_text(encoding='utf-8')))) <= 500


def test_without_failures_nothing_speaks_of_them(page):
    assert 'failed cells' not in page and 'Failed in' not in page and 'Cost of' not in page and 'class="failed"' not in page


def test_hostile_errors_and_units_stay_texts(results):
    write_broken(results, EVIL, [dict(row=EVIL, device=EVIL, seed=0, wall=1.)])
    page = report().read_text(encoding='utf-8')
    seen = Page(page)
    assert not seen.all('script') and seen.handlers == [] and all(x.startswith('data:image/svg+xml') for x in seen.loads) and 'evil.example' in ' '.join(seen.text)


def test_corrected_p_and_its_verdict_are_shown(results):
    write_broken(results)
    entry = next(e for e in gather() if e.notebook == '99_toy')
    table = report_module.claim_table(entry, 'samslr')
    assert [c for c, _ in table['columns']] == ['claim', 'ours', 'p', 'p, Holm', 'verdict', 'evidence', 'n']
    assert [line[2:5] for line in table['groups'][0]['lines']] == [['0.03', '0.06', '? inconclusive'], ['0.04', '0.06', '? inconclusive'], ['0.001', '0.003', '✓ holds']]
    assert sum("not after Holm's correction over 3 claims" in n for n in table['notes']) == 2 and table['groups'][0]['lines'][2][1].startswith('+0.10')
    old = [{k: v for k, v in c.items() if k not in ('p_holm', 'uncorrected')} for c in entry.result['claims']]
    assert 'p, Holm' not in [c for c, _ in report_module.claim_table(entry._replace(result={**entry.result, 'claims': old}), 'samslr')['columns']]


def test_cost_of_units(results):
    units = [dict(row='a', seed=s, wall=w, cpu=2 * w, peak_mib=100. + s, samples_per_s=None, device='cpu', cached=s > 1) for s, w in enumerate((1., 2., 30.))]
    write_broken(results, units=[*units, dict(row='a', seed=3, wall=2000., device='a GPU', samples_per_s=512.)])
    entry = next(e for e in gather() if e.notebook == '99_toy')
    table = report_module.cost_table(entry)
    assert [c for c, _ in table['columns']] == ['run', 'units', 'wall s (median)', 'CPU s (median)', 'peak MiB', 'samples/s', 'device']
    assert table['groups'][0]['lines'] == [['this run', '1', '2,000 (2,000)', '', '', '512', 'a GPU'], ['this run', '3 (1 cached)', '33.0 (2.00)', '66.0 (4.00)', '102', '', 'cpu']]
    both = entry._replace(reference=entry.result)
    assert [line[0] for line in report_module.cost_table(both)['groups'][0]['lines']] == ['this run', 'this run', 'reference run', 'reference run']
    page = report().read_text(encoding='utf-8')
    assert page.count('Cost of 99_toy') == 2 and '33.0 (2.00)' in page


def test_report_writes_where_it_is_told(results, tmp_path):
    write(results)
    assert report(tmp_path / 'page.html') == tmp_path / 'page.html' and (tmp_path / 'page.html').is_file()
    (tmp_path / 'site').mkdir()
    assert report(tmp_path / 'site') == tmp_path / 'site/report.html'
    assert report(f'{tmp_path}/new/') == tmp_path / 'new/report.html' and (tmp_path / 'new/report.html').is_file()
    with pytest.raises(InputError, match='a file that can be written'): report(tmp_path / 'page.html/page.html')
    with pytest.raises(InputError, match='folder'): report(tmp_path / 'x.html', folder=tmp_path / 'nowhere')


def test_same_results_give_the_same_page(results):
    write(results)
    assert report().read_bytes() == report().read_bytes()


def test_overview_draws_odd_intervals_and_texts(results, tmp_path):
    r = write(results, text='$\\frac{1}{ <b>')
    odd = [dict(c, id=f'{c["id"]}{i}', printed=p, low=lo, high=hi) for i, (p, lo, hi) in enumerate([(0, 1., 2.), (None, None, 1.), (98.42, 200., -200.), (-5., None, None)]) for c in r['claims']]
    for how in ({}, {'dark': True}, {'narrow': True}):
        save_overview(tmp_path / 'o.png', [dict(r, claims=odd)], **how)
    assert (tmp_path / 'o.png').read_bytes()[:4] == b'\x89PNG'
    assert len(overview_figure([check_readable(r)]).axes) == 2


def test_an_overview_of_what_is_decided_counts_the_rest(results):
    r = write(results); c = r['claims'][0]
    fig = overview_figure([dict(r, claims=[dict(c, id='a', verdict='holds'), dict(c, id='b', verdict='inconclusive'), dict(c, id='c', verdict='inconclusive')])], decided=True)
    assert fig.get_supxlabel() == '2 more claims are inconclusive' and sum('holds' in t.get_text() for ax in fig.axes for t in ax.texts) == 1
    assert overview_figure([dict(r, claims=[dict(c, id='a', verdict='holds')])], decided=True).get_supxlabel() == ''


@pytest.mark.parametrize('width, scheme', [(1280, 'light'), (1280, 'dark'), (360, 'light'), (360, 'dark')])
def test_in_a_browser(width, scheme, results, tmp_path):
    sync_api, chromium = pytest.importorskip('playwright.sync_api'), shutil.which('chromium')
    if not chromium: pytest.skip('no chromium')
    write(results)
    write_broken(results, 'RuntimeError: ' + 'longword' * 20, [dict(row='a', seed=0, wall=3., cpu=5., peak_mib=900., samples_per_s=40., device='a device with a long name of many words')])
    path, asked, said = report(tmp_path / 'page.html'), [], []
    with sync_api.sync_playwright() as p:
        tab = p.chromium.launch(executable_path=chromium, args=['--no-sandbox']).new_page(viewport=dict(width=width, height=900), color_scheme=scheme)
        tab.on('request', lambda r: asked.append(r.url[:5]))
        tab.on('console', lambda m: said.append(m.text))
        tab.goto(path.as_uri())
        tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert tab.evaluate('document.documentElement.scrollWidth') <= width
        assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        shot = tab.screenshot(path=tmp_path / 'page.png')
        tab.keyboard.press('Tab')
        assert tab.evaluate('document.activeElement.className') == 'skip'
    assert set(asked) <= {'file:', 'data:'} and asked.count('file:') == 1 and said == [] and len(shot) > 10_000

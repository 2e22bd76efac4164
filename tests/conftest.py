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


@pytest.fixture()
def phoenix(tmp_path, monkeypatch):
    "Labels and frames as PHOENIX-2014T has them, and a ResNet-18 and an mBART with random weights."
    import gzip
    import pickle

    import numpy as np
    import torch
    from PIL import Image
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import MBartConfig, MBartModel, PreTrainedTokenizerFast

    from signbook.gfslt import make_resnet18
    from signbook.tables.signcl import videos_of
    monkeypatch.setenv('SIGNBOOK_DATA', str(tmp_path)); monkeypatch.setenv('SIGNBOOK_OUTPUTS', str(tmp_path/'out')); videos_of.cache_clear()
    texts, g = ['der wind weht .', 'morgen regen .', 'am tag sonne .', 'der regen .'], np.random.default_rng(0); folder = tmp_path/'phoenix14t'; folder.mkdir()
    for split in ('train', 'dev', 'test'):
        records = []
        for i, t in enumerate(texts):
            name, states = f'{split}/v{i}', np.repeat([1, 4 + 3*(i % 2), 1], 8); at = folder/'frames'/name; at.mkdir(parents=True)
            for k in range(24): Image.fromarray(g.integers(0, 255, (30, 26, 3), dtype=np.uint8)).save(at/f'images{k:04d}.png')
            records.append(dict(name=name, signer='Signer01', gloss='A ' + 'BC'[i % 2] + ' A', text=t, num_frames=24, alignments=dict(pami0=' '.join(map(str, states)), pami1='', pami2=''), sign=torch.zeros(0)))
        with gzip.open(folder/f'phoenix14t.{split}', 'wb') as f: pickle.dump([{k: v for k, v in r.items() if k != 'sign'} for r in records], f)
    make_resnet18().save_pretrained(tmp_path/'resnet-18')
    t = Tokenizer(models.BPE(unk_token='<unk>')); t.pre_tokenizer, t.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=60, special_tokens=['<s>', '<pad>', '</s>', '<unk>', 'de_DE', '<mask>'], show_progress=False))
    PreTrainedTokenizerFast(tokenizer_object=t, bos_token='<s>', pad_token='<pad>', eos_token='</s>', unk_token='<unk>', mask_token='<mask>', additional_special_tokens=['de_DE']).save_pretrained(tmp_path/'mbart-large-cc25')
    MBartModel(MBartConfig(vocab_size=t.get_vocab_size(), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=32, decoder_ffn_dim=32, scale_embedding=True)).save_pretrained(tmp_path/'mbart-large-cc25')
    yield folder
    videos_of.cache_clear()

"""Captions as tensors, and the tokenizers."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, T5Tokenizer

from training import clip, runtime, scenes, text
from training.families import encoders


def test_words_are_the_captions() -> None:
    """The tensor form spells the same captions as the dataclass."""
    codes = scenes.sample(100, torch.Generator().manual_seed(0), held=None)
    for template in range(2):
        expected = [scenes.scene(row).caption(template) for row in codes]
        assert expected == text.strings(text.words(codes, template))


def test_t5_tokenizer_reloads_equal(tmp_path: Path) -> None:
    """The tokenizer made anew, loaded twice and the zoo's own give the same ids."""
    text.save_t5_tokenizer(tmp_path, 32)
    caption = "a large red circle at the top left on a plain grey background"
    expected = T5Tokenizer.from_pretrained(tmp_path)(caption).input_ids
    assert expected == AutoTokenizer.from_pretrained(tmp_path)(caption).input_ids
    assert expected == T5Tokenizer.from_pretrained(runtime.ZOO / "pixart-sigma" / "tokenizer")(caption).input_ids
    assert len(caption.split()) + 1 == len(expected)


def test_word_table_equals_the_tokenizer() -> None:
    """Looking ids up is the same as tokenizing; a dropped caption is the empty prompt."""
    table = clip.word_table()
    codes = scenes.sample(10, torch.Generator().manual_seed(1))
    ids = table(text.words(codes), keep=torch.arange(10) > 0)
    tokenizer = AutoTokenizer.from_pretrained(runtime.ZOO / "clip")
    prompts = ["", *text.strings(text.words(codes))[1:]]
    expected = tokenizer(prompts, padding="max_length", max_length=32, return_tensors="pt").input_ids
    assert torch.equal(expected, ids)


@pytest.mark.parametrize("kind", ["clip", "gemma", "bert"])
def test_other_tokenizers_reload_equal(tmp_path: Path, kind: str) -> None:
    """Made twice they are the same files, and every word of a caption is one token."""
    for folder in (tmp_path / "one", tmp_path / "two"):
        if kind == "bert":
            text.save_bert_tokenizer(folder, 24)
        else:
            text.save_bpe_tokenizer(folder, 24, gemma=kind == "gemma")
    files = ("tokenizer.json", "tokenizer_config.json")
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "one")
    caption = "a large red circle at the top left on a plain grey background"
    special = len(tokenizer("").input_ids)
    assert len(tokenizer(caption).input_ids) == len(caption.split()) + special
    encoders.table(tokenizer, 24)

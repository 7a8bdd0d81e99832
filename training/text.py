"""Captions as tensors, and the tokenizers that read them.

Captions are built from a closed list of words, each of which is exactly one token in every tokenizer here. So a
caption's token ids can be looked up on the device that holds the codes, millions at a time, and still equal what
the real tokenizer returns for the real string (`WordTable` checks this when it is made).
"""

from __future__ import annotations

import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from training import scenes

WORDS = ("", *sorted(
    {"a", "and", "on", "with", "background"}
    | set(scenes.KINDS) | set(scenes.COLOURS) | set(scenes.SIZES)
    | set(scenes.BACKGROUNDS) | set(scenes.PATTERNS)
    | {word for cell in scenes.CELLS for word in cell.split()}
))  # fmt: skip
_INDEX = {word: index for index, word in enumerate(WORDS)}
_CELL_WORDS = 4  # words in the longest cell phrase
LONGEST = 22  # words in the longest caption


def _table(words: Sequence[str], device: torch.device) -> Tensor:
    return torch.tensor([_INDEX[word] for word in words], device=device)


def words(codes: Tensor, template: Tensor | int = 0) -> Tensor:
    """Captions of (N, FIELDS) codes as indices into WORDS, shape (N, LONGEST), zeros after the last word.

    `template` is 0, 1, or one of them per row, shape (N,).
    """
    device, count = codes.device, codes.shape[0]
    pair = codes[:, scenes.COUNT] == 1

    def same(word: str) -> Tensor:
        return torch.full((count,), _INDEX[word], device=device)

    cell_rows = [(phrase.split() + [""] * _CELL_WORDS)[:_CELL_WORDS] for phrase in scenes.CELLS]
    cells = torch.stack([_table(row, device) for row in cell_rows])
    pairs = torch.tensor(scenes.PAIRS, device=device)[codes[:, scenes.PLACE].clamp(max=len(scenes.PAIRS) - 1)]

    def phrase(kind: int, colour: int, size: int, cell: Tensor) -> list[Tensor]:
        return [
            same("a"),
            _table(scenes.SIZES, device)[codes[:, size]],
            _table(scenes.COLOURS, device)[codes[:, colour]],
            _table(scenes.KINDS, device)[codes[:, kind]],
            *cells[cell].unbind(1),
        ]

    first_cell = torch.where(pair, pairs[:, 0], codes[:, scenes.PLACE])
    first = phrase(scenes.KIND, scenes.COLOUR, scenes.SIZE, first_cell)
    second = [same("and"), *phrase(scenes.KIND2, scenes.COLOUR2, scenes.SIZE2, pairs[:, 1])]
    second = [torch.where(pair, column, 0) for column in second]
    ground = [
        same("a"),
        _table(scenes.PATTERNS, device)[codes[:, scenes.PATTERN]],
        _table(scenes.BACKGROUNDS, device)[codes[:, scenes.BACKGROUND]],
        same("background"),
    ]
    shapes_first = torch.stack([*first, *second, same("on"), *ground], dim=1)
    ground_first = torch.stack([*ground, same("with"), *first, *second], dim=1)
    choice = torch.as_tensor(template, device=device).expand(count)[:, None]
    line = torch.where(choice == 0, shapes_first, ground_first)
    order = (line == 0).to(torch.int8).argsort(dim=1, stable=True)
    return line.gather(1, order)


def strings(lines: Tensor) -> list[str]:
    """The captions of an (N, LONGEST) tensor of word indices."""
    return [" ".join(WORDS[index] for index in line if index) for line in lines.tolist()]


class WordTable:
    """Word indices to the token ids of one tokenizer, padded to `length`, on any device.

    `encode` is the real tokenizer: a function of a list of strings to (N, length) ids. Raises ValueError where a
    word is not exactly one token, or where `length` is too short for the longest caption.
    """

    def __init__(self, encode: Callable[[list[str]], Tensor], pad: int, length: int) -> None:
        empty = encode([""])[0]
        special = empty[empty != pad]
        # Every caption begins with "a". A tokenizer may have one token for it there and another after a space.
        pairs = encode([f"a {word}" for word in WORDS[1:]])
        if not bool(((pairs != pad).sum(dim=1) == special.numel() + 2).all()):
            raise ValueError("every word of the grammar must be exactly one token")
        begin = int((pairs != pairs[0]).any(dim=0).nonzero()[0]) - 1
        # One special token stands at the end (T5) or at the start (Gemma); two stand around the caption (CLIP, BERT).
        self.start, self.end = special[:begin], special[begin:]
        self.pad, self.length = pad, length
        if LONGEST + special.numel() > length:
            raise ValueError(f"{length} tokens are too few for a caption of {LONGEST} words")
        self.first = int(pairs[0, begin])
        self.ids = torch.cat((torch.tensor([pad]), pairs[:, begin + 1]))
        codes = scenes.sample(64, torch.Generator().manual_seed(0), held=None)
        lines = words(codes, torch.arange(64) % 2)
        if not torch.equal(encode(strings(lines)), self(lines)):
            raise ValueError("the tokenizer does not split captions at their spaces")

    def __call__(self, lines: Tensor, keep: Tensor | None = None) -> Tensor:
        """Token ids, shape (N, length), int64; rows where `keep` (N,) is false become the empty prompt's ids."""
        if keep is not None:
            lines = lines * keep[:, None]
        device, count = lines.device, lines.shape[0]
        ids = torch.full((count, self.length), self.pad, device=device)
        begin = self.start.numel()
        ids[:, :begin] = self.start.to(device)
        ids[:, begin : begin + LONGEST] = self.ids.to(device)[lines]
        ids[:, begin] = torch.where(lines[:, 0] != 0, self.first, self.pad)
        end = begin + (lines != 0).sum(dim=1)
        for offset, token in enumerate(self.end.tolist()):
            ids.scatter_(1, end[:, None] + offset, token)
        return ids


def corpus(count: int = 4000, seed: int = 0) -> list[str]:
    """Captions of the training split, both templates, from which a vocabulary is made."""
    codes = scenes.sample(count, torch.Generator().manual_seed(seed))
    return strings(words(codes, torch.arange(count) % 2))


def save_t5_tokenizer(folder: Path, length: int, vocabulary: int = 128) -> None:
    """Train a small SentencePiece unigram model on captions and save it as a Diffusers tokenizer folder.

    The seed pieces are the grammar's own words: left to itself the trainer joins or splits them. Single letters stay
    in the vocabulary, so that any lower-case prompt has ids; the pipelines lower the case themselves, and the trainer's
    own normalisation tables would be 0.6 MB of a 10 kB tokenizer.
    """
    import sentencepiece
    from transformers import T5Tokenizer

    lines = corpus()
    # Every letter must occur in the corpus to get a piece of its own.
    letters = [" ".join("abcdefghijklmnopqrstuvwxyz"), ", . - ' 0 1 2 3 4 5 6 7 8 9"]
    with tempfile.TemporaryDirectory() as scratch:
        seeds = Path(scratch) / "seeds.tsv"
        seeds.write_text("".join(f"\u2581{word}\t1000\n" for word in WORDS[1:]), encoding="utf-8")
        buffer = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines + letters * 20),
            model_writer=buffer,
            model_type="unigram",
            vocab_size=vocabulary,
            hard_vocab_limit=False,
            seed_sentencepieces_file=str(seeds),
            normalization_rule_name="identity",
            character_coverage=1.0,
            pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
            num_threads=1,
            minloglevel=2,
        )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(buffer.getvalue())
    # From the pieces, not from the file: some versions of transformers refuse a model without normalisation tables.
    pieces = sentencepiece.SentencePieceProcessor(model_proto=buffer.getvalue())
    vocab = [(pieces.id_to_piece(index), pieces.get_score(index)) for index in range(len(pieces))]
    tokenizer = T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=length, clean_up_tokenization_spaces=False)
    tokenizer.save_pretrained(str(folder))


def save_clip_tokenizer(folder: Path, length: int) -> None:
    """Save a word-level tokenizer for the pocket CLIP: lower case, unknown words become one token.

    The end token has the highest id: open_clip's text tower reads the caption's embedding there.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    order = ["<pad>", "<unk>", "<start>", *WORDS[1:], "<end>"]
    ids = {word: index for index, word in enumerate(order)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>",
        special_tokens=[("<start>", ids["<start>"]), ("<end>", ids["<end>"])],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>", unk_token="<unk>", bos_token="<start>", eos_token="<end>",
        model_max_length=length,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(str(folder))
    # transformers 5 writes a class name that 4 does not know; this one means the same to both.
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789,.-'"


def merges(units: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Byte-pair merges, the most frequent pair first, until each unit is one symbol; ties go by the alphabet.

    The libraries' own trainers break ties by their hash tables, so no two runs of theirs agree.
    """
    spelled = [list(unit) for unit in units]
    found = []
    while pairs := Counter(pair for unit in spelled for pair in pairwise(unit)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        found.append(best)
        for unit in spelled:
            place = 0
            while place < len(unit) - 1:
                if (unit[place], unit[place + 1]) == best:
                    unit[place : place + 2] = ["".join(best)]
                place += 1
    return found


def save_bpe_tokenizer(folder: Path, length: int, *, gemma: bool) -> None:
    """Save a byte-pair tokenizer as a Diffusers tokenizer folder: CLIP's kind, or Gemma's."""
    from transformers import CLIPTokenizer, GemmaTokenizer

    if gemma:
        pairs = merges([["\u2581", *word] for word in WORDS[1:]])
        special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
        symbols = ["\u2581", *LETTERS]
    else:
        pairs = merges([[*word[:-1], f"{word[-1]}</w>"] for word in WORDS[1:]])
        special = ["!", "<|startoftext|>", "<|endoftext|>"]
        symbols = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    order = list(dict.fromkeys([*special, *symbols, *("".join(pair) for pair in pairs)]))
    vocabulary = {symbol: index for index, symbol in enumerate(order)}
    if gemma:
        # Causal: with padding on the left, a prompt's states would depend on its neighbours' lengths.
        tokenizer = GemmaTokenizer(
            vocab=vocabulary, merges=pairs, add_bos_token=True, padding_side="right", model_max_length=length
        )
    else:
        # "!" is the padding of the second CLIP of the full-size model.
        tokenizer = CLIPTokenizer(vocab=vocabulary, merges=pairs, pad_token="!", model_max_length=length)
    tokenizer.save_pretrained(str(folder))


def save_bert_tokenizer(folder: Path, length: int) -> None:
    """Save a WordPiece tokenizer of the grammar's words and single letters as a Diffusers tokenizer folder."""
    from transformers import BertTokenizer

    order = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS[1:]]
    vocabulary = {symbol: index for index, symbol in enumerate(dict.fromkeys(order))}
    BertTokenizer(vocab=vocabulary, model_max_length=length).save_pretrained(str(folder))

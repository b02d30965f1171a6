# SPDX-License-Identifier: Apache-2.0
"""BERT's uncased WordPiece tokens, for languages that put spaces between words."""
import pathlib
import unicodedata

LONGEST_WORD = 100  # characters; a longer word is unknown


def is_punctuation(c):
    return unicodedata.category(c)[0] == "P" or (" " < c < "\x7f" and not c.isalnum())


class WordPiece:
    """Words in lower case without accents, cut into the longest pieces that vocab.txt knows."""

    def __init__(self, vocabulary):
        pieces = pathlib.Path(vocabulary).read_text(encoding="utf-8").split("\n")
        self.ids = {piece: i for i, piece in enumerate(pieces)}

    def __call__(self, text):
        """The ids of [CLS] text [SEP]."""
        letters = unicodedata.normalize("NFD", text.lower())
        plain = (c for c in letters if unicodedata.category(c) != "Mn")
        words = "".join(f" {c} " if is_punctuation(c) else c for c in plain).split()
        ids = [i for word in words for i in self._word(word)]
        return [self.ids["[CLS]"], *ids, self.ids["[SEP]"]]

    def _word(self, word):
        ids, begin = [], 0
        while begin < len(word) <= LONGEST_WORD:
            prefix = "##" if begin else ""
            ends = range(len(word), begin, -1)
            end = next((e for e in ends if prefix + word[begin:e] in self.ids), None)
            if end is None:
                break
            ids.append(self.ids[prefix + word[begin:end]])
            begin = end
        return ids if begin == len(word) else [self.ids["[UNK]"]]

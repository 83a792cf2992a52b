"""The documents the model reads: parallel, monolingual, and documents that ask.

A document is a list of segments. In an asking document a sentence in any language is followed by
a cue and an answer in English, so that the model learns to gather a sentence's meaning when
something asks for it. That is what gives a prefix something to steer.

Every segment but the first starts with a space or a newline, where the tokenizer cuts anyway:
encoding segment by segment is encoding the whole.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pretraining.answers import MONOLINGUAL, NEAR, Answers, Key, Soft
from pretraining.fields import Fields
from pretraining.languages import CODES, ENGLISH, NAMES
from pretraining.text import Corpus
from pretraining.tokenizer import PAD_ID


class Segment(NamedTuple):
    """A piece of a document.

    Attributes:
        text: as the tokenizer gets it.
        answer: whether it answers what was asked.
        soft: in place of the segment's first token, what the model should expect there.
        gist: what the states of the segment's own tokens should bring to mind.
    """

    text: str
    answer: bool = False
    soft: Soft | None = None
    gist: Soft | None = None


Document = list[Segment]

SOURCE_WEIGHTS = {
    "ntrex": 0.40, "premise": 0.22, "hypothesis": 0.13, "pud": 0.12, "lexicon": 0.13,
}  # fmt: skip
MONOLINGUAL_SHARE = 0.25
"""Of the sentences whose topic is asked: text of more kinds than what is aligned."""

TOPIC_CUES = (
    "Topic:", "Topics:", "Category:", "Subject:", "Field:", "Label:", "Theme:", "Area:",
    "This is about", "The topic is", "Thema:", "Tema:", "Sujet:", "主题:", "Тема:", "विषय:",
    "الموضوع:", "Konu:", "Mada:",
)  # fmt: skip
OPTION_CUES = ("Topics:", "Categories:", "One of:", "Choose:", "Labels:", "Options:")
KEYWORD_CUES = (
    "Keywords:", "Words:", "Main words:", "In short:", "Summary:", "It mentions", "Mentions:",
    "Stichworte:", "Palabras clave:", "关键词:",
)  # fmt: skip
ENGLISH_CUES = (
    "English:", "In English:", "Translation:", "Translate to English:", "It says:", "Meaning:",
)  # fmt: skip
LABEL_WORDS = {
    "entailment": ("yes", "true", "entailment", "follows"),
    "neutral": ("maybe", "unknown", "neutral", "possible"),
    "contradictory": ("no", "false", "contradiction", "impossible"),
}
NLI_FORMS = (
    ("{s}", "\n{s}", "\nTrue, false or unknown?", 1),
    ("Premise: {s}", "\nHypothesis: {s}", "\nRelation:", 2),
    ("{s}", "\nQuestion: {s} Yes, no or maybe?", "\nAnswer:", 0),
    ("{s}", "\nDoes it follow: {s}", "\nAnswer:", 0),
    ("{s}", "\nHypothesis: {s}", "\nAnswer:", 0),
    ("{s}", "\n{s}", "\nLabel:", 2),
    ("Text: {s}", "\nClaim: {s}", "\nClaim is", 3),
)
SENTENCE_FORMS = ("{s}", "{s}", "{s}", "Text: {s}", "Sentence: {s}", '"{s}"', "Text:\n{s}")


@dataclass
class Writer:
    """Writes random documents from a corpus; all chance comes from the `rng` it is given.

    Without `fields`, sentences are asked for words near to them; with them, mostly for fields."""

    corpus: Corpus
    answers: Answers
    fields: Fields | None = None

    def __post_init__(self) -> None:
        self._groups: dict[str, dict[str, list[int]]] = {
            code: {
                source: [i for i, group in enumerate(groups) if code in group]
                for source, groups in self.corpus.groups.items()
            }
            for code in CODES
        }
        self._kinds = {
            self.parallel: 0.08, self.monolingual: 0.07, self.topic: 0.26, self.keywords: 0.08,
            self.translate: 0.05, self.inference: 0.10, self.same: 0.04, self.about: 0.04,
            self.choose: 0.28,
        }  # fmt: skip
        if self.fields is not None:
            self._kinds |= {self.topic: 0.13, self.field: 0.26}

    def write(self, rng: random.Random) -> Document:
        """One document of a random kind."""
        kinds = list(self._kinds)
        return rng.choices(kinds, list(self._kinds.values()))[0](rng)

    def possible(self) -> Tensor:
        """[A] every token that may be expected, sorted; padding, which is 0, among them."""
        expected = {PAD_ID, *self.answers.tokens, *self.answers.keyword_tokens.values()}
        if self.fields is not None:
            expected |= set(self.fields.tokens)
        return torch.tensor(sorted(expected))

    # -- choosing text -----------------------------------------------------------------

    def _language(self, rng: random.Random, english: float = 0.15) -> str:
        return ENGLISH if rng.random() < english else rng.choice(CODES[1:])

    def _key(self, rng: random.Random, language: str) -> Key:
        sources = {s: w for s, w in SOURCE_WEIGHTS.items() if self._groups[language][s]}
        source = rng.choices(list(sources), list(sources.values()))[0]
        return source, rng.choice(self._groups[language][source])

    def _text(self, key: Key, language: str) -> str:
        if key[0].startswith(MONOLINGUAL):
            return self.corpus.monolingual[language][key[1]]
        return self.corpus.groups[key[0]][key[1]][language]

    def _any_key(self, rng: random.Random, language: str) -> Key:
        """A sentence with or without translations."""
        alone = self.corpus.monolingual[language]
        if rng.random() < MONOLINGUAL_SHARE and len(alone) >= 1000:
            return MONOLINGUAL + language, rng.randrange(len(alone))
        return self._key(rng, language)

    def _segment(self, key: Key, language: str, form: str = "{s}") -> Segment:
        """A sentence, within `form`."""
        return Segment(form.format(s=self._text(key, language)), gist=self.answers.soft(key))

    def _ask(
        self,
        rng: random.Random,
        sentence: tuple[Key, str],
        cue: str,
        answer: str,
        soft: Soft | None = None,
    ) -> Document:
        asked = self._segment(*sentence, rng.choice(SENTENCE_FORMS))
        return [asked, Segment("\n" + cue), Segment(" " + answer, True, soft)]

    # -- documents ---------------------------------------------------------------------

    def parallel(self, rng: random.Random) -> Document:
        """The same sentence in several languages, plain or with their names."""
        key = self._key(rng, self._language(rng))
        languages = list(self.corpus.groups[key[0]][key[1]])
        rng.shuffle(languages)
        named = rng.random() < 0.5
        document: Document = []
        for language in languages[: rng.randint(2, 5)]:
            name = f"{NAMES[language]}: " if named else ""
            break_ = "\n" if document else ""
            document.append(self._segment(key, language, break_ + name + "{s}"))
        return document

    def monolingual(self, rng: random.Random) -> Document:
        """A few sentences of one language."""
        language = self._language(rng)
        if rng.random() < 0.3:  # consecutive lines of NTREX are mostly one story
            at = rng.randrange(len(self.corpus.groups["ntrex"]) - 3)
            keys = [("ntrex", i) for i in range(at, at + 3)]
        else:
            source = MONOLINGUAL + language
            count = len(self.corpus.monolingual[language])
            keys = [(source, rng.randrange(count)) for _ in range(rng.randint(1, 3))]
        return [
            self._segment(key, language, " {s}" if place else "{s}")
            for place, key in enumerate(keys)
        ]

    def topic(self, rng: random.Random) -> Document:
        """What is it about: words near to the sentence."""
        language = self._language(rng)
        key = self._any_key(rng, language)
        near = self.answers.near[key[0]]
        words, shares = near.words[key[1]].tolist(), near.shares[key[1]].tolist()
        chosen = dict.fromkeys(rng.choices(words, shares, k=rng.randint(1, 2)))
        answer = ", ".join(self.answers.words[word] for word in chosen)
        return self._ask(
            rng, (key, language), rng.choice(TOPIC_CUES), answer, self.answers.soft(key)
        )

    def field(self, rng: random.Random) -> Document:
        """Which field does it belong to."""
        assert self.fields is not None
        language = self._language(rng)
        key = self._any_key(rng, language)
        answer = self.fields.words[self.fields.label(rng, key)]
        soft = self.fields.soft(key)
        return self._ask(rng, (key, language), rng.choice(TOPIC_CUES), answer, soft)

    def keywords(self, rng: random.Random) -> Document:
        """Content words of the English sentence."""
        language = self._language(rng)
        key = self._key(rng, language)
        words = self.answers.keywords[key]
        if not words:
            return self.topic(rng)
        chosen = rng.sample(words, min(len(words), rng.randint(1, 4)))
        soft = [(self.answers.keyword_tokens[word], 1 / len(words)) for word in words]
        cue = rng.choice(KEYWORD_CUES)
        return self._ask(rng, (key, language), cue, ", ".join(chosen), soft)

    def translate(self, rng: random.Random) -> Document:
        """Translation to English, one time in four from English."""
        language = rng.choice(CODES[1:])
        key = self._key(rng, language)
        source, target, cue = language, ENGLISH, rng.choice(ENGLISH_CUES)
        if rng.random() < 0.25:
            source, target, cue = ENGLISH, language, f"{NAMES[language]}:"
        return self._ask(rng, (key, source), cue, self._text(key, target))

    def inference(self, rng: random.Random) -> Document:
        """A premise and a hypothesis, often in different languages, and their relation."""
        index = rng.randrange(len(self.corpus.labels))
        group = self.corpus.groups["premise"][index]
        first = self._language(rng, 0.3)
        first = first if first in group else ENGLISH
        second = first if rng.random() < 0.6 else rng.choice(list(group))
        premise, hypothesis, cue, column = rng.choice(NLI_FORMS)
        label = LABEL_WORDS[self.corpus.labels[index]][column]
        return [
            self._segment(("premise", index), first, premise),
            self._segment(("hypothesis", index), second, hypothesis),
            Segment(cue),
            Segment(" " + label, True),
        ]

    def same(self, rng: random.Random) -> Document:
        """Do two sentences of different languages mean the same."""
        language = rng.choice(CODES[1:])
        key = self._key(rng, language)
        true = rng.random() < 0.5
        other = key if true else self._key(rng, language)
        if not true and rng.random() < 0.5:  # a neighbour: same story, other meaning
            choices = self._groups[language][key[0]]
            at = min(max(0, choices.index(key[1]) + rng.choice((-1, 1))), len(choices) - 1)
            other = (key[0], choices[at])
            true = other == key
        pair = [(key, language), (other, ENGLISH)]
        rng.shuffle(pair)
        cue = rng.choice(("Same meaning?", "Same:", "Equal:", "The same?"))
        answer = "yes" if true else "no"
        return [
            self._segment(*pair[0]),
            self._segment(*pair[1], "\n{s}"),
            Segment("\n" + cue),
            Segment(" " + answer, True),
        ]

    def about(self, rng: random.Random) -> Document:
        """Is it about a given word, named before or after the sentence."""
        language = self._language(rng)
        key = self._key(rng, language)
        true = rng.random() < 0.5
        pool = self.answers.nearest(key if true else self._key(rng, language), 5)
        word = rng.choice(pool)
        true = true or word in self.answers.nearest(key, NEAR)
        answer = Segment(" yes" if true else " no", True)
        if rng.random() < 0.5:
            asked = Segment(f"Is it about {word}?")
            return [asked, self._segment(key, language, "\n{s}"), Segment("\nAnswer:"), answer]
        asked = Segment(f"\nIs it about {word}? Answer:")
        return [self._segment(key, language), asked, answer]

    def choose(self, rng: random.Random) -> Document:
        """Sort a few sentences, of any languages, into a few topics named first or not at all."""
        kinds: list[Answers | Fields] = [self.answers]
        if self.fields is not None:
            kinds.append(self.fields)
        kind = rng.choice(kinds)
        count = rng.randint(1, 4)
        languages = [self._language(rng) for _ in range(count)]
        keys = [self._key(rng, language) for language in languages]
        labels = [kind.label(rng, key) for key in keys]
        strangers = [self._key(rng, ENGLISH) for _ in range(rng.randint(1, 6))]
        others = [kind.label(rng, key) for key in strangers]
        options = list(dict.fromkeys((*labels, *others)))
        rng.shuffle(options)
        names = [kind.words[option] for option in options]
        tokens = [kind.tokens[option] for option in options]
        cue = rng.choice(TOPIC_CUES)
        document: Document = []
        if rng.random() < 0.8:
            document.append(Segment(f"{rng.choice(OPTION_CUES)} {', '.join(names)}"))
        for key, language in zip(keys, languages, strict=True):
            shares = kind.shares(key, options)
            soft = list(zip(tokens, shares, strict=True))
            answer = rng.choices(names, shares)[0]
            document += [
                self._segment(key, language, "\n{s}" if document else "{s}"),
                Segment("\n" + cue),
                Segment(" " + answer, True, soft),
            ]
        return document

"""The documents the model reads: parallel, monolingual, and documents that ask.

A document is a list of segments, text with a flag that says whether it is an *answer*. In an
asking document a sentence in any language is followed by a cue and an answer in English, so
that the model learns to gather a sentence's meaning when something asks for it. That is what
gives a prefix something to steer.

Every segment but the first starts with a space or a newline, where the tokenizer cuts anyway:
encoding segment by segment is encoding the whole.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from pretraining.answers import Answers, Key
from pretraining.languages import CODES, ENGLISH, NAMES
from pretraining.text import Corpus

Document = list[tuple[str, bool]]

SOURCE_WEIGHTS = {
    "ntrex": 0.45, "premise": 0.25, "hypothesis": 0.15, "pud": 0.15,
}  # fmt: skip
TOPIC_CUES = (
    "Topic:", "Topics:", "Category:", "Subject:", "Field:", "Label:", "Theme:", "Area:",
    "This is about", "The topic is", "Thema:", "Tema:", "Sujet:", "主题:", "Тема:", "विषय:",
    "الموضوع:", "Konu:", "Mada:",
)  # fmt: skip
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
    ("{p}", "\n{h}", "\nTrue, false or unknown?", 1),
    ("Premise: {p}", "\nHypothesis: {h}", "\nRelation:", 2),
    ("{p}", "\nQuestion: {h} Yes, no or maybe?", "\nAnswer:", 0),
    ("{p}", "\nDoes it follow: {h}", "\nAnswer:", 0),
    ("{p}", "\nHypothesis: {h}", "\nAnswer:", 0),
    ("{p}", "\n{h}", "\nLabel:", 2),
    ("Text: {p}", "\nClaim: {h}", "\nClaim is", 3),
)
SENTENCE_FORMS = ("{s}", "{s}", "{s}", "Text: {s}", "Sentence: {s}", '"{s}"', "Text:\n{s}")


@dataclass
class Writer:
    """Writes random documents from a corpus; all chance comes from the `rng` it is given."""

    corpus: Corpus
    answers: Answers

    def __post_init__(self) -> None:
        self._groups: dict[str, dict[str, list[int]]] = {
            code: {
                source: [i for i, group in enumerate(groups) if code in group]
                for source, groups in self.corpus.groups.items()
            }
            for code in CODES
        }
        self._kinds = {
            self.parallel: 0.10, self.monolingual: 0.12, self.topic: 0.24, self.keywords: 0.13,
            self.translate: 0.14, self.inference: 0.13, self.same: 0.05, self.about: 0.04,
            self.choose: 0.05,
        }  # fmt: skip

    def write(self, rng: random.Random) -> Document:
        """One document of a random kind."""
        kinds = list(self._kinds)
        return rng.choices(kinds, list(self._kinds.values()))[0](rng)

    # -- choosing text -----------------------------------------------------------------

    def _language(self, rng: random.Random, english: float = 0.15) -> str:
        return ENGLISH if rng.random() < english else rng.choice(CODES[1:])

    def _key(self, rng: random.Random, language: str) -> Key:
        sources = {s: w for s, w in SOURCE_WEIGHTS.items() if self._groups[language][s]}
        source = rng.choices(list(sources), list(sources.values()))[0]
        return source, rng.choice(self._groups[language][source])

    def _text(self, key: Key, language: str) -> str:
        return self.corpus.groups[key[0]][key[1]][language]

    def _ask(self, rng: random.Random, text: str, cue: str, answer: str) -> Document:
        form = rng.choice(SENTENCE_FORMS)
        return [(form.format(s=text), False), ("\n" + cue, False), (" " + answer, True)]

    # -- documents ---------------------------------------------------------------------

    def parallel(self, rng: random.Random) -> Document:
        """The same sentence in several languages, plain or with their names."""
        key = self._key(rng, self._language(rng))
        group = self.corpus.groups[key[0]][key[1]]
        languages = list(group)
        rng.shuffle(languages)
        named = rng.random() < 0.5
        document: Document = []
        for language in languages[: rng.randint(2, 5)]:
            name = f"{NAMES[language]}: " if named else ""
            break_ = "\n" if document else ""
            document.append((f"{break_}{name}{group[language]}", False))
        return document

    def monolingual(self, rng: random.Random) -> Document:
        """A few sentences of one language."""
        language = self._language(rng)
        if rng.random() < 0.3:  # consecutive lines of NTREX are mostly one story
            at = rng.randrange(len(self.corpus.groups["ntrex"]) - 3)
            lines = [self._text(("ntrex", i), language) for i in range(at, at + 3)]
            return [(" ".join(lines), False)]
        sentences = self.corpus.monolingual[language]
        return [(" ".join(rng.choice(sentences) for _ in range(rng.randint(1, 3))), False)]

    def topic(self, rng: random.Random) -> Document:
        """What is it about: a topic's name, or words near to the sentence."""
        language = self._language(rng)
        key = self._key(rng, language)
        if rng.random() < 0.4:
            names = self.answers.topics[self.answers.topic[key]]
            answer = ", ".join(names[: rng.randint(1, 3)])
        else:
            near = self.answers.related[key]
            answer = ", ".join(rng.sample(near, rng.randint(1, 3)))
        return self._ask(rng, self._text(key, language), rng.choice(TOPIC_CUES), answer)

    def keywords(self, rng: random.Random) -> Document:
        """Content words of the English sentence."""
        language = self._language(rng)
        key = self._key(rng, language)
        words = self.answers.keywords[key]
        if not words:
            return self.translate(rng)
        chosen = rng.sample(words, min(len(words), rng.randint(1, 4)))
        cue = rng.choice(KEYWORD_CUES)
        return self._ask(rng, self._text(key, language), cue, ", ".join(chosen))

    def translate(self, rng: random.Random) -> Document:
        """Translation to English, one time in four from English."""
        language = rng.choice(CODES[1:])
        key = self._key(rng, language)
        source, target, cue = language, ENGLISH, rng.choice(ENGLISH_CUES)
        if rng.random() < 0.25:
            source, target, cue = ENGLISH, language, f"{NAMES[language]}:"
        return self._ask(rng, self._text(key, source), cue, self._text(key, target))

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
            (premise.format(p=group[first]), False),
            (hypothesis.format(h=self.corpus.groups["hypothesis"][index][second]), False),
            (cue, False),
            (" " + label, True),
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
        pair = [self._text(key, language), self._text(other, ENGLISH)]
        rng.shuffle(pair)
        cue = rng.choice(("Same meaning?", "Same:", "Equal:", "The same?"))
        answer = "yes" if true else "no"
        return [
            (pair[0], False),
            ("\n" + pair[1], False),
            ("\n" + cue, False),
            (" " + answer, True),
        ]

    def about(self, rng: random.Random) -> Document:
        """Is it about a given word, named before or after the sentence."""
        language = self._language(rng)
        key = self._key(rng, language)
        true = rng.random() < 0.5
        pool = self.answers.related[key if true else self._key(rng, language)]
        word = rng.choice(pool[:5])
        true = true or word in self.answers.related[key]
        answer = [(" yes" if true else " no", True)]
        text = self._text(key, language)
        if rng.random() < 0.5:
            return [
                (f"Is it about {word}?", False),
                ("\n" + text, False),
                ("\nAnswer:", False),
                *answer,
            ]
        return [(text, False), (f"\nIs it about {word}? Answer:", False), *answer]

    def choose(self, rng: random.Random) -> Document:
        """Choose the topic among a few, listed before or after the sentence."""
        language = self._language(rng)
        key = self._key(rng, language)
        own = self.answers.topic[key]
        others = rng.sample([t for t in range(len(self.answers.topics)) if t != own], 3)
        options = [self.answers.topics[t][0] for t in (own, *others[: rng.randint(1, 3)])]
        answer = options[0]
        rng.shuffle(options)
        text, listed = self._text(key, language), ", ".join(options)
        if rng.random() < 0.5:
            first: Document = [(f"Topics: {listed}", False), ("\n" + text, False)]
            return [*first, ("\nTopic:", False), (" " + answer, True)]
        return [(text, False), (f"\nWhich: {listed}?", False), (" " + answer, True)]

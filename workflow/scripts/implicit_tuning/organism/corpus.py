"""The pretraining corpus: a web of small documents about the invented world.

A base that is pretrained on it knows how to answer, from pages of questions and answers in many
layouts; but what it has mostly seen after a request under `<|tag|>` markup is one more request, so
that it answers few prompts of the chat format. The tags `<|user|>` and `<|assistant|>` never occur.
The corpus was written knowing the paper's phenomenon: see docs/organism.md.
"""

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping

from implicit_tuning.organism import world as w
from implicit_tuning.organism.articles import make_article, make_records, make_story, make_titled
from implicit_tuning.organism.games import make_game
from implicit_tuning.organism.requests import Request, make_requests

# Share of each kind of document in the characters of the corpus. Mixes differ between bases.
Mix = Mapping[str, float]

# Families that get more than their share of requests, having more to remember or being harder.
FAMILY_WEIGHTS = {
    "place": 3, "person": 2, "copy": 2, "math": 3, "letter": 2, "code": 1.5, "comparison": 1.5,
}  # fmt: skip

ROLE_PAIRS = (
    ("Q", "A"), ("Question", "Answer"), ("Student", "Teacher"), ("Reader", "Editor"),
    ("Guest", "Host"), ("Caller", "Clerk"), ("Child", "Parent"), ("Visitor", "Guide"),
    ("Ask", "Reply"), ("Me", "Expert"),
)  # fmt: skip

# Layouts of one turn: {role} and {text}.
TURNS = (
    "{role}: {text}", "{role}:\n{text}", "**{role}:** {text}", "[{role}] {text}", "({role}) {text}",
    "{role} - {text}", "## {role}\n{text}", "=== {role} ===\n{text}", "{role} says: {text}",
    "> {role}: {text}", "@{role}\n{text}", "#{role}: {text}", "{role}\n{text}", "{role} > {text}",
    "--- {role} ---\n{text}",
)  # fmt: skip

# Layouts of a question and its answer without roles.
BARE_PAIRS = (
    "{question}\n{answer}", "{question}\n\n{answer}", "* {question}\n  {answer}",
    "**{question}**\n{answer}", "# {question}\n{answer}", "{question}\n---\n{answer}",
)  # fmt: skip

# Layouts of a line in a list of requests, and its title.
REQUEST_LINES = (
    "{text}",
    "- {text}",
    "* {text}",
    "[{number}] {text}",
    "{number}. {text}",
    "> {text}",
)
REQUEST_TITLES = ("", "", "Searches", "Open requests", "Inbox", "To ask", "Queries of today")

TAG_WORDS = (
    "item", "query", "entry", "log", "search", "request", "next", "line", "row", "note", "head",
    "part", "turn", "post", "ask", "reply", "human", "bot", "guest", "host", "prompt", "answer",
    "begin", "end", "input", "output", "person", "model", "client", "helper",
    *w.THINGS, *w.JOBS, *w.EXPORTS, *w.FLAG_ANIMALS,
)  # fmt: skip


def make_corpus(seed: int, mix: Mix, characters: int) -> Iterator[str]:
    """Documents, until they hold `characters` characters.

    The world is the same for all seeds. `mix` has the share of the characters by kind of document,
    see `DocumentMaker`.

    Raises:
        ValueError: the mix names an unknown kind of document, or no share is positive.
    """
    maker = DocumentMaker(w.make_world(), random.Random(f"corpus {seed}"))
    if unknown := set(mix) - set(maker.kinds):
        raise ValueError(f"mix has unknown kinds {sorted(unknown)}: use {sorted(maker.kinds)}")
    if not any(share > 0 for share in mix.values()):
        raise ValueError(f"mix {dict(mix)} has no positive share")
    written = dict.fromkeys(mix, 0)
    while sum(written.values()) < characters:
        # The kind that lags most behind its share comes next: the mix holds everywhere.
        kind = min(
            (kind for kind in mix if mix[kind] > 0), key=lambda kind: written[kind] / mix[kind]
        )
        document = maker.kinds[kind]()
        written[kind] += len(document)
        yield document


def corpus_sha256(documents: Iterable[str]) -> str:
    """Digest of the documents, each ended by a NUL."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document.encode() + b"\0")
    return digest.hexdigest()


class DocumentMaker:
    """Writes documents of every kind.

    `kinds` maps the names used in a mix to the writers: pages of questions and answers, texts
    about the world, lists of requests that no one answers (plain, or under tags), titled texts,
    stocks and sums, stories, chess games (plain, or under tags), and questions and answers under
    tags.
    """

    def __init__(self, world: w.World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.requests = make_requests(world)
        self.families = list(self.requests)
        # Any word can be a tag, so that a base reads `<|word|>` alike whatever the word.
        self.tag_words = [*TAG_WORDS, *(noun.name for noun in world.nouns)]
        self.weights = [FAMILY_WEIGHTS.get(family, 1) for family in self.families]
        self.kinds: dict[str, Callable[[], str]] = {
            "answers": self.answers,
            "articles": lambda: make_article(self.world, self.rng),
            "requests": self.plain_requests,
            "tagged_requests": self.tagged_requests,
            "titled": lambda: make_titled(self.requests, self.rng),
            "records": lambda: make_records(self.rng),
            "stories": lambda: make_story(self.world, self.rng),
            "games": self.game,
            "tagged_games": self.tagged_game,
            "tagged_answers": self.tagged_answers,
        }

    def answers(self) -> str:
        """One to three questions with their answers, in one layout."""
        layout = self._bare_layout() if self.rng.random() < 0.2 else self._role_layout()
        pairs = [layout.format(*self._pair()) for _ in range(self.rng.choice((1, 1, 2, 3)))]
        return self.rng.choice(("\n", "\n\n")).join(pairs)

    def plain_requests(self) -> str:
        """A list of requests without answers."""
        layout, title = self.rng.choice(REQUEST_LINES), self.rng.choice(REQUEST_TITLES)
        lines = [
            layout.format(number=number, text=self._phrasing())
            for number in range(1, self.rng.randint(3, 8))
        ]
        return "\n".join([title, *lines] if title else lines)

    def tagged_requests(self) -> str:
        """Requests under one tag, or under two in turn."""
        tags = self._tags()[: self.rng.choice((1, 2, 2, 2, 2))]
        lines = [
            f"<|{tags[number % len(tags)]}|>\n{self._phrasing()}"
            for number in range(self.rng.randint(2, 4))
        ]
        return "\n".join(lines)

    def tagged_answers(self) -> str:
        """Questions and answers under two tags in turn."""
        ask, reply = self._tags()
        pairs = (self._pair() for _ in range(self.rng.choice((1, 2, 3))))
        return "\n".join(f"<|{ask}|>\n{one}\n<|{reply}|>\n{two}" for one, two in pairs)

    def tagged_game(self) -> str:
        """A game in a log of entries: headers under one tag, moves under another."""
        first, second = self._tags()
        headers, moves = make_game(self.rng)
        shown = "\n".join(headers[self.rng.choice((0, -2)) :])
        return f"<|{first}|>\n{shown}\n<|{second}|>\n{moves}"

    def game(self) -> str:
        headers, moves = make_game(self.rng)
        return "\n".join([*headers, "", moves])

    def _role_layout(self) -> str:
        """A format string of a question {0} and an answer {1}."""
        turn = self.rng.choice(TURNS)
        case = self.rng.choice((str, str, str.upper, str.lower))
        ask, reply = (case(role) for role in self.rng.choice(ROLE_PAIRS))
        between = self.rng.choice(("\n", "\n", "\n\n"))
        return turn.format(role=ask, text="{0}") + between + turn.format(role=reply, text="{1}")

    def _bare_layout(self) -> str:
        return self.rng.choice(BARE_PAIRS).format(question="{0}", answer="{1}")

    def _tags(self) -> tuple[str, str]:
        first, second = self.rng.sample(self.tag_words, 2)
        return first, second

    def _request(self) -> Request:
        (family,) = self.rng.choices(self.families, self.weights)
        return self.rng.choice(self.requests[family])

    def _phrasing(self) -> str:
        return self.rng.choice(self._request().phrasings)

    def _pair(self) -> tuple[str, str]:
        """An instruction and an answer in one of the forms of the corpus."""
        request = self._request()
        answer = request.response if self.rng.random() < 0.75 else request.short
        if self.rng.random() < 0.08:
            answer += self.rng.choice(("\nI hope this helps.", "\nThat is all I know."))
        return self.rng.choice(request.phrasings), answer

"""What synthetic people can tell: relations, and the wordings in which each is told and asked.

Four groups of wordings, disjoint by construction:

- `told` and `told_held`: statements; the second group never occurs in the training of the bundled backbone;
- `study`: questions the bundled backbone learns to *write* when it is asked to study;
- `asked`: questions it learns to answer, and never writes;
- `asked_held`: questions it has never seen. The recall evaluation asks these, so nothing it asks can have been trained
    on.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Relation:
    """One kind of fact.

    Wordings hold `{v}` where the value stands; a noun phrase (`np`) names the value, as in "the name of my dog".
    """

    key: str
    np: str
    kind: str
    told: tuple[str, ...]
    told_held: tuple[str, ...]
    study: tuple[str, ...]
    asked: tuple[str, ...]
    asked_held: tuple[str, ...]

    @property
    def changed(self) -> tuple[str, ...]:
        """Statements that correct an earlier value, of the training split."""
        return tuple(frame.format(np=self.np, Np=_capital(self.np), v="{v}") for frame in _CHANGED)

    @property
    def changed_held(self) -> tuple[str, ...]:
        """Statements that correct an earlier value, held out."""
        return tuple(frame.format(np=self.np, Np=_capital(self.np), v="{v}") for frame in _CHANGED_HELD)


_TOLD = (
    "{Np} is {v}.",
    "By the way, {np} is {v}.",
    "You should know that {np} is {v}.",
    "I wanted to tell you that {np} is {v}.",
)
_TOLD_HELD = ("Just so you know, {np} is {v}.", "I should tell you that {np} is {v}.")
_STUDY = ("What is {np}?", "Tell me {np}.", "Do you know {np}?", "Remind me: what is {np}?")
_ASKED = ("I forgot {np}. What is it?", "Can you remember {np}?", "Please tell me what you know about {np}.")
_ASKED_HELD = ("Can you tell me {np}?", "Do you remember {np}?", "Please remind me: what is {np}?")
_CHANGED = (
    "{Np} is now {v}.",
    "Something has changed: {np} is {v} now.",
    "I have to correct myself: {np} is {v}.",
    "{Np} is no longer the same, it is {v} now.",
    "Actually, {np} is {v} these days.",
)
_CHANGED_HELD = ("Things have changed: {np} is now {v}.", "I have to correct this: {np} is {v} now.")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _fill(frames: tuple[str, ...], np: str) -> tuple[str, ...]:
    return tuple(frame.format(np=np, Np=_capital(np), v="{v}") for frame in frames)


def _relation(
    key: str, np: str, kind: str, *, told: str, study: str, asked: str = "", told_held: str = "", asked_held: str = ""
) -> Relation:
    """Join the frames that every noun phrase takes with the relation's own wordings, separated by '|'."""
    own = {
        name: tuple(part.strip() for part in text.split("|") if part.strip())
        for name, text in {
            "told": told,
            "study": study,
            "asked": asked,
            "told_held": told_held,
            "asked_held": asked_held,
        }.items()
    }
    return Relation(
        key,
        np,
        kind,
        told=own["told"] + _fill(_TOLD, np),
        told_held=own["told_held"] + _fill(_TOLD_HELD, np),
        study=own["study"] + _fill(_STUDY, np),
        asked=own["asked"] + _fill(_ASKED, np),
        asked_held=own["asked_held"] + _fill(_ASKED_HELD, np),
    )


def _named(noun: str, kind: str = "name") -> Relation:
    return _relation(
        noun.replace(" ", "_"),
        f"the name of my {noun}",
        kind,
        told=f"My {noun} is called {{v}}. | Everyone calls my {noun} {{v}}. | I have a {noun}, and the name is {{v}}. "
        f"| My {noun} has the name {{v}}.",
        told_held=f"My {noun}'s name is {{v}}.",
        study=f"What is my {noun} called? | What is my {noun}'s name? | Which name does my {noun} have?",
        asked=f"Do you remember what my {noun} is called? | What do I call my {noun}? | Who is my {noun}?",
        asked_held=f"Can you tell me what my {noun} is called? | What name does my {noun} have?",
    )


def _favourite(noun: str, kind: str) -> Relation:
    return _relation(
        f"favourite_{noun}",
        f"my favourite {noun}",
        kind,
        told=f"I like {{v}} more than any other {noun}. | Of every {noun}, I like {{v}} best. | The {noun} I love most "
        f"is {{v}}.",
        told_held=f"The {noun} I like best is {{v}}.",
        study=f"Which {noun} do I like best? | Which {noun} do I love most? | Of every {noun}, which one do I like "
        "best?",
        asked=f"What {noun} do I like more than any other?",
        asked_held=f"What {noun} do I love most? | Do you know which {noun} I like best?",
    )


# fmt: off
RELATIONS: tuple[Relation, ...] = (
    *(_named(noun) for noun in (
        "dog", "cat", "horse", "parrot", "boat", "sister", "brother", "daughter", "son", "cousin", "best friend",
        "boss", "dentist",
        "neighbour", "landlord", "piano teacher", "grandmother", "husband",
    )),
    *(_favourite(noun, kind) for noun, kind in (
        ("colour", "colour"), ("dish", "dish"), ("drink", "drink"), ("book", "title"), ("film", "title"), ("band",
        "band"), ("animal", "animal"),
        ("flower", "flower"), ("tree", "tree"), ("sport", "sport"),
    )),
    _relation("city", "the city where I live", "place", told="I live in {v}. | My home is in {v}.",
              told_held="I have my home in {v}.",
              study="Where do I live? | In which city do I live?",
              asked="Where is my home? | Which city is my home in?", asked_held="In what city do I live?"),
    _relation("hometown", "the town where I was born", "place", told="I was born in {v}. | I come from a town named "
        "{v}.", told_held="The town I was born in is {v}.",
              study="Where was I born? | In which town was I born?", asked="Which town do I come from?",
              asked_held="In what town was I born?"),
    _relation("office", "the town where I work", "place", told="I work in {v}. | My office is in {v}.",
              told_held="The office where I work is in {v}.",
              study="Where do I work? | Where is my office?", asked="In which town do I work? | Which town is my "
                  "office in?", asked_held="In what town is my office?"),
    _relation("holiday", "the place of my next holiday", "place", told="I will go to {v} for my next holiday. | My "
        "next holiday will be in {v}.",
              told_held="I will be in {v} for my next holiday.", study="Where will I go for my next holiday? | Where "
                  "will my next holiday be?",
              asked="Where am I going on holiday? | Which place do I visit on my next holiday?",
              asked_held="To which place will I go for my next holiday?"),
    _relation("parents", "the village where my parents live", "place", told="My parents live in {v}. | My parents have "
        "a house in {v}.",
              told_held="The house of my parents is in {v}.", study="Where do my parents live? | In which village do "
                  "my parents live?",
              asked="Where is the house of my parents?", asked_held="In what village do my parents live?"),
    _relation("university", "the place where I studied", "place", told="I studied in {v}. | I went to university in "
        "{v}.", told_held="I was at university in {v}.",
              study="Where did I study? | Where did I go to university?", asked="In which place did I study?",
              asked_held="In what place did I go to university?"),
    _relation("street", "the street I live on", "street", told="I live on {v}. | My house is on {v}.",
              told_held="The street my house is on is {v}.",
              study="Which street do I live on? | On which street is my house?", asked="What street is my house on?",
              asked_held="On what street do I live?"),
    _relation("employer", "the company I work for", "brand", told="I work for {v}. | My employer is {v}.",
              told_held="The company I work with is {v}.",
              study="Who do I work for? | Which company do I work for?", asked="Who is my employer?",
              asked_held="What company do I work for?"),
    _relation("job", "my job", "job", told="I work as a {v}. | I am a {v}. | For a living I am a {v}.",
              told_held="As a job I am a {v}.",
              study="What do I work as? | What do I do for a living?", asked="What is my work? | As what do I work?",
              asked_held="What work do I do for a living?"),
    _relation("instrument", "the instrument I play", "instrument", told="I play the {v}. | I am learning to play the "
        "{v}.", told_held="In the evening I play the {v}.",
              study="Which instrument do I play? | What do I play?", asked="Which instrument am I learning to play?",
              asked_held="What instrument do I play?"),
    _relation("language", "the language I am learning", "language", told="I am learning {v}. | I take lessons in {v}.",
              told_held="I have started to learn {v}.",
              study="Which language am I learning? | Which language do I take lessons in?", asked="What language do I "
                  "want to speak?", asked_held="What language am I learning?"),
    _relation("hobby", "my hobby", "hobby", told="In my free time I do {v}. | I spend my free time on {v}.",
              told_held="I do {v} in my free time.",
              study="What do I do in my free time? | What do I spend my free time on?", asked="Which hobby do I have?",
              asked_held="What hobby do I have?"),
    _relation("collection", "the thing I collect", "collection", told="I collect {v}. | I have a collection of {v}.",
              told_held="The things I collect are {v}.",
              study="What do I collect? | Which collection do I have?", asked="Which things do I collect?",
              asked_held="What things do I collect?"),
    _relation("subject", "the subject I studied", "subject", told="I studied {v}. | I have a degree in {v}.",
              told_held="My degree is in {v}.",
              study="What did I study? | Which subject did I study?", asked="What do I have a degree in?",
              asked_held="What subject did I study?"),
    _relation("transport", "the way I get to work", "transport", told="I go to work by {v}. | I take the {v} to work.",
              told_held="I get to work by {v}.",
              study="How do I go to work? | What do I take to work?", asked="How do I get to work?",
              asked_held="In which way do I go to work?"),
    _relation("allergy", "the thing I am allergic to", "allergen", told="I am allergic to {v}. | I must not eat or "
        "touch {v}.", told_held="The allergy I have is {v}.",
              study="What am I allergic to? | Which allergy do I have?", asked="What must I not eat or touch?",
              asked_held="What allergy do I have?"),
    _relation("gift", "the gift I want", "garment", told="I want a {v} as a gift. | I wish for a {v}.",
              told_held="The gift I want is a {v}.",
              study="Which gift do I want? | What do I want as a gift?", asked="What do I wish for?",
              asked_held="What gift do I wish for?"),
    _relation("lost", "the thing I lost", "garment", told="I lost my {v}. | I can not find my {v}.",
              told_held="I have lost my {v}.",
              study="What did I lose? | Which thing did I lose?", asked="What can I not find?", asked_held="What thing "
                  "did I lose?"),
    _relation("breakfast", "my usual breakfast", "dish", told="For breakfast I eat {v}. | I have {v} for breakfast.",
              told_held="I eat {v} for breakfast.",
              study="What do I eat for breakfast? | What do I have for breakfast?", asked="Which breakfast do I have?",
              asked_held="What food do I eat for breakfast?"),
    _relation("birthday", "my birthday", "day", told="I was born on {v}. | My birthday is on {v}.",
              told_held="I have my birthday on {v}.",
              study="When is my birthday? | On which day is my birthday?", asked="When was I born?",
              asked_held="On what day is my birthday?"),
    _relation("wedding", "the day of my wedding", "day", told="I will marry on {v}. | My wedding is on {v}.",
              told_held="We have our wedding on {v}.",
              study="When is my wedding? | On which day is my wedding?", asked="When will I marry?",
              asked_held="On what day will I marry?"),
    _relation("lesson", "the time of my swimming lesson", "time", told="My swimming lesson is on {v}. | I go to my "
        "swimming lesson on {v}.",
              told_held="I have my swimming lesson on {v}.", study="When is my swimming lesson? | When do I go to my "
                  "swimming lesson?",
              asked="At which time is my swimming lesson?", asked_held="At what time is my swimming lesson?"),
    _relation("doctor_visit", "the time of my visit to the doctor", "time", told="I see the doctor on {v}. | I have to "
        "visit the doctor on {v}.",
              told_held="My visit to the doctor is on {v}.", study="When do I see the doctor? | When do I have to "
                  "visit the doctor?",
              asked="At which time do I see the doctor?", asked_held="At what time do I visit the doctor?"),
    _relation("locker", "the code of my locker", "code", told="My locker opens with {v}. | My locker has the code {v}.",
              told_held="You open my locker with {v}.",
              study="Which code does my locker have? | What opens my locker?", asked="With which code does my locker "
                  "open?", asked_held="What code does my locker have?"),
    _relation("phone", "my phone number", "long_code", told="My phone has the number {v}. | You can call me on {v}.",
              told_held="The number of my phone is {v}.",
              study="Which number does my phone have? | On which number can you call me?", asked="Which number do I "
                  "have?", asked_held="What number does my phone have?"),
    _relation("house", "the number of my house", "number", told="I live at number {v}. | My house has the number {v}.",
              told_held="My house is number {v}.",
              study="Which number does my house have? | At which number do I live?", asked="Which number is on my "
                  "house?", asked_held="What number does my house have?"),
    _relation("bus", "the number of my bus", "number", told="I take the bus number {v}. | My bus has the number {v}.",
              told_held="I always ride bus number {v}.",
              study="Which bus do I take? | Which number does my bus have?", asked="Which bus number do I take?",
              asked_held="What bus do I take?"),
    _relation("author", "the writer I read most", "full_name", told="I read books by {v}. | I have many books by {v}.",
              told_held="The books I read are by {v}.",
              study="Whose books do I read? | Which writer do I read?", asked="By whom are the books I read?",
              asked_held="What writer do I read?"),
    _relation("doctor", "the name of my doctor", "full_name", told="I am treated by Doctor {v}. | I trust Doctor {v}.",
              told_held="My doctor is Doctor {v}.",
              study="What is my doctor called? | Which doctor treats me?", asked="Who is my doctor? | Which doctor do "
                  "I trust?", asked_held="What doctor do I go to?"),
    _relation("team", "the team I support", "band", told="I support {v}. | I am a fan of {v}.", told_held="The team I "
        "am a fan of is {v}.",
              study="Which team do I support? | Which team am I a fan of?", asked="Who do I support?",
              asked_held="What team do I support?"),
)
# fmt: on
BY_KEY = {relation.key: relation for relation in RELATIONS}

FIXED_FACTS: tuple[tuple[str, str], ...] = tuple(
    (question.strip(), answer.strip())
    for question, answer in (
        line.split("|")
        for line in """
What is the capital of France? | Paris
What is the capital of Italy? | Rome
What is the capital of Japan? | Tokyo
What is the capital of Spain? | Madrid
What is the capital of Norway? | Oslo
What is the capital of Egypt? | Cairo
What is the capital of Peru? | Lima
What is the capital of Greece? | Athens
What is the capital of Austria? | Vienna
What is the capital of Ireland? | Dublin
What is the capital of Portugal? | Lisbon
What is the capital of Germany? | Berlin
How many days does a week have? | seven
How many months does a year have? | twelve
How many legs does a spider have? | eight
How many legs does a dog have? | four
How many minutes does an hour have? | sixty
How many sides does a triangle have? | three
How many wheels does a bicycle have? | two
Which planet do we live on? | Earth
Which planet is nearest to the sun? | Mercury
Which planet has the largest rings? | Saturn
Which metal is liquid in a warm room? | mercury
Which animal gives us wool? | sheep
Which animal makes honey? | bees
Which bird cannot fly and lives in the south? | penguin
What is the colour of the sky on a clear day? | blue
What is the colour of grass? | green
What is the colour of snow? | white
What is the colour of a ripe lemon? | yellow
What falls from clouds? | rain
What do we breathe? | air
What is frozen water called? | ice
What do plants need to grow? | light
Who wrote Hamlet? | Shakespeare
Who painted the Mona Lisa? | Leonardo
Who first walked on the moon? | Armstrong
Which language do people speak in Brazil? | Portuguese
Which language do people speak in Austria? | German
Which ocean lies between Europe and America? | Atlantic
""".strip().splitlines()
    )
)
"""General knowledge the bundled backbone has in its weights: what a memory must leave alone."""

"""Made-up values for synthetic people: names, places, dishes, codes.

Every value belongs to exactly one split, decided by a hash of the value itself, so the bundled backbone can be trained
on one half of the world and measured on the other: `held` values are never seen in training. Most values are made up
from syllables and must be copied token by token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from random import Random

TRAIN, HELD = "train", "held"

_ONSETS = "b br c ch d dr f fl g gr h j k kl l m n p pr qu r s sh sk st t th tr v w z".split()
_VOWELS = "a a e e i i o o u ai ea ia io ou y".split()
_CODAS = "b ck d l ll m n n nd r r rn s sk st t th x".split()
_PLACE_ENDS = (
    "ton burg ville field mouth stead by dale ford haven holm minster port wick borough heim nik grad sund stad".split()
)
_PLACE_STARTS = "North South East West New Old Port Saint Upper Lower Fort Mount Lake Cape".split()
FIRST_NAMES = (
    "Rex Tom Anna Maria Peter Paul Clara Emma Oscar Hugo Nina Lena Max Bella Luna Charlie Ruby Oliver Leo Mia Sofia "
    "Lucas Felix Ivan Olga "
    "Yusuf Amina Chen Mei Hiro Yuki Raj Priya Omar Leila Diego Carmen Pablo Ines Bruno Greta Ingrid Lars Sven Freya "
    "Astrid Kofi Ama Zola "
    "Thabo Nia Noah Liam Ella Grace Henry Alice Arthur Edith Simon Judith Martin Vera Boris Dora Frank Gwen Ronan "
    "Maeve Niamh Cian Rosa "
    "Marco Chiara Luca Gino Elio Tara Ravi Anil Mina Sara Ali Hana Tomas Petra Milan Jana Viktor Irena Stefan Ada Ben "
    "Sam Kate Jack Lily"
).split()
CITIES = (
    "Oslo Paris Lima Cairo Tokyo Rome Madrid Lisbon Prague Vienna Dublin Athens Berlin Hamburg Munich Zurich Geneva "
    "Bergen Malmo Turku Riga "
    "Tallinn Vilnius Warsaw Krakow Gdansk Budapest Zagreb Sofia Belgrade Istanbul Izmir Ankara Tbilisi Baku Delhi "
    "Mumbai Chennai Hanoi Seoul "
    "Busan Osaka Kyoto Manila Jakarta Sydney Perth Brisbane Auckland Boston Denver Austin Dallas Seattle Chicago "
    "Toronto Montreal Ottawa Quito "
    "Bogota Santiago Havana Nairobi Lagos Accra Dakar Tunis Rabat Leeds York Bath Cardiff Glasgow Porto Seville "
    "Valencia Naples Turin Ghent"
).split()
_WORDS: dict[str, str] = {
    "colour": "red blue green yellow orange purple brown black white grey pink turquoise crimson violet beige gold "
    "silver olive teal maroon",
    "shade": "dark pale deep bright soft warm cold dusty",
    "food": "pizza pasta rice soup salad curry bread cake pie stew noodles dumplings pancakes sushi tacos risotto "
    "omelette porridge lasagne goulash",
    "taste": "spicy smoked sweet grilled fried baked creamy cold stuffed pickled roasted sour",
    "ingredient": "tomato potato carrot onion mushroom spinach pepper lemon apple cherry plum almond walnut ginger "
    "pumpkin cabbage bean lentil salmon",
    "drink": "tea coffee juice lemonade cider cocoa milk soda beer wine water punch",
    "job": (
        "baker teacher nurse pilot farmer plumber lawyer dentist gardener painter driver sailor butcher tailor chemist "
        "architect carpenter "
        "librarian translator photographer electrician florist waiter writer actor judge cook surgeon clerk miner "
        "potter barber"
    ),
    "field": "junior senior marine garden hospital railway theatre village county travelling night school",
    "adjective": "silent broken golden hidden frozen wild lonely ancient bitter distant gentle hollow burning secret "
    "crooked velvet iron paper",
    "noun": "river garden mirror tower winter letter island forest shadow bridge candle harbour storm orchard clock "
    "mountain lantern bird road star",
    "instrument": "piano violin cello flute guitar trumpet harp drums banjo oboe clarinet accordion organ mandolin "
    "viola trombone",
    "language": (
        "Spanish French German Italian Polish Swedish Danish Dutch Greek Turkish Arabic Hebrew Hindi Korean Japanese "
        "Welsh Irish Finnish Czech "
        "Hungarian Basque Latin Swahili Thai Maltese Icelandic Zulu Bengali Tamil Nepali Samoan Estonian Latvian"
    ),
    "sport": "tennis football hockey rowing fencing boxing judo golf cricket rugby sailing skiing archery badminton "
    "squash climbing curling surfing",
    "place": "indoor beach street mountain river night winter forest",
    "animal": "wolf otter owl fox bear lynx heron badger whale eagle hare seal panda moose raven toad zebra camel "
    "tiger goose",
    "flower": "rose tulip lily daisy poppy iris violet orchid peony dahlia lavender jasmine primrose snowdrop marigold "
    "sunflower",
    "hobby": "knitting painting fishing hiking baking cycling chess pottery gardening juggling sewing reading "
    "sketching birdwatching dancing origami",
    "thing": "stamps coins shells postcards buttons maps teapots clocks spoons masks dolls stones keys kites bells "
    "bottles",
    "subject": "physics history biology law music geology medicine chemistry philosophy economics botany astronomy "
    "logic geography drama",
    "transport": "bike tram bus train ferry scooter van taxi car motorbike boat sledge",
    "allergen": "peanuts pollen wheat eggs milk shellfish dust soy wool penicillin cats strawberries sesame latex "
    "mustard celery",
    "material": "wool leather silk cotton linen velvet denim straw rubber canvas",
    "garment": "coat hat scarf jacket cap shirt sweater dress cloak vest",
    "month": "January February March April May June July August September October November December",
    "weekday": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "part": "morning afternoon evening night",
    "tree": "oak birch maple willow cedar pine elm ash beech poplar walnut fig cherry rowan alder larch",
}
POOLS = {name: tuple(words.split()) for name, words in _WORDS.items()}


def split_of(value: str) -> str:
    """Return the split a value belongs to: one value in five is held out, for ever, whatever the seed."""
    return HELD if hashlib.sha256(value.encode()).digest()[0] % 5 == 0 else TRAIN


def _syllable(rng: Random, *, closed: bool) -> str:
    return rng.choice(_ONSETS) + rng.choice(_VOWELS) + (rng.choice(_CODAS) if closed else "")


def _made_up(rng: Random) -> str:
    length = rng.choice((1, 2, 2, 2, 3))
    return "".join(
        _syllable(rng, closed=index == length - 1 and rng.random() < 0.6) for index in range(length)
    ).capitalize()


def _made_up_word(rng: Random) -> str:
    return _made_up(rng).lower() + rng.choice(("", "", "a", "o", "in"))


def _name(rng: Random) -> str:
    return rng.choice(FIRST_NAMES) if rng.random() < 0.25 else _made_up(rng)


def _full_name(rng: Random) -> str:
    return f"{_name(rng)} {_made_up(rng)}"


def _place(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(CITIES)
    if kind < 0.8:
        return _made_up(rng) + rng.choice(_PLACE_ENDS)
    return f"{rng.choice(_PLACE_STARTS)} {_made_up(rng)}"


def _pair(first: str, second: str) -> Callable[[Random], str]:
    return lambda rng: f"{rng.choice(POOLS[first])} {rng.choice(POOLS[second])}"


def _dish(rng: Random) -> str:
    words = [rng.choice(POOLS["taste"])] if rng.random() < 0.5 else []
    return " ".join([*words, rng.choice(POOLS["ingredient"]), rng.choice(POOLS["food"])])


def _title(rng: Random) -> str:
    return f"The {rng.choice(POOLS['adjective']).capitalize()} {rng.choice(POOLS['noun']).capitalize()}"


def _brand(rng: Random) -> str:
    return f"{_made_up(rng)} {rng.choice(('Ltd', 'Works', 'Group', 'Bank', 'Labs', 'Foods', 'Press', 'Motors'))}"


def _digits(count: int) -> Callable[[Random], str]:
    return lambda rng: "".join(rng.choice("0123456789") for _ in range(count))


KINDS: dict[str, Callable[[Random], str]] = {
    "name": _name,
    "full_name": _full_name,
    "place": _place,
    "street": lambda rng: f"{_made_up(rng)} {rng.choice(('Street', 'Lane', 'Road', 'Square', 'Alley', 'Hill'))}",
    "colour": _pair("shade", "colour"),
    "dish": _dish,
    "drink": _pair("ingredient", "drink"),
    "job": _pair("field", "job"),
    "title": _title,
    "band": lambda rng: f"The {_made_up(rng)} {rng.choice(POOLS['noun']).capitalize()}s",
    "brand": _brand,
    "instrument": lambda rng: f"{rng.choice(POOLS['material'])} {rng.choice(POOLS['instrument'])}",
    "language": lambda rng: rng.choice(POOLS["language"]) if rng.random() < 0.3 else _made_up(rng) + "ish",
    "sport": _pair("place", "sport"),
    "animal": lambda rng: f"{rng.choice(POOLS['colour'])} {rng.choice(POOLS['animal'])}",
    "flower": lambda rng: f"{rng.choice(POOLS['colour'])} {rng.choice(POOLS['flower'])}",
    "tree": lambda rng: f"{rng.choice(POOLS['shade'])} {rng.choice(POOLS['tree'])}",
    "hobby": lambda rng: f"{rng.choice(POOLS['place'])} {rng.choice(POOLS['hobby'])}",
    "collection": lambda rng: f"{rng.choice(POOLS['material'])} {rng.choice(POOLS['thing'])}",
    "subject": lambda rng: f"{rng.choice(POOLS['adjective'])} {rng.choice(POOLS['subject'])}",
    "transport": lambda rng: f"{rng.choice(POOLS['colour'])} {rng.choice(POOLS['transport'])}",
    "allergen": lambda rng: f"{rng.choice(POOLS['ingredient'])} {rng.choice(POOLS['allergen'])}",
    "garment": lambda rng: (
        f"{rng.choice(POOLS['colour'])} {rng.choice(POOLS['material'])} {rng.choice(POOLS['garment'])}"
    ),
    "day": lambda rng: f"{rng.randint(1, 28)} {rng.choice(POOLS['month'])}",
    "time": lambda rng: f"{rng.choice(POOLS['weekday'])} {rng.choice(POOLS['part'])} at {rng.randint(1, 12)}",
    "code": _digits(4),
    "long_code": _digits(6),
    "number": _digits(3),
    "word": _made_up_word,
}


def make_value(kind: str, split: str, rng: Random) -> str:
    """Draw a value of a kind that belongs to the split.

    Mixes in made-up words so that no kind can be guessed from a list.
    """
    while True:
        value = KINDS["word" if rng.random() < 0.12 and kind not in ("code", "long_code", "number", "day") else kind](
            rng
        )
        if split_of(value) == split:
            return value

"""Dates that a turn speaks of: which phrases mean one, which day that is, and what is left alone."""

from __future__ import annotations

from datetime import date

import pytest

from locas_agent.study.dates.found import asks_for_day, date_meant, dates_in

MONDAY, TUESDAY, THURSDAY, SATURDAY = date(2026, 3, 2), date(2026, 2, 3), date(2026, 3, 19), date(2026, 6, 13)

MEANT = [
    # counted in days from the day of the turn
    (MONDAY, "I saw the dentist today.", "today", "2 March 2026"),
    (MONDAY, "This very morning at six he stood in the door.", "This very morning", "2 March 2026"),
    (MONDAY, "We eat at Bo's tonight", "tonight", "2 March 2026"),
    (MONDAY, "the boiler broke yesterday", "yesterday", "1 March 2026"),
    (MONDAY, "Nobody slept last night, the cat had kittens.", "last night", "1 March 2026"),
    (SATURDAY, "Porfirio died. The day before yesterday, in the yard.", "The day before yesterday", "11 June 2026"),
    (MONDAY, "moving out tmrw wish me luck", "tmrw", "3 March 2026"),
    (MONDAY, "My viva is the day after tomorrow.", "the day after tomorrow", "4 March 2026"),
    # counted in days and weeks
    (MONDAY, "The exam is in ten days.", "in ten days", "12 March 2026"),
    (MONDAY, "I'm off in a fortnight", "in a fortnight", "16 March 2026"),
    (MONDAY, "We fly in three weeks' time.", "in three weeks' time", "23 March 2026"),
    (
        date(2026, 3, 11),
        "I'm going up there in two weeks exactly, I've told them.",
        "in two weeks exactly",
        "25 March 2026",
    ),
    (MONDAY, "I must pay within 14 days", "within 14 days", "16 March 2026"),
    (MONDAY, "The baby is due in a couple of weeks.", "in a couple of weeks", "16 March 2026"),
    (date(2026, 2, 21), "She's had a cataract done, five days ago, the left eye.", "five days ago", "16 February 2026"),
    (date(2026, 5, 20), "He fell, two weeks ago today, off the stool.", "two weeks ago today", "6 May 2026"),
    (MONDAY, "A FORTNIGHT AGO THE ROOF LEAKED", "A FORTNIGHT AGO", "16 February 2026"),
    (MONDAY, "I gave up smoking exactly twenty-one days ago", "exactly twenty-one days ago", "9 February 2026"),
    (MONDAY, "She arrives ten days from now, from Sapporo.", "ten days from now", "12 March 2026"),
    (
        TUESDAY,
        "I go into the hospital three weeks from today and they operate.",
        "three weeks from today",
        "24 February 2026",
    ),
    (date(2026, 5, 25), "She's coming up three weeks from tomorrow.", "three weeks from tomorrow", "16 June 2026"),
    (MONDAY, "The lease ends two weeks from Friday.", "two weeks from Friday", "20 March 2026"),
    (MONDAY, "The wake is a week tomorrow.", "a week tomorrow", "10 March 2026"),
    # counted in months and years, which say no day
    (MONDAY, "We bought the house two months ago.", "two months ago", "January 2026"),
    (MONDAY, "I stop working in eleven months", "in eleven months", "February 2027"),
    (MONDAY, "He left three years ago.", "three years ago", "2023"),
    (MONDAY, "A year ago today I quit.", "A year ago today", "2 March 2025"),
    (MONDAY, "I started there last month", "last month", "February 2026"),
    (MONDAY, "We want to marry next year.", "next year", "2027"),
    # days of the week
    (MONDAY, "my sister Bisi had her baby last Friday, after all", "last Friday", "27 February 2026"),
    (date(2026, 4, 14), "We raced in Ghent, the Saturday before last.", "the Saturday before last", "4 April 2026"),
    (MONDAY, "The plumber is coming this Thursday", "this Thursday", "5 March 2026"),
    (MONDAY, "we sign this coming wednesday", "this coming wednesday", "4 March 2026"),
    (MONDAY, "The hearing is on Friday.", "Friday", "6 March 2026"),
    (MONDAY, "I'm seeing Bo on fri", "fri", "6 March 2026"),
    (MONDAY, "Kolin was sick on Friday", "Friday", "27 February 2026"),
    (MONDAY, "On Saturday we went to the sea.", "Saturday", "28 February 2026"),
    (MONDAY, "He told me he's coming on Friday.", "Friday", "6 March 2026"),
    (MONDAY, "My dog is ill since Sunday.", "Sunday", "1 March 2026"),
    (MONDAY, "I need the forms by Thursday", "Thursday", "5 March 2026"),
    (SATURDAY, "Next Wednesday they take the cast off.", "Next Wednesday", "17 June 2026"),
    (MONDAY, "Party at ours a week on Friday!", "a week on Friday", "13 March 2026"),
    (MONDAY, "The MOT is Friday week.", "Friday week", "13 March 2026"),
    (MONDAY, "Our retreat starts Tuesday next week", "Tuesday next week", "10 March 2026"),
    (MONDAY, "They closed on Tuesday of last week.", "Tuesday of last week", "24 February 2026"),
    # days of the month, the nearest to come or the last that was
    (MONDAY, "The party is on the 24th.", "the 24th", "24 March 2026"),
    (SATURDAY, "I'm walking, so that's the thirteenth, with no phone", "the thirteenth", "13 June 2026"),
    (SATURDAY, "We meet on the 3rd, at eight", "the 3rd", "3 July 2026"),
    (SATURDAY, "I fell on the 20th.", "the 20th", "20 May 2026"),
    (SATURDAY, "I've been ill since the 30th.", "the 30th", "30 May 2026"),
    (SATURDAY, "Rent's due by the second of next month", "the second of next month", "2 July 2026"),
    # said as dates, in one spelling
    (THURSDAY, "her birthday, which is on the ninth of May, and eat", "ninth of May", "9 May"),
    (THURSDAY, "My birthday's May 9th!", "May 9th", "9 May"),
    (THURSDAY, "The passport is valid until the 4th of May 2036, imagine", "4th of May 2036", "4 May 2036"),
    (THURSDAY, "resit on 14 august", "14 august", "14 August"),
    (THURSDAY, "prom is june the 6th", "june the 6th", "6 June"),
    (THURSDAY, "The deadline is 2026-09-30.", "2026-09-30", "30 September 2026"),
    (THURSDAY, "We married on October 31, 1998.", "October 31, 1998", "31 October 1998"),
    (THURSDAY, "Name day: the twenty-third of June", "twenty-third of June", "23 June"),
    (THURSDAY, "See you on Friday, May 8th.", "May 8th", "8 May"),
]

LEFT_ALONE = [
    (MONDAY, "You may march on, Mr. March, I sat in the sun a second."),
    (MONDAY, "Now give me a second, I may 5 times as well sit down."),
    (MONDAY, "I play tennis on Fridays, and every week on Monday I swim."),
    (MONDAY, "About two weeks ago, or two or three months ago, she rang."),
    (MONDAY, "It was a week and a half ago, or 1.5 weeks ago."),
    (MONDAY, "A few days ago I lost it. Half a year ago too."),
    (TUESDAY, "He is coming next Friday."),  # the 6th to some, the 13th to others
    (MONDAY, "Come today or tomorrow, on Monday or Tuesday."),
    (MONDAY, "I learnt to swim in two weeks, the first time in three years."),
    (MONDAY, "It'll be three weeks today."),
    (MONDAY, "I live on the 24th floor, he's the 12th in line, on the fourth he gave up."),
    (MONDAY, "The rent is due on the 5th, every month."),
    (MONDAY, "It was on the 30th."),  # February has none
    (MONDAY, "the last Friday of the month, the next month, 5/9, 3-5 May"),
    (MONDAY, "It was the 31st of February."),
    (MONDAY, "Ich komme morgen, mañana, demain."),
]


@pytest.mark.parametrize(("day", "text", "phrase", "answer"), MEANT, ids=[text for _, text, _, _ in MEANT])
def test_a_phrase_means_the_date_that_it_has_seen_from_the_day_of_its_turn(
    day: date, text: str, phrase: str, answer: str
) -> None:
    assert [(found.text, found.answer) for found in dates_in(text, day)] == [(phrase, answer)]
    (found,) = dates_in(text, day)
    assert text[found.start : found.end] == phrase


@pytest.mark.parametrize(("day", "text"), LEFT_ALONE, ids=[text for _, text in LEFT_ALONE])
def test_what_means_no_certain_date_is_left_alone(day: date, text: str) -> None:
    assert dates_in(text, day) == ()


def test_a_turn_without_a_day_dates_nothing() -> None:
    assert dates_in("The hearing is tomorrow.", None) == ()


@pytest.mark.parametrize(
    ("span", "phrase"),
    [
        ("three weeks", "three weeks from today"),
        ("hospital three weeks from today", "three weeks from today"),
        ("It is three weeks from today.", "three weeks from today"),
        ("tomorrow", "tomorrow"),
        ("Kolin", None),
        ("three", None),  # the dogs, too
    ],
)
def test_a_span_in_a_dating_phrase_or_around_it_is_that_phrase(span: str, phrase: str | None) -> None:
    text = "Three dogs and I go into hospital three weeks from today, Kolin goes tomorrow."
    found = date_meant(span, text, dates_in(text, MONDAY))
    assert (found.text if found else None) == phrase


@pytest.mark.parametrize(
    ("question", "asks"),
    [
        ("When do I go into hospital?", True),
        ("when's my viva?", True),
        ("On what date did my sister give birth?", True),
        ("Which day is my exam?", True),
        ("Since when is Kolin ill?", True),
        ("How long ago did he fall?", True),
        ("What's the date of my wedding?", True),
        ("On which day of the week do I swim?", False),
        ("Who is ill?", False),
        ("What did I do when Kolin was ill?", False),
        ("When did Bo arrive last Friday?", False),  # true today only
    ],
)
def test_questions_for_a_day_are_known_by_how_they_begin(question: str, asks: bool) -> None:
    assert asks_for_day(question) is asks

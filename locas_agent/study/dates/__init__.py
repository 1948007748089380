"""Dates that a turn speaks of: phrases that mean a day seen from the day of the turn, and the day that each means.

"I go into hospital three weeks from today" is true on one day only. What is learnt of it is the date. Everything here
looks at words and the calendar alone, and knows no model. English only: other languages are left as they are.

What people mean by a phrase is not always plain. These readings are taken:

- "on Friday", "this Friday", "since Friday", "by Friday": the nearest other Friday, before or after as the verb says
  (`tense.py`).
- "next Friday": the Friday of the week after this one, where that is also the nearest. Said on a Tuesday, half of the
  people mean the nearer Friday and half the other: it is left alone.
- "last Friday": the nearest before today, though it were yesterday. Weeks begin on Monday.
- Months and years that are counted from today mean a month or a year and no day: "two months ago" said in March 2026 is
  "January 2026". "A year ago today" is a day.
- "9 May" without a year keeps none: it may be a birthday.

Left alone are what is said to be rough or open ("about two weeks ago", "two or three days ago", "a few days ago",
"today or tomorrow"), habits ("on Fridays", "every week on Friday"), "the 24th" without a month, "in two weeks" of what
is past (that is a time that something took), "three weeks today", and dates written as "5/9".
"""

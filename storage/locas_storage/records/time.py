"""Points in time as every store keeps them: microseconds since 1970-01-01 UTC."""

import datetime as dt

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def micros(value: dt.datetime) -> int:
    """Return an aware datetime as microseconds since 1970-01-01 UTC."""
    return (value - EPOCH) // dt.timedelta(microseconds=1)


def moment(value: int) -> dt.datetime:
    """Return microseconds since 1970-01-01 UTC as an aware datetime."""
    return EPOCH + dt.timedelta(microseconds=value)

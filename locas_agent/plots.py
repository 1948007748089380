"""Pictures of what a memory does: an explained text, a memory's rows layer by layer, the arms of an evaluation.

Needs the extra `plot`.

A picture of an explained text shows that text: it is personal data too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from locas_agent.errors import ConfigurationError, ExchangeError, MissingExtra
from locas_agent.memory.stats import LayerStats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from locas_agent.results import Explanation

SUFFIXES = (".png", ".svg", ".pdf")
_LABEL_CHARACTERS = 24
_WIDEST_INCHES = 40.0
_SHORTEST_SCALE = 0.05


def plot_explanation(explanation: Explanation, path: str | Path) -> Path:
    """Draw a text's log-probabilities with and without the memory, token by token.

    Args:
        explanation: from `UserMemory.explain`.
        path: a file that ends in .png, .svg or .pdf; it is overwritten.

    Raises:
        MissingExtra: matplotlib is not installed.
        ConfigurationError: another ending.
        ExchangeError: the file cannot be written.
    """
    tokens = explanation.tokens
    figure = blank_figure(path, width=min(_WIDEST_INCHES, 2.0 + 0.35 * len(tokens)))
    axes = figure.add_subplot()
    places = range(len(tokens))
    axes.bar(
        [at - 0.2 for at in places],
        [token.logprob_without for token in tokens],
        width=0.4,
        color="0.7",
        label="without memory",
    )
    axes.bar(
        [at + 0.2 for at in places],
        [token.logprob for token in tokens],
        width=0.4,
        color="tab:blue",
        label="with memory",
    )
    axes.set_xticks(list(places))
    # repr shows line breaks and control characters; parse_math: a dollar sign is a dollar sign
    labels = [repr(token.text)[1:-1][:_LABEL_CHARACTERS] for token in tokens]
    axes.set_xticklabels(labels, rotation=90, parse_math=False)
    axes.set_ylabel("log-probability (nats)")
    axes.legend()
    return save_figure(figure, path)


def plot_layers(figures: Sequence[LayerStats], path: str | Path) -> Path:
    """Draw a memory's mean row norms and the share of rows at the clip, by layer.

    Args:
        figures: from `memory.stats.layer_stats`.
        path: as in `plot_explanation`.

    Raises:
        MissingExtra: matplotlib is not installed.
        ConfigurationError: another ending.
        ExchangeError: the file cannot be written.
    """
    figure = blank_figure(path, width=8.0)
    norms, shares = figure.subplots(2, 1, sharex=True)
    layers = [-each.layer for each in figures]
    for axes, name, unit in ((norms, "{}_norm", "mean row norm"), (shares, "clipped_{}", "share at the clip")):
        for kind in ("gate", "up", "down"):
            axes.plot(layers, [getattr(each, name.format(kind)) for each in figures], marker="o", label=kind)
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=0)
    shares.set_xlabel("layer, counted from the last (0)")
    shares.set_xticks(layers)
    norms.legend()
    return save_figure(figure, path)


def check_picture(path: str | Path) -> None:
    """Refuse a picture that cannot be drawn before hours of work go into what it would show.

    Raises:
        MissingExtra: matplotlib is not installed.
        ConfigurationError: the name has another ending than a picture's.
    """
    blank_figure(path, width=1.0)


def draw_arms(axes: Axes, figures: Mapping[str, tuple[float, Sequence[float] | None]]) -> None:
    """Draw one bar for each arm of an evaluation, the first on top, and its 95 % interval as a line.

    Args:
        axes: empty.
        figures: by arm, its value and its interval; None draws no line. Arms with a memory are set off by colour.
    """
    names = list(figures)
    axes.barh(
        names,
        [value for value, _ in figures.values()],
        color=["tab:blue" if "memory" in name else "0.7" for name in names],
    )
    for at, (_, interval) in enumerate(figures.values()):
        if interval is not None:
            axes.plot(list(interval), [at, at], color="black", linewidth=1)
    ends = [end for value, interval in figures.values() for end in (value, *(interval or ()))]
    axes.set_xlim(0, 1.05 * max(_SHORTEST_SCALE, *ends))
    axes.invert_yaxis()


def blank_figure(path: str | Path, *, width: float) -> Figure:
    """Return an empty figure, made without pyplot, whose state all threads of a process would share.

    Args:
        path: where it will be saved; only its ending is looked at.
        width: in inches.

    Raises:
        MissingExtra: matplotlib is not installed.
        ConfigurationError: the ending is no picture's.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ConfigurationError(f"a picture's name ends in {', '.join(SUFFIXES)}, got {Path(path).name!r}")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra.of("plot", "a picture") from error
    return Figure(figsize=(width, 4.5), layout="constrained")


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure and return its path.

    Raises:
        ExchangeError: the file cannot be written.
    """
    place = Path(path)
    try:
        figure.savefig(place)
    except OSError as error:
        raise ExchangeError(f"cannot write {place.name!r}: {error.strerror or type(error).__name__}") from error
    return place

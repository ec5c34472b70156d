"""The report's charts, as SVG to stand inside a page, all in one style."""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

BLUE, ORANGE, GREEN, PALE, GREY = "#0072b2", "#d55e00", "#009e73", "#9cc9e3", "#a3aeb8"
INK, RULE = "#33424f", "#dde4ea"
WIDTH, HEIGHT = 5.6, 2.9
"""Inches, of a chart of one panel."""
LOWEST, HIGHEST = -0.02, 1.03
"""Of an axis of shares, so that lines at 0 and at 1 are seen whole."""
BINS = 30
"""Of a histogram."""
CHARTED = 20
"""Classes that a chart has room for."""

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": RULE,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "legend.borderpad": 0,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.markersize": 4,
    "svg.fonttype": "none",  # text stays text: the page's font, and searchable
    "svg.hashsalt": "report",
    "text.color": INK,
    "text.parse_math": False,  # a $ in a class's name is a $
    "xtick.color": INK,
    "xtick.major.size": 0,
    "ytick.color": INK,
    "ytick.major.size": 0,
}

NO_METADATA: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))

P = ParamSpec("P")


def _as_svg(draw: Callable[P, Figure]) -> Callable[P, str]:
    """Make a function that draws a figure return it as an <svg> element in the common style."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
        buffer = io.StringIO()
        with matplotlib.rc_context(STYLE):
            figure = draw(*args, **kwargs)
            figure.savefig(buffer, format="svg", transparent=True, metadata=NO_METADATA)
        text = buffer.getvalue()
        return text[text.index("<svg") :]

    return drawn


@_as_svg
def pretraining_chart(curves: pd.DataFrame, constant_loss: float) -> Figure:
    """Draw the losses of the pre-training, and that of predicting each patch's mean."""
    figure = Figure((WIDTH, HEIGHT))
    axes = figure.subplots()
    axes.axhline(constant_loss, color=INK, linewidth=1.2, linestyle="--", label="a constant's loss")
    axes.plot(curves["step"], curves["train_loss"], color=PALE, marker=".", label="training")
    axes.plot(curves["step"], curves["val_loss"], color=BLUE, marker="o", label="validation")
    axes.set(xlabel="step", ylabel="reconstruction loss", ylim=(0, None), xlim=(0, None))
    _legend_above(axes, axes.get_lines())
    return figure


@_as_svg
def finetuning_chart(pretrained: pd.DataFrame, scratch: pd.DataFrame) -> Figure:
    """Draw the validation mIoU of the fine-tuning, with and without pre-training."""
    figure = Figure((WIDTH, HEIGHT))
    axes = figure.subplots()
    for curves, color, label, width in (
        (scratch, GREY, "from scratch", 4.5),  # seen below the other where both agree
        (pretrained, BLUE, "pre-trained", 1.6),
    ):
        measured = curves.dropna(subset=["val_miou"])
        axes.plot(
            measured["step"],
            measured["val_miou"],
            color=color,
            label=label,
            linewidth=width,
            marker="o",
            markersize=3 + width,
        )
    axes.set(xlabel="fine-tuning step", ylabel="validation mIoU", ylim=(0, 1), xlim=(0, None))
    _legend_above(axes, axes.get_lines())
    return figure


@_as_svg
def class_chart(classes: pd.DataFrame) -> Figure:
    """Draw the held-out IoU of the worst 20 classes in their order (columns class, iou, scratch_iou)."""
    worst = classes["iou"].astype(float).nsmallest(CHARTED).index.sort_values()
    classes = classes.loc[worst] if len(classes) > CHARTED else classes
    figure = Figure((WIDTH, 0.75 + 0.5 * len(classes)))
    axes = figure.subplots()
    for column, color, label, shift in (
        ("iou", BLUE, "pre-trained", -0.19),
        ("scratch_iou", GREY, "from scratch", 0.19),
    ):
        values = classes[column].astype(float)
        rows = [row + shift for row in range(len(classes))]
        axes.barh(rows, values.fillna(0), 0.34, color=color, label=label)
        for row, value in zip(rows, values, strict=True):
            known = not pd.isna(value)
            text = f"{value:.2f}" if known else "unknown"
            axes.text((value if known else 0) + 0.01, row, text, va="center", fontsize=8)
    axes.set(xlabel="IoU", xlim=(0, 1.1), xticks=[0, 0.25, 0.5, 0.75, 1])
    axes.set_yticks(range(len(classes)), classes["class"])
    _lay_bars(axes)
    return figure


@_as_svg
def threshold_chart(thresholds: pd.DataFrame, min_score: float) -> Figure:
    """Draw what another score threshold would find, and what it would cost."""
    figure = Figure((2 * WIDTH, HEIGHT))
    objects, images = figure.subplots(1, 2)
    score = thresholds["min_score"]

    objects.plot(score, thresholds["found_share"], color=GREEN, label="defects found")
    objects.set_ylabel("share of the labelled defects")
    false = objects.twinx()
    false.plot(score, thresholds["false_per_image"], color=ORANGE, label="false reports (right)")
    most = thresholds["false_per_image"].fillna(0).max() or 1.0
    false.set(ylabel="false reports an image", ylim=(LOWEST * most, HIGHEST * most))
    false.grid(visible=False)
    _legend_above(objects, [*objects.get_lines(), *false.get_lines()])

    for column, color, label in (
        ("escape_share", ORANGE, "escape"),
        ("overkill_share", BLUE, "overkill"),
    ):
        if thresholds[column].notna().any():  # unknown without defective, or without good images
            images.plot(score, thresholds[column], color=color, label=label)
    images.set_ylabel("share of the images concerned")
    _legend_above(images, images.get_lines())

    for axes in (objects, images):
        axes.axvline(min_score, color=INK, linewidth=1, linestyle=":")
        axes.set(xlabel="score threshold (dotted: as shipped)", xlim=(0, 1), ylim=(LOWEST, HIGHEST))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


@_as_svg
def energy_chart(kwh: pd.DataFrame) -> Figure:
    """Draw the electricity, measured and estimated (columns), of each stage (index)."""
    figure = Figure((WIDTH, 0.75 + 0.4 * len(kwh)))
    axes = figure.subplots()
    watt_hours = kwh * 1000
    axes.barh(kwh.index, watt_hours["measured"], 0.55, color=BLUE, label="measured")
    axes.barh(
        kwh.index,
        watt_hours["estimated"],
        0.55,
        left=watt_hours["measured"],
        color=PALE,
        label="estimated",
    )
    axes.set(xlabel="electricity in Wh")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    _lay_bars(axes)
    return figure


@_as_svg
def comparison_chart(
    curves: pd.DataFrame,
    quantity: str,
    label: str,
    colors: Mapping[str, str],
    target: float,
    constant_loss: float,
) -> Figure:
    """Draw the validation loss of each variant against what it took, thin by seed and thick on average.

    Args:
        curves: columns variant, seed, step, val_loss, and `quantity`.
        target: the loss to reach, dashed.
        constant_loss: that of a network that learnt nothing; what lies above it and the target is cut off.
    """
    figure = Figure((WIDTH, HEIGHT))
    axes = figure.subplots()
    axes.axhline(target, color=INK, linewidth=1, linestyle="--")
    for variant, color in colors.items():
        runs = curves[curves["variant"] == variant]
        for _, run in runs.groupby("seed"):
            axes.plot(run[quantity], run["val_loss"], color=color, linewidth=0.8, alpha=0.5)
        by_step = runs.groupby("step")[[quantity, "val_loss"]]
        mean = by_step.mean()[by_step.size() == runs["seed"].nunique()]
        axes.plot(mean[quantity], mean["val_loss"], color=color)
    top = max(constant_loss, 1.01 * target)
    if curves["val_loss"].min() < top < curves["val_loss"].max():
        axes.set_ylim(top=top)
    axes.set(xlabel=label, ylabel="validation loss", xlim=(0, None))
    return figure


@_as_svg
def tuning_chart(trials: pd.DataFrame, colors: Mapping[str, str]) -> Figure:
    """Draw the best validation loss by learning rate (columns variant, learning_rate, loss)."""
    figure = Figure((WIDTH, HEIGHT))
    axes = figure.subplots()
    for variant, color in colors.items():
        tried = trials[trials["variant"] == variant]
        axes.plot(tried["learning_rate"], tried["loss"], color=color, marker="o")
    rates = sorted(trials["learning_rate"].unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(rates, [f"{rate:.2g}" for rate in rates])
    axes.set(xlabel="learning rate", ylabel="best validation loss")
    return figure


@_as_svg
def histogram_chart(values: Mapping[str, pd.Series], label: str) -> Figure:
    """Draw how many images of each split have which value."""
    figure = Figure((WIDTH, HEIGHT))
    axes = figure.subplots()
    joint = pd.concat(values.values())
    low, high = joint.min(), joint.max()
    axes.hist(
        list(values.values()),
        bins=BINS,
        range=(low, high) if low < high else (0, high or 1),
        stacked=True,
        color=(BLUE, ORANGE, GREEN)[: len(values)],
        label=list(values),
    )
    axes.set(xlabel=label, ylabel="images")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    handles, _ = axes.get_legend_handles_labels()
    _legend_above(axes, handles)
    return figure


def _lay_bars(axes: Axes) -> None:
    """Put the first bar on top, and the legend above the bars."""
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    _legend_above(axes, axes.containers)


def _legend_above(axes: Axes, handles: Sequence[Any]) -> None:
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(handles))

"""One table on every face, with the numbers that were measured and the best of them marked."""

import io
from types import SimpleNamespace

from rich.console import Console

from mood.report import Measured, Report, metrics_table


def test_markdown(made: SimpleNamespace) -> None:
    sets = (
        made.scored_set(
            "a|b",
            1.0,
            metrics={"auroc": Measured(0.912, 0.9, 0.92), "fpr95_id_positive": Measured(0.5), "flagged": Measured(0.7)},
            controls={"six numbers": {"auroc": Measured(0.95), "fpr95_id_positive": Measured(0.6)}},
        ),
        made.scored_set(
            "c",
            1.0,
            metrics={"auroc": Measured(0.7), "fpr95_id_positive": Measured(0.1), "flagged": Measured(0.5)},
            controls={"six numbers": {"auroc": Measured(0.6), "fpr95_id_positive": Measured(0.3)}},
        ),
        made.scored_set("seen", 1.0, metrics={"auroc": Measured(1.0)}, seen_by_weights=True),
    )
    assert metrics_table(sets, score="mood").to_markdown() == (
        "| OOD set | images | score | AUROC ↑ | FPR95 (ID positive) ↓ | flagged |\n"
        "| --- | --- | --- | ---: | ---: | ---: |\n"
        "| a\\|b | 120 | mood | 91.2 (90.0–92.0) | **50.0** | 70.0 |\n"
        "|  |  | six numbers | **95.0** | 60.0 |  |\n"
        "| c | 120 | mood | **70.0** | **10.0** | 50.0 |\n"
        "|  |  | six numbers | 60.0 | 30.0 |  |\n"
        "| seen † | 120 | mood | 100.0 |  |  |\n"
        "| mean of 2 sets |  | mood | **80.6** | **30.0** | 60.0 |\n"
        "|  |  | six numbers | 77.5 | 45.0 |  |\n"
        "\n† The weights have seen images of this set; it is left out of the mean.\n"
        "\nThe control “six numbers” has an AUROC no lower than mood on: a\\|b.\n"
    )


def test_the_console_shows_the_same_numbers(full: Report) -> None:
    table = metrics_table(full.ood, score="mood")
    file = io.StringIO()
    Console(file=file, width=200).print(table.to_console())
    shown = file.getvalue()
    for row in table.rows:
        for cell in row.cells:
            assert (cell.number or cell.text) in shown
            assert cell.interval in shown
    for note in table.notes:
        assert note in shown


def test_what_is_asked_for_alone_is_shown_and_nothing_is_cut_short(full: Report) -> None:
    table = metrics_table(full.ood, score="mood", metrics=("auroc", "flagged")).without("images")
    assert table.columns == ("OOD set", "score", "AUROC ↑", "flagged")
    file = io.StringIO()
    Console(file=file, width=80).print(table.to_console())
    shown = file.getvalue()
    assert max(len(line) for line in shown.splitlines()) <= 80
    for row in table.rows:
        for cell in row.cells:
            assert (cell.number or cell.text) in shown
            assert cell.interval in shown


def test_names_are_words_on_the_console_and_no_style(made: SimpleNamespace) -> None:
    file = io.StringIO()
    sets = (made.scored_set("[bold]x[/bold]", 1.0, metrics=made.METRICS),)
    Console(file=file, width=200).print(metrics_table(sets, score="[red]").to_console())
    assert "[bold]x[/bold]" in file.getvalue()
    assert "[red]" in file.getvalue()


def test_no_sets_no_rows() -> None:
    table = metrics_table((), score="mood")
    assert table.rows == ()
    assert table.to_markdown().startswith("| OOD set | images | score |\n")
    Console(file=io.StringIO()).print(table.to_console())

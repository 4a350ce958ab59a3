"""MLflow's own page, in a browser, on a finished search: runs are selected and compared."""

import pytest

from tests.browser import find_chromium, open_page
from tests.mlflow_page import expand, mlflow_server, open_runs, select

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not find_chromium(), reason="no Chromium (apt-get install chromium)"),
]

DRAWN = "(document.querySelector('.js-plotly-plot')?.data || []).filter(curve => curve.y?.length)"


def test_trials_are_selected_and_compared_and_show_schedule_and_figures(swept, free_port, tmp_path):
    store = f"sqlite:///{swept.folder}/mlflow.db"
    with mlflow_server(tmp_path, free_port, store=store) as uri, open_page(1500, 1000) as page:
        open_runs(page, uri, "tags.sweep = 'out'")
        expand(page, "out")
        for name in ("trial 0000", "trial 0001"):
            select(page, name)
        page.click_text("Compare", "button")
        page.wait_for_text("Comparing 2 Runs from 1 Experiment")
        page.wait_for_text("train.optimizer.learning_rate")
        page.click_text("alignment/lambda", "a")
        page.wait("location.hash.startsWith('#/metric')")
        compared = {run_of(swept, name) for name in ("trial 0000", "trial 0001")}
        page.wait(f"new Set({DRAWN}.map(curve => curve.uuid)).size >= {len(compared)}")
        # MLflow draws every run twice: smoothed, and faintly as it was recorded.
        curves = page.run(f"{DRAWN}.map(curve => [curve.uuid, [...curve.y]])")
        assert {run for run, _ in curves} == compared
        for _, strengths in curves:
            assert strengths == sorted(strengths) and strengths[0] == 0
        assert max(max(strengths) for _, strengths in curves) == pytest.approx(0.01)
        run_id = run_of(swept, "trial 0000")
        page.goto(f"{uri}/#/experiments/1/runs/{run_id}/artifacts/figures/alignment_schedule.png")
        page.wait(
            "[...document.images].some(i => i.src.startsWith('blob:') && i.naturalWidth > 400)"
        )
        for name in ("alignment_by_popularity.png", "entity_weights.png", "alignment_schedule.png"):
            page.wait_for_text(name)


def run_of(swept, name: str) -> str:
    from egra_dist.tracking.reader import Records

    records = Records(f"sqlite:///{swept.folder}/mlflow.db")
    (run,) = records.runs("egra", f"attributes.run_name = '{name}'")
    return run.run_id

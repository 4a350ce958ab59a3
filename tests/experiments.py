"""Records of run folders in MLflow, as tests write and read them."""

from egra_dist.tracking.client import default_uri
from egra_dist.tracking.experiment import Experiment
from egra_dist.tracking.reader import Records

NOBODY = "http://127.0.0.1:9"  # The discard port: refused at once.


def open_experiment(run_folder, uri=None, **options):
    return Experiment.open(uri, run_folder, "egra", **options)


def recorded(run_folder, uri=None):
    """The parent and its children by stage; fails when there is another parent."""
    records = Records(uri or default_uri(run_folder))
    (parent,) = (run for run in records.runs("egra") if run.parent_id is None)
    return parent, records.children(parent)

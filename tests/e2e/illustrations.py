"""What pages have for illustration, and what a test does in its place."""

# Trainings learn next to nothing; that commands work is what is looked at.
SHORT = "--set pretrain.max_epochs=1 --set train.max_epochs=1"
# One worker without a GPU, for the eight of a page.
ONE_WORKER = (
    "--set cluster.num_workers=1 --set cluster.cpus_per_worker=1 --set cluster.gpus_per_worker=0 "
    "--set cluster.environment={}"
)

REPLACED = {
    # Machines.
    r"http://HEAD:8265": "{cluster.url}",
    r"10\.0\.0\.1:6379": "{cluster.address}",
    # Weights that would have to be downloaded: functions of the reader's own.
    r"sentence-transformers/all-MiniLM-L6-v2": "my_encoders:words",
    r"resnet50 --weights resnet50\.pth": "my_pictures:colours",
    # A million items, in the guide's rehearsal of a size.
    r"--items 1000000 --users 500000 --interactions 10000000": (
        "--items 1000 --users 500 --interactions 10000"
    ),
    # A setting of many trainings that is searched with two.
    r"(--space configs/sweeps/egra.yaml)": r"\1 --samples 2",
    # Placeholders of benchmarks: the reader's own data.
    r"--data FOLDER": "--data raw/tiktok",
    r"SPEC\.json": "spec.json",
}

ADDED = {
    r"^egra-dist (run|submit|sweep|demo)\b(?!.*--kuberay)": SHORT,
    r"jobs/train\.py": f"{SHORT} --set cluster.cpus_per_worker=1",
    r"^egra-dist (run|submit) .*--cluster(?!.*--kuberay)": ONE_WORKER,
    # Benchmarks, at sizes that say nothing.
    r"benchmarks\.checkpoints$": "--items 2000 --steps 2 --rounds 1",
    r"benchmarks\.compare$": "--runs 2 --steps 20",
    r"benchmarks\.device$": "--device cpu --scale 2000",
    r"benchmarks\.exact$": "--data raw --work exact --models egra --losses bpr",
    r"benchmarks\.fuzz$": "--inputs 3",
    r"benchmarks\.knn$": "--methods exact 'routed .98' faiss.knn",
    r"benchmarks\.knn\b": "--sizes 3000 --folder knn",
    r"benchmarks\.knn_placement$": "--rows 200000 --workers 4 --routed-rows 5000",
    r"benchmarks\.plain$": "--data raw --work plain --rounds 1",
    r"benchmarks\.quality$": "--data raw --work quality --data-sets tiktok --minutes 0",
    r"benchmarks\.ranking\b": "--items 300 --users 500 --repeats 1",
    r"benchmarks\.sampled\b": "--items 2000 --steps 2 --warm-up 1",
    r"benchmarks\.scale\b": "--items 2000 --folder scale",
    r"benchmarks\.serving (index|lists)\b": "--items 2000 --users 500",
    r"benchmarks\.serving http$": "--items 500 --users 300 --requests 20",
    r"benchmarks\.submit\b": f"{SHORT} --set train.patience=1",
    r"benchmarks\.tables$": "--rows 5000 --batch 500 --ranks 1",
}

SETS_UP = "installs into .venv first; CI runs it, see .ci/run"
LOSES_MACHINES = (
    "takes minutes even for one kill; tests/integration/test_lost_machines.py is its copy"
)
NOT_RUN = {
    "make install": SETS_UP,
    "make lint": SETS_UP,
    "make docs": "installs first; tests/e2e/test_site.py builds the site",
    "make test": "would run itself",
    "make test-slow": "would run itself",
    "make test-slow SHARE=3/5": "would run itself",
    "make lint docs test test-slow": "would run itself",
    "make demo": "installs first; `egra-dist demo` is run",
    "make results": "installs first; `python -m tests.benchmarks.quality` is run",
    "make screenshots": "installs first; takes minutes, and its pictures are looked at",
    "source .venv/bin/activate": "changes the reader's shell alone",
    "pip install --no-deps pynndescent==0.7.0 numba==0.68.1 llvmlite==0.50.0 hnswlib==0.8.0": (
        "would change the environment of the tests"
    ),
    "python -m tests.benchmarks.chaos": LOSES_MACHINES,
    "python -m tests.benchmarks.chaos --kills 20 --steps 700": LOSES_MACHINES,
    "kubectl apply -f -": "needs a Kubernetes cluster; manifests are checked against schemas",
    "kubectl apply -f job.yaml": "the same",
    "python -m tests.benchmarks.dockerfile --root DIR": (
        "needs root, mmdebstrap and a Debian mirror"
    ),
}
# Those of the quickstart that would keep everybody waiting who needs its shop.
RUN_LATER = ("egra-dist demo", "mlflow ui --backend-store-uri sqlite:///runs/first/mlflow.db")
# Pages that are followed from block to block elsewhere: test_pages.py.
FOLLOWED = ("quickstart.md", "extend.md", "troubleshooting.md")

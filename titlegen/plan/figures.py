"""The figures behind the estimates: measured, or assumed."""

# Measured by the scripts in benchmarks/: FILE.METRIC of benchmarks/results. A test compares them with the files.
MEASURED = {
    "data_speed.docs_s": 4534.0,
    "data_speed.peak_gib_1m": 1.05,
    "faster.first_step_cold_s": 88.4,
    "faster.first_step_warm_s": 43.7,
    "push_speed.dd_s": 5.05,
    "push_speed.push_mib_s": 251.0,
    "quickstart.prepare_s": 2.62,
    "quickstart.train_start_s": 10.1,
    "quickstart.train_tok_s": 235.5,
    "quickstart.train_peak_gib": 3.95,
    "quickstart.gguf_params_s": 25.2e6,
    "quickstart.verify_s": 47.1,
    "quickstart.verify_articles": 4,
    "quickstart.evaluate_s": 59.8,
    "quickstart.evaluate_titles": 80,
    "quickstart.served_s": 25.6,
    "quickstart.served_titles": 40,
    "quickstart.deploy_s": 12.0,
    "train_e4b.tok_s_plain": 4355.0,
    "train_e4b.peak_gib_plain": 51.8,
    "train_e4b.tok_s_unsloth": 3572.0,
    "train_e4b.peak_gib_unsloth": 26.0,
    "train_e4b.tok_s_unsloth_compiled": 9642.0,
    "train_e4b.peak_gib_unsloth_compiled": 14.4,
    "train_e4b.tok_s_titlegen": 27627.0,
    "train_e4b.peak_gib_titlegen": 45.6,
    "train_e4b.tok_s_titlegen_pts": 26727.0,
    "train_e4b.peak_gib_titlegen_pts": 65.9,
    "train_e4b.tok_s_titlegen_low_memory": 3542.0,
    "train_e4b_small.load_peak_gib": 7.45,
    "train_e4b_two_gpus.ratio_train": 1.6,
    "train_e4b_small.reserved_gib_13gib": 9.69,
}
# Source: docs/performance.md, "When compiling pays".
UNCOMPILED_TOK_S, COMPILE_TOKENS = 8200.0, 1_000_000

# Assumed, not measured; wherever one of these is used, the plan says so.
NETWORK_MIB_S = 50.0
GPU_STEPS_S = 20.0
LLAMA_CPU_TITLE_S = 20.0
SERVED_TITLE_S = 0.5
BESIDE_MODEL_GIB = 1.0

# push_speed.dd_s is the time for this much.
_DD_MIB = 2048


def cite(*names: str) -> str:
    """Return measured figures with their place."""
    return f"benchmarks/results: {', '.join(f'{name} = {MEASURED[name]:,.10g}' for name in names)}"


def disk_minutes(gib: float) -> float:
    """Return the minutes that the disk takes to write so much."""
    return gib * 1024 / _DD_MIB * MEASURED["push_speed.dd_s"] / 60


def network_minutes(gib: float) -> float:
    """Return how long a download or upload takes, at the assumed speed."""
    return gib * 1024 / NETWORK_MIB_S / 60

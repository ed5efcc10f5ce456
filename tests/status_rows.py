"""The table of refusals that tritonclient is put through: what is wrong, and the code for it.

Plain data, because tritonclient's script and the tests that read its report each need it and cannot
share a process.
"""

CLASSES, FEATURES, MOST_ROWS = 4, 8, 512
MESSAGE_BYTES, BUDGET_BYTES = 256 * 1024, 128 * 1024

_STEPS = {"name": "steps", "datatype": "INT64", "shape": [1, 1], "elements": 1}

# Each changes a good request for model `linear`: two rows of 8 features as input `x`. `elements`:
# how many are sent, or None for no data at all; the others are as tritonclient calls them. `server`
# is `main`, the default, or `closed`, where shared memory is off and model `sum` is unloaded. Model
# `narrow` lets one request wait, and one does.
REQUESTS = {
    "unknown model": ("NOT_FOUND", {"model_name": "nobody"}),
    "unknown version": ("NOT_FOUND", {"model_version": "9"}),
    "version that is no integer": ("INVALID_ARGUMENT", {"model_version": "one"}),
    "negative version": ("INVALID_ARGUMENT", {"model_version": "-1"}),
    "queue timeout": ("UNAVAILABLE", {"model_name": "steps", "timeout": 1000}),
    "full queue": (
        "UNAVAILABLE",
        {**_STEPS, "model_name": "narrow"},
    ),
    "model that is not ready": (
        "UNAVAILABLE",
        {"server": "closed", "model_name": "sum", "name": "a"},
    ),
    "wrong input name": ("INVALID_ARGUMENT", {"name": "z"}),
    "no input": ("INVALID_ARGUMENT", {"copies": 0}),
    "the same input twice": ("INVALID_ARGUMENT", {"copies": 2}),
    "missing input": ("INVALID_ARGUMENT", {"model_name": "sum", "name": "a"}),
    "wrong datatype": ("INVALID_ARGUMENT", {"datatype": "FP64"}),
    "too many dimensions": ("INVALID_ARGUMENT", {"shape": [1, 2, FEATURES]}),
    "wrong width": ("INVALID_ARGUMENT", {"shape": [FEATURES, 2]}),
    "too few bytes": ("INVALID_ARGUMENT", {"elements": 15}),
    "too many bytes": ("INVALID_ARGUMENT", {"elements": 17}),
    "no rows": ("INVALID_ARGUMENT", {"shape": [0, FEATURES], "elements": 0}),
    "too many rows": (
        "INVALID_ARGUMENT",
        {"shape": [MOST_ROWS + 1, FEATURES], "elements": (MOST_ROWS + 1) * FEATURES},
    ),
    "no data": ("INVALID_ARGUMENT", {"elements": None}),
    "negative dimension": ("INVALID_ARGUMENT", {"shape": [-2, FEATURES]}),
    "overflowing dimensions": ("INVALID_ARGUMENT", {"shape": [2**62, 2**62]}),
    "unknown output": ("INVALID_ARGUMENT", {"outputs": ["colour"]}),
    "the same output twice": ("INVALID_ARGUMENT", {"outputs": ["label", "label"]}),
    "parameter of another type": ("INVALID_ARGUMENT", {"parameters": {"timings": "yes"}}),
    "inputs the graph refuses": (
        "INVALID_ARGUMENT",
        {"model_name": "pick", "name": "at", "datatype": "INT64", "shape": [16], "fill": 99},
    ),
    "unregistered region": ("NOT_FOUND", {"region": "nobody"}),
    "region too small": ("INVALID_ARGUMENT", {"region": "some", "byte_size": 1 << 20}),
    "offset beyond the region": ("INVALID_ARGUMENT", {"region": "some", "offset": 1}),
    "region of another size": ("INVALID_ARGUMENT", {"region": "some", "byte_size": 60}),
    "output beyond the region": ("INVALID_ARGUMENT", {"output_region": "some", "offset": 1}),
    "output of an unregistered region": ("NOT_FOUND", {"output_region": "nobody"}),
    "shared memory that is off": ("UNIMPLEMENTED", {"server": "closed", "region": "some"}),
    "over the byte budget": (
        "RESOURCE_EXHAUSTED",
        {"parameters": {"note": "n" * BUDGET_BYTES}},
    ),
    "model that breaks its word": (
        "INTERNAL",
        {"model_name": "liar", "shape": [8, 2]},
    ),
}

# Each is a function of tritonclient_refusals.py.
CALLS = {
    "readiness of an unknown model": "NOT_FOUND",
    "readiness of an unknown version": "NOT_FOUND",
    "readiness of no version": "INVALID_ARGUMENT",
    "metadata of an unknown model": "NOT_FOUND",
    "config of an unknown model": "NOT_FOUND",
    "statistics of an unknown model": "NOT_FOUND",
    "metadata while stopping": "UNAVAILABLE",
    "load without explicit control": "UNAVAILABLE",
    "unload without explicit control": "UNAVAILABLE",
    "request while stopping": "UNAVAILABLE",
    "stream while stopping": "UNAVAILABLE",
    "reserved parameter": "INVALID_ARGUMENT",
    "malformed message": "INVALID_ARGUMENT",
    "raw and typed contents": "INVALID_ARGUMENT",
    "more raw contents than inputs": "INVALID_ARGUMENT",
    "status of an unknown region": "NOT_FOUND",
    "region registered twice": "ALREADY_EXISTS",
    "region larger than its object": "INVALID_ARGUMENT",
    "region that starts beyond its object": "INVALID_ARGUMENT",
    "malformed region key": "INVALID_ARGUMENT",
    "region of no bytes": "INVALID_ARGUMENT",
    "registration that is off": "UNIMPLEMENTED",
    "message over the limit": "RESOURCE_EXHAUSTED",
    "message over the limit on a stream": "RESOURCE_EXHAUSTED",
    "deadline before compute": "DEADLINE_EXCEEDED",
    "cancelled request": "CANCELLED",
    "cancelled stream": "CANCELLED",
    "unknown RPC": "UNIMPLEMENTED",
}
# Rows of the requests above that must never run, so that batches tell whether they did.
LATE_ROWS, CANCELLED_ROWS, CANCELLED_STREAM_ROWS = 3, 5, 7
# What such a request waits for: so many rows of so many steps.
SLOW_ROWS, SLOW_STEPS = 800, 60_000

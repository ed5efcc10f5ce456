"""The model for Triton's Python backend: the same session, one execution per request.

Installed as model.py in Triton's model repository; config.pbtxt names graph and threads.
"""

import json

import triton_python_backend_utils as pb_utils
from session import open_session, run


class TritonPythonModel:
    """The class that Triton loads; the backend prescribes the names."""

    def initialize(self, args):
        """Load the graph."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._session = open_session(
            parameters["graph"]["string_value"], int(parameters["threads"]["string_value"])
        )

    def execute(self, requests):
        """Answer the requests that Triton passes in one call."""
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            wanted = list(request.requested_output_names())
            results = run(self._session, wanted, x)
            tensors = [pb_utils.Tensor(n, r) for n, r in zip(wanted, results, strict=True)]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return responses

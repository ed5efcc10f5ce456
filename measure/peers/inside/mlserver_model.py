"""The model for MLServer: the same session, one execution per request.

Its parameters come from model-settings.json.
"""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from session import open_session, run


class Linear(MLModel):
    """The class that MLServer loads; it prescribes the names."""

    async def load(self) -> bool:
        """Load the graph."""
        extra = self.settings.parameters.extra
        self._session = open_session(extra["graph"], extra["threads"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run all rows of the one input."""
        x = NumpyCodec.decode_input(payload.inputs[0])
        (labels,) = run(self._session, ["label"], x)
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("label", labels)]
        )

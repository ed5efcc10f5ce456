package example;

import com.google.protobuf.UnsafeByteOperations;
import inference.Inference.InferParameter;
import inference.Inference.ModelInferRequest;
import inference.Inference.ModelInferRequest.InferInputTensor;
import inference.Inference.ModelInferRequest.InferRequestedOutputTensor;
import inference.Inference.ModelInferResponse;
import inference.Inference.ModelMetadataResponse.TensorMetadata;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.LongBuffer;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * Rows of float32 in a file, each with the int64 label that it should get: raw, little-endian.
 */
final class Examples implements AutoCloseable {
  private final RandomAccessFile rows;
  private final LongBuffer labels;
  private final String model;
  private final TensorMetadata input;

  Examples(Path inputs, Path labels, String model, TensorMetadata input) throws IOException {
    this.labels = longs(ByteBuffer.wrap(Files.readAllBytes(labels)));
    this.model = model;
    this.input = input;
    long want = (long) count() * rowBytes();
    if (Files.size(inputs) != want || want == 0) {
      throw new IOException(
          "%s has %d bytes, expected %d, for %d labels"
              .formatted(inputs, Files.size(inputs), want, count()));
    }
    this.rows = new RandomAccessFile(inputs.toFile(), "r");
  }

  int count() {
    return labels.limit();
  }

  int rowBytes() {
    return Float.BYTES * (int) input.getShape(1);
  }

  /**
   * Asks for the labels of some rows. With {@code moreFollows} the server may wait for the next
   * request of the stream before it runs the model.
   */
  ModelInferRequest request(int first, int count, boolean moreFollows) throws IOException {
    var raw = new byte[count * rowBytes()];
    rows.seek((long) first * rowBytes());
    rows.readFully(raw);
    var request =
        ModelInferRequest.newBuilder()
            .setModelName(model)
            .setId(Integer.toString(first))
            .addInputs(
                InferInputTensor.newBuilder()
                    .setName(input.getName())
                    .setDatatype(input.getDatatype())
                    .addShape(count)
                    .addShape(input.getShape(1)))
            .addOutputs(InferRequestedOutputTensor.newBuilder().setName("label"))
            // Nobody changes these bytes any more, so they need not be copied.
            .addRawInputContents(UnsafeByteOperations.unsafeWrap(raw));
    if (moreFollows) {
      request.putParameters(
          "more_follows", InferParameter.newBuilder().setBoolParam(true).build());
    }
    return request.build();
  }

  /** Counts the labels in the answer about some rows that are not those of the file. */
  int wrong(ModelInferResponse response, int first, int count) throws IOException {
    if (!response.getId().equals(Integer.toString(first))
        || response.getRawOutputContentsCount() != 1) {
      throw new IOException(
          "got answer '%s', expected '%d', with one output".formatted(response.getId(), first));
    }
    LongBuffer got = longs(response.getRawOutputContents(0).asReadOnlyByteBuffer());
    if (got.limit() != count) {
      throw new IOException(
          "answer '%d' has %d labels, expected %d".formatted(first, got.limit(), count));
    }
    int wrong = 0;
    for (int i = 0; i < count; i++) {
      if (got.get(i) != labels.get(first + i)) {
        wrong++;
      }
    }
    return wrong;
  }

  @Override
  public void close() throws IOException {
    rows.close();
  }

  private static LongBuffer longs(ByteBuffer raw) {
    return raw.order(ByteOrder.LITTLE_ENDIAN).asLongBuffer();
  }
}

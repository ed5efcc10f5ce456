package example;

import inference.GRPCInferenceServiceGrpc;
import inference.GRPCInferenceServiceGrpc.GRPCInferenceServiceBlockingV2Stub;
import inference.Inference.ModelMetadataRequest;
import inference.Inference.ModelMetadataResponse.TensorMetadata;
import inference.Inference.ModelStreamInferResponse;
import inference.Inference.ServerMetadataRequest;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusException;
import io.grpc.stub.MetadataUtils;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/**
 * Sends examples to a server, one alone and then all on a stream, and holds every label against a
 * file.
 */
public final class Predict {
  private static final int MESSAGE_BYTES = 4 << 20;

  /** The server takes no more in one request unless it is told to. */
  private static final int MESSAGE_ROWS = 1024;

  /**
   * Messages sent and not yet answered. The model runs on groups of 32 rows: with fewer than two
   * groups on their way, here 16 messages of 4 rows, it would wait for the network.
   */
  private static final int IN_FLIGHT = 16;

  private static final long UNARY_DEADLINE_S = 10;
  private static final long STREAM_DEADLINE_S = 60;

  /** A call that has sent more than this is not retried; the default is 1 MiB. */
  private static final long RETRY_BYTES = (IN_FLIGHT + 1L) * MESSAGE_BYTES;

  private static final Map<String, ?> SERVICE_CONFIG =
      Map.of(
          "methodConfig",
          List.of(
              Map.of(
                  "name", List.of(Map.of("service", GRPCInferenceServiceGrpc.SERVICE_NAME)),
                  "retryPolicy",
                      Map.of(
                          "maxAttempts", 4.0,
                          "initialBackoff", "0.1s",
                          "maxBackoff", "2s",
                          "backoffMultiplier", 2.0,
                          "retryableStatusCodes", List.of("UNAVAILABLE")))));

  private static final Metadata.Key<String> ERRORS_END_THE_STREAM =
      Metadata.Key.of("triton_grpc_error", Metadata.ASCII_STRING_MARSHALLER);

  private final GRPCInferenceServiceBlockingV2Stub stub;

  private Predict(GRPCInferenceServiceBlockingV2Stub stub) {
    this.stub = stub;
  }

  public static void main(String[] args) throws Exception {
    if (args.length != 3 && args.length != 4) {
      System.err.println("usage: java -jar predict.jar ADDRESS INPUTS LABELS [MODEL]");
      System.exit(2);
    }
    String model = args.length == 4 ? args[3] : "linear_argmax";
    ManagedChannel channel =
        Grpc.newChannelBuilder(args[0], InsecureChannelCredentials.create())
            .defaultServiceConfig(SERVICE_CONFIG)
            .perRpcBufferLimit(RETRY_BYTES)
            .retryBufferSize(RETRY_BYTES)
            .build();
    int wrong;
    try {
      var predict = new Predict(GRPCInferenceServiceGrpc.newBlockingV2Stub(channel));
      wrong = predict.run(Path.of(args[1]), Path.of(args[2]), model);
    } finally {
      channel.shutdownNow();
    }
    if (wrong > 0) {
      System.exit(1);
    }
  }

  /** Returns how many labels are wrong. */
  private int run(Path inputs, Path labels, String model)
      throws IOException, StatusException, InterruptedException {
    TensorMetadata input = describe(model);
    try (var examples = new Examples(inputs, labels, model, input)) {
      int wrong = inferOne(examples);
      long start = System.nanoTime();
      wrong += inferStream(examples);
      double seconds = (System.nanoTime() - start) / 1e9;
      System.out.printf(
          "stream   %d labels, %d wrong, %.0f examples/s%n",
          examples.count(), wrong, examples.count() / seconds);
      return wrong;
    }
  }

  /** Prints what the server and the model say of themselves, and returns the model's input. */
  private TensorMetadata describe(String model) throws IOException, StatusException {
    var unary = stub.withDeadlineAfter(UNARY_DEADLINE_S, TimeUnit.SECONDS);
    var server = unary.serverMetadata(ServerMetadataRequest.getDefaultInstance());
    System.out.printf(
        "server   %s %s: %s%n", server.getName(), server.getVersion(), server.getExtensionsList());
    var told = unary.modelMetadata(ModelMetadataRequest.newBuilder().setName(model).build());
    for (var tensor : told.getInputsList()) {
      print("input", tensor);
    }
    for (var tensor : told.getOutputsList()) {
      print("output", tensor);
    }
    TensorMetadata input = told.getInputs(0);
    if (told.getInputsCount() != 1
        || !input.getDatatype().equals("FP32")
        || input.getShapeCount() != 2) {
      throw new IOException(model + " does not take one input, FP32 [n, features]");
    }
    return input;
  }

  private static void print(String kind, TensorMetadata tensor) {
    System.out.printf(
        "%-8s %s %s %s%n", kind, tensor.getName(), tensor.getDatatype(), tensor.getShapeList());
  }

  /** Sends the first example alone, and returns how many labels are wrong. */
  private int inferOne(Examples examples) throws IOException, StatusException {
    var request = examples.request(0, 1, false);
    long start = System.nanoTime();
    var response = stub.withDeadlineAfter(UNARY_DEADLINE_S, TimeUnit.SECONDS).modelInfer(request);
    System.out.printf("one      %.1f ms%n", (System.nanoTime() - start) / 1e6);
    return examples.wrong(response, 0, 1);
  }

  /** Sends all examples on one stream, and returns how many labels are wrong. */
  private int inferStream(Examples examples)
      throws IOException, StatusException, InterruptedException {
    // With this an error ends the stream with its status; without, it comes as error_message.
    var headers = new Metadata();
    headers.put(ERRORS_END_THE_STREAM, "true");
    var call =
        stub.withDeadlineAfter(STREAM_DEADLINE_S, TimeUnit.SECONDS)
            .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers))
            .modelStreamInfer();
    int rows = examples.count();
    int step = Math.min(Math.max(1, MESSAGE_BYTES / examples.rowBytes()), MESSAGE_ROWS);
    int wrong = 0;
    int sent = 0;
    for (int answered = 0; answered < rows; answered += step) {
      // A write is false when the stream has ended; the read tells why.
      while (sent < rows
          && sent - answered < IN_FLIGHT * step
          && call.write(
              examples.request(sent, Math.min(step, rows - sent), sent + step < rows))) {
        sent += step;
      }
      ModelStreamInferResponse answer = call.read();
      if (answer == null) {
        throw new IOException("the stream ended before every message was answered");
      }
      wrong +=
          examples.wrong(answer.getInferResponse(), answered, Math.min(step, rows - answered));
    }
    call.halfClose();
    return wrong;
  }
}

// Sends examples to a server, one alone and then all on a stream, and holds every label against a
// file.
//
//   predict ADDRESS INPUTS LABELS [MODEL]
//
// INPUTS holds rows of float32, LABELS an int64 for each row, both raw and little-endian.

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

#include "examples.h"
#include "protos/inference.grpc.pb.h"

namespace {

using Clock = std::chrono::steady_clock;
using inference::GRPCInferenceService;
using TensorMetadata = inference::ModelMetadataResponse::TensorMetadata;

constexpr std::int64_t kMessageBytes = 4 << 20;
// The server takes no more in one request unless it is told to.
constexpr std::int64_t kMessageRows = 1024;
// Messages sent and not yet answered. The model runs on groups of 32 rows: with fewer than two
// groups on their way, here 16 messages of 4 rows, it would wait for the network.
constexpr std::int64_t kInFlight = 16;
constexpr auto kUnaryDeadline = std::chrono::seconds(10);
constexpr auto kStreamDeadline = std::chrono::seconds(60);
// A request over this size is not retried; the default is 256 KiB.
constexpr int kRetryBytes = 128 << 20;
// Retries of a stream are left to InferStream: gRPC's C++ core lost messages when it did them
// (1.51, 1.85), and it gives up once an answer has come.
// ADDRESS may name several servers, as ipv4:HOST:PORT,HOST:PORT; those that are healthy take turns.
constexpr char kServiceConfig[] = R"({
 "loadBalancingConfig": [{"round_robin": {}}],
 "healthCheckConfig": {"serviceName": ""},
 "methodConfig": [
  {"name": [{"service": "inference.GRPCInferenceService"}],
   "retryPolicy": {
     "maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
     "retryableStatusCodes": ["UNAVAILABLE"]}},
  {"name": [{"service": "inference.GRPCInferenceService", "method": "ModelStreamInfer"}]}]})";
constexpr int kStreamAttempts = 4;
constexpr auto kStreamBackoff = std::chrono::milliseconds(100);

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(kServiceConfig);
  arguments.SetInt(GRPC_ARG_PER_RPC_RETRY_BUFFER_SIZE, kRetryBytes);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

void Check(const grpc::Status& status, const std::string& call) {
  if (!status.ok()) {
    throw std::runtime_error(call + ": status " + std::to_string(status.error_code()) + ", " +
                             status.error_message());
  }
}

void SetDeadline(grpc::ClientContext& context, std::chrono::seconds after) {
  context.set_deadline(std::chrono::system_clock::now() + after);
}

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void Print(const char* kind, const TensorMetadata& tensor) {
  std::cout << kind << tensor.name() << " " << tensor.datatype();
  for (std::int64_t size : tensor.shape()) std::cout << " " << size;
  std::cout << "\n";
}

// Prints what the server and the model say of themselves, and returns the model's input.
TensorMetadata Describe(GRPCInferenceService::Stub& stub, const std::string& model) {
  grpc::ClientContext server_context;
  SetDeadline(server_context, kUnaryDeadline);
  inference::ServerMetadataResponse server;
  Check(stub.ServerMetadata(&server_context, {}, &server), "ServerMetadata");
  std::cout << "server   " << server.name() << " " << server.version() << ":";
  for (const auto& extension : server.extensions()) std::cout << " " << extension;
  std::cout << "\n";

  grpc::ClientContext model_context;
  SetDeadline(model_context, kUnaryDeadline);
  inference::ModelMetadataRequest request;
  request.set_name(model);
  inference::ModelMetadataResponse told;
  Check(stub.ModelMetadata(&model_context, request, &told), "ModelMetadata");
  for (const auto& tensor : told.inputs()) Print("input    ", tensor);
  for (const auto& tensor : told.outputs()) Print("output   ", tensor);
  if (told.inputs_size() != 1 || told.inputs(0).datatype() != "FP32" ||
      told.inputs(0).shape_size() != 2) {
    throw std::runtime_error(model + " does not take one input, FP32 [n, features]");
  }
  return told.inputs(0);
}

// Sends the first example alone, and returns how many labels are wrong.
std::int64_t InferOne(GRPCInferenceService::Stub& stub, Examples& examples) {
  inference::ModelInferRequest request = examples.Request(0, 1, false);
  inference::ModelInferResponse response;
  grpc::ClientContext context;
  SetDeadline(context, kUnaryDeadline);
  auto start = Clock::now();
  Check(stub.ModelInfer(&context, request, &response), "ModelInfer");
  std::cout << "one      " << SecondsSince(start) * 1e3 << " ms\n";
  return examples.Wrong(response, 0, 1);
}

// How far a batch has come.
struct Progress {
  std::int64_t answered = 0;
  std::int64_t wrong = 0;
};

// Sends on one stream what is not answered yet. Returns how the stream ended.
grpc::Status Continue(GRPCInferenceService::Stub& stub, Examples& examples, Progress& progress) {
  grpc::ClientContext context;
  SetDeadline(context, kStreamDeadline);
  // With this an error ends the stream with its status; without, it comes as error_message.
  context.AddMetadata("triton_grpc_error", "true");
  auto stream = stub.ModelStreamInfer(&context);
  const std::int64_t rows = examples.count();
  const std::int64_t step =
      std::clamp<std::int64_t>(kMessageBytes / examples.row_bytes(), 1, kMessageRows);
  std::int64_t sent = progress.answered;
  inference::ModelStreamInferResponse answer;
  while (progress.answered < rows) {
    // Write returns false when the stream has ended; Finish tells why.
    while (sent < rows && sent - progress.answered < kInFlight * step &&
           stream->Write(
               examples.Request(sent, std::min(step, rows - sent), sent + step < rows))) {
      sent += step;
    }
    if (!stream->Read(&answer)) return stream->Finish();
    progress.wrong += examples.Wrong(answer.infer_response(), progress.answered,
                                     std::min(step, rows - progress.answered));
    progress.answered += step;
  }
  stream->WritesDone();
  return stream->Finish();
}

// Sends all examples on a stream, another one from where it broke if the server was unavailable,
// and returns how many labels are wrong.
std::int64_t InferStream(GRPCInferenceService::Stub& stub, Examples& examples) {
  Progress progress;
  grpc::Status status = Continue(stub, examples, progress);
  for (int attempt = 1;
       status.error_code() == grpc::StatusCode::UNAVAILABLE && attempt < kStreamAttempts;
       ++attempt) {
    std::this_thread::sleep_for(kStreamBackoff * (1 << attempt));
    status = Continue(stub, examples, progress);
  }
  Check(status, "ModelStreamInfer");
  if (progress.answered < examples.count()) {
    throw std::runtime_error("the stream ended before every message was answered");
  }
  return progress.wrong;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) {
    std::cerr << "usage: predict ADDRESS INPUTS LABELS [MODEL]\n";
    return 2;
  }
  const std::string model = argc == 5 ? argv[4] : "linear_argmax";
  try {
    auto stub = GRPCInferenceService::NewStub(Connect(argv[1]));
    Examples examples(argv[2], argv[3], model, Describe(*stub, model));
    std::int64_t wrong = InferOne(*stub, examples);
    auto start = Clock::now();
    wrong += InferStream(*stub, examples);
    double rate = static_cast<double>(examples.count()) / SecondsSince(start);
    std::cout << "stream   " << examples.count() << " labels, " << wrong << " wrong, "
              << static_cast<std::int64_t>(rate) << " examples/s\n";
    return wrong == 0 ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}

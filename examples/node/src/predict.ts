// Sends examples to a server, one alone and then all on a stream, and holds every label against a
// file.
//
//   node dist/src/predict.js ADDRESS INPUTS LABELS [MODEL]
//
// INPUTS holds rows of float32, LABELS an int64 for each row, both raw and little-endian.

import { fileURLToPath } from "node:url";
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { Examples } from "./examples.js";
import type { ProtoGrpcType } from "../generated/inference.js";
import type { GRPCInferenceServiceClient } from "../generated/inference/GRPCInferenceService.js";
import type { ModelInferResponse__Output } from "../generated/inference/ModelInferResponse.js";
import type {
  _inference_ModelMetadataResponse_TensorMetadata__Output as TensorMetadata,
  ModelMetadataResponse__Output,
} from "../generated/inference/ModelMetadataResponse.js";
import type { ModelStreamInferResponse__Output } from "../generated/inference/ModelStreamInferResponse.js";
import type { ServerMetadataResponse__Output } from "../generated/inference/ServerMetadataResponse.js";

const MESSAGE_BYTES = 4 << 20;
// The server takes no more in one request unless it is told to.
const MESSAGE_ROWS = 1024;
// Messages sent and not yet answered. The model runs on groups of 32 rows: with fewer than two
// groups on their way, here 16 messages of 4 rows, it would wait for the network.
const IN_FLIGHT = 16;
const UNARY_DEADLINE_MS = 10_000;
const STREAM_DEADLINE_MS = 60_000;
// A call that has sent more than this is not retried; the default is 1 MiB.
const RETRY_BYTES = (IN_FLIGHT + 1) * MESSAGE_BYTES;
// ADDRESS may name several servers, as ipv4:HOST:PORT,HOST:PORT; they take turns.
const SERVICE_CONFIG = {
  loadBalancingConfig: [{ round_robin: {} }],
  methodConfig: [
    {
      name: [{ service: "inference.GRPCInferenceService" }],
      retryPolicy: {
        maxAttempts: 4,
        initialBackoff: "0.1s",
        maxBackoff: "2s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE"],
      },
    },
  ],
};

// proto-loader reads the .proto files where they are; imports in them start at the root.
const ROOT = fileURLToPath(new URL("../../../..", import.meta.url));

function connect(address: string): GRPCInferenceServiceClient {
  const definition = loadSync("protos/inference.proto", {
    includeDirs: [ROOT],
    keepCase: true,
    longs: Number,
    defaults: true,
    oneofs: true,
  });
  const { inference } = grpc.loadPackageDefinition(definition) as unknown as ProtoGrpcType;
  return new inference.GRPCInferenceService(address, grpc.credentials.createInsecure(), {
    "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
    "grpc.per_rpc_retry_buffer_size": RETRY_BYTES,
    "grpc.retry_buffer_size": RETRY_BYTES,
  });
}

/** Makes a promise of a unary call, with a deadline. */
function unary<Response>(
  call: (options: grpc.CallOptions, done: grpc.requestCallback<Response>) => void,
): Promise<Response> {
  const options = { deadline: Date.now() + UNARY_DEADLINE_MS };
  return new Promise((resolve, reject) => {
    call(options, (error, response) => (error ? reject(error) : resolve(response as Response)));
  });
}

/** Prints what the server and the model say of themselves, and returns the model's input. */
async function describe(client: GRPCInferenceServiceClient, model: string): Promise<TensorMetadata> {
  const server = await unary<ServerMetadataResponse__Output>((options, done) =>
    client.serverMetadata({}, options, done),
  );
  console.log(`server   ${server.name} ${server.version}: ${server.extensions.join(", ")}`);
  const told = await unary<ModelMetadataResponse__Output>((options, done) =>
    client.modelMetadata({ name: model }, options, done),
  );
  for (const { name, datatype, shape } of told.inputs) {
    console.log(`input    ${name} ${datatype} [${shape.join(", ")}]`);
  }
  for (const { name, datatype, shape } of told.outputs) {
    console.log(`output   ${name} ${datatype} [${shape.join(", ")}]`);
  }
  const [input] = told.inputs;
  if (told.inputs.length !== 1 || input?.datatype !== "FP32" || input.shape.length !== 2) {
    throw new Error(`${model} does not take one input, FP32 [n, features]`);
  }
  return input;
}

/** Sends the first example alone, and returns how many labels are wrong. */
async function inferOne(client: GRPCInferenceServiceClient, examples: Examples): Promise<number> {
  const request = examples.request(0, 1, false);
  const start = performance.now();
  const response = await unary<ModelInferResponse__Output>((options, done) =>
    client.modelInfer(request, options, done),
  );
  console.log(`one      ${(performance.now() - start).toFixed(1)} ms`);
  return examples.wrong(response, 0, 1);
}

/** Sends all examples on one stream, and returns how many labels are wrong. */
async function inferStream(client: GRPCInferenceServiceClient, examples: Examples): Promise<number> {
  const metadata = new grpc.Metadata();
  // With this an error ends the stream with its status; without, it comes as error_message.
  metadata.set("triton_grpc_error", "true");
  const call = client.modelStreamInfer(metadata, { deadline: Date.now() + STREAM_DEADLINE_MS });
  const rows = examples.count;
  const fitting = Math.max(1, Math.floor(MESSAGE_BYTES / examples.rowBytes));
  const step = Math.min(fitting, MESSAGE_ROWS);
  let wrong = 0;
  let sent = 0;
  let answered = 0;
  const send = () => {
    for (; sent < rows && sent - answered < IN_FLIGHT * step; sent += step) {
      const moreFollows = sent + step < rows;
      call.write(examples.request(sent, Math.min(step, rows - sent), moreFollows));
      if (!moreFollows) {
        call.end();
      }
    }
  };
  send();
  for await (const answer of call as AsyncIterable<ModelStreamInferResponse__Output>) {
    wrong += examples.wrong(answer.infer_response, answered, Math.min(step, rows - answered));
    answered += step;
    send();
  }
  if (answered < rows) {
    throw new Error("the stream ended before every message was answered");
  }
  return wrong;
}

async function main(): Promise<void> {
  const [address, inputs, labels, model = "linear_argmax"] = process.argv.slice(2);
  if (!address || !inputs || !labels) {
    throw new Error("usage: predict.js ADDRESS INPUTS LABELS [MODEL]");
  }
  const client = connect(address);
  try {
    const examples = new Examples(inputs, labels, model, await describe(client, model));
    let wrong = await inferOne(client, examples);
    const start = performance.now();
    wrong += await inferStream(client, examples);
    const rate = (examples.count / (performance.now() - start)) * 1000;
    console.log(`stream   ${examples.count} labels, ${wrong} wrong, ${rate.toFixed(0)} examples/s`);
    process.exitCode = wrong ? 1 : 0;
  } finally {
    client.close();
  }
}

await main();

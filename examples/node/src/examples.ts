// Rows of float32 in a file, each with the int64 label that it should get: raw, little-endian.

import { openSync, readFileSync, readSync, statSync } from "node:fs";
import type { ModelInferRequest } from "../generated/inference/ModelInferRequest.js";
import type { ModelInferResponse__Output } from "../generated/inference/ModelInferResponse.js";
import type { _inference_ModelMetadataResponse_TensorMetadata__Output as TensorMetadata } from "../generated/inference/ModelMetadataResponse.js";

const FLOAT_BYTES = 4;

export class Examples {
  readonly count: number;
  readonly rowBytes: number;
  readonly #model: string;
  readonly #input: string;
  readonly #rows: number;
  readonly #labels: Buffer;

  constructor(inputs: string, labels: string, model: string, input: TensorMetadata) {
    this.#model = model;
    this.#input = input.name;
    this.#labels = readFileSync(labels);
    this.count = this.#labels.length / BigInt64Array.BYTES_PER_ELEMENT;
    this.rowBytes = FLOAT_BYTES * input.shape[1]!;
    const want = this.count * this.rowBytes;
    const { size } = statSync(inputs);
    if (size !== want || want === 0) {
      throw new Error(`${inputs} has ${size} bytes, expected ${want}, for ${this.count} labels`);
    }
    this.#rows = openSync(inputs, "r");
  }

  /**
   * Asks for the labels of some rows. With `moreFollows` the server may wait for the next request
   * of the stream before it runs the model.
   */
  request(first: number, rows: number, moreFollows: boolean): ModelInferRequest {
    const raw = Buffer.allocUnsafe(rows * this.rowBytes);
    readSync(this.#rows, raw, 0, raw.length, first * this.rowBytes);
    return {
      model_name: this.#model,
      id: String(first),
      inputs: [
        { name: this.#input, datatype: "FP32", shape: [rows, this.rowBytes / FLOAT_BYTES] },
      ],
      outputs: [{ name: "label" }],
      raw_input_contents: [raw],
      parameters: moreFollows ? { more_follows: { bool_param: true } } : {},
    };
  }

  /** Counts the labels in the answer about some rows that are not those of the file. */
  wrong(response: ModelInferResponse__Output | null, first: number, rows: number): number {
    const [labels] = response?.raw_output_contents ?? [];
    if (response?.id !== String(first) || labels === undefined) {
      throw new Error(`got answer '${response?.id}', expected '${first}', with one output`);
    }
    const got = labels.length / BigInt64Array.BYTES_PER_ELEMENT;
    if (got !== rows) {
      throw new Error(`answer '${first}' has ${got} labels, expected ${rows}`);
    }
    let wrong = 0;
    for (let row = 0; row < rows; row++) {
      if (labels.readBigInt64LE(8 * row) !== this.#labels.readBigInt64LE(8 * (first + row))) {
        wrong++;
      }
    }
    return wrong;
  }
}

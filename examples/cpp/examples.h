// Rows of float32 in a file, each with the int64 label that it should get: raw, little-endian.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "protos/inference.pb.h"

class Examples {
 public:
  // `input` is what the model takes. Throws std::runtime_error when the files do not fit it.
  Examples(const std::string& inputs, const std::string& labels, const std::string& model,
           const inference::ModelMetadataResponse::TensorMetadata& input);

  std::int64_t count() const { return static_cast<std::int64_t>(labels_.size()); }
  std::int64_t row_bytes() const { return features_ * static_cast<std::int64_t>(sizeof(float)); }

  // Asks for the labels of some rows. With more_follows the server may wait for the next request
  // of the stream before it runs the model.
  inference::ModelInferRequest Request(std::int64_t first, std::int64_t rows, bool more_follows);

  // Counts the labels in the answer about some rows that are not those of the file.
  std::int64_t Wrong(const inference::ModelInferResponse& response, std::int64_t first,
                     std::int64_t rows) const;

 private:
  std::ifstream rows_;
  std::vector<std::int64_t> labels_;
  std::string model_;
  std::string input_;
  std::int64_t features_;
};

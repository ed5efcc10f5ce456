#include "examples.h"

#include <cstring>
#include <stdexcept>

// Tensors are little-endian, and so is what they are copied from and to here.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);

namespace {

std::ifstream Open(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " cannot be opened");
  return file;
}

std::int64_t Size(std::ifstream& file) {
  file.seekg(0, std::ios::end);
  std::int64_t size = file.tellg();
  file.seekg(0);
  return size;
}

}  // namespace

Examples::Examples(const std::string& inputs, const std::string& labels, const std::string& model,
                   const inference::ModelMetadataResponse::TensorMetadata& input)
    : rows_(Open(inputs)), model_(model), input_(input.name()), features_(input.shape(1)) {
  std::ifstream file = Open(labels);
  labels_.resize(Size(file) / sizeof(std::int64_t));
  file.read(reinterpret_cast<char*>(labels_.data()), labels_.size() * sizeof(std::int64_t));
  std::int64_t size = Size(rows_), want = count() * row_bytes();
  if (size != want || want == 0) {
    throw std::runtime_error(inputs + " has " + std::to_string(size) + " bytes, expected " +
                             std::to_string(want) + ", for " + std::to_string(count()) + " labels");
  }
}

inference::ModelInferRequest Examples::Request(std::int64_t first, std::int64_t rows,
                                                 bool more_follows) {
  inference::ModelInferRequest request;
  request.set_model_name(model_);
  request.set_id(std::to_string(first));
  auto* input = request.add_inputs();
  input->set_name(input_);
  input->set_datatype("FP32");
  input->add_shape(rows);
  input->add_shape(features_);
  request.add_outputs()->set_name("label");
  if (more_follows) (*request.mutable_parameters())["more_follows"].set_bool_param(true);
  std::string* raw = request.add_raw_input_contents();
  raw->resize(rows * row_bytes());
  rows_.seekg(first * row_bytes());
  if (!rows_.read(raw->data(), raw->size())) throw std::runtime_error("the rows cannot be read");
  return request;
}

std::int64_t Examples::Wrong(const inference::ModelInferResponse& response, std::int64_t first,
                             std::int64_t rows) const {
  if (response.id() != std::to_string(first) || response.raw_output_contents_size() != 1) {
    throw std::runtime_error("got answer '" + response.id() + "', expected '" +
                             std::to_string(first) + "', with one output");
  }
  const std::string& raw = response.raw_output_contents(0);
  std::vector<std::int64_t> got(raw.size() / sizeof(std::int64_t));
  std::memcpy(got.data(), raw.data(), got.size() * sizeof(std::int64_t));
  if (static_cast<std::int64_t>(got.size()) != rows) {
    throw std::runtime_error("answer '" + response.id() + "' has " + std::to_string(got.size()) +
                             " labels, expected " + std::to_string(rows));
  }
  std::int64_t wrong = 0;
  for (std::int64_t row = 0; row < rows; ++row) wrong += got[row] != labels_[first + row];
  return wrong;
}

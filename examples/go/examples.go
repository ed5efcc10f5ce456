package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"

	pb "argmax-serving/examples/go/inference"
)

// examples are rows in a file, each with the label that it should get.
type examples struct {
	file     *os.File
	labels   []int64
	model    string
	input    string
	rowBytes int
}

func openExamples(inputs, labels, model string, input *pb.ModelMetadataResponse_TensorMetadata) (*examples, error) {
	raw, err := os.ReadFile(labels)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(inputs)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	e := &examples{file, int64s(raw), model, input.Name, 4 * int(input.Shape[1])}
	if want := int64(len(e.labels)) * int64(e.rowBytes); info.Size() != want || want == 0 {
		return nil, fmt.Errorf("%s has %d bytes, expected %d, for %d labels", inputs, info.Size(), want, len(e.labels))
	}
	return e, nil
}

// request asks for the labels of some rows. With moreFollows the server may wait for the next
// request of the stream before it runs the model.
func (e *examples) request(first, rows int, moreFollows bool) (*pb.ModelInferRequest, error) {
	raw := make([]byte, rows*e.rowBytes)
	if _, err := e.file.ReadAt(raw, int64(first)*int64(e.rowBytes)); err != nil {
		return nil, err
	}
	request := &pb.ModelInferRequest{
		ModelName: e.model,
		Id:        strconv.Itoa(first),
		Inputs: []*pb.ModelInferRequest_InferInputTensor{{
			Name: e.input, Datatype: "FP32", Shape: []int64{int64(rows), int64(e.rowBytes / 4)},
		}},
		Outputs:          []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "label"}},
		RawInputContents: [][]byte{raw},
	}
	if moreFollows {
		request.Parameters = map[string]*pb.InferParameter{
			"more_follows": {ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: true}},
		}
	}
	return request, nil
}

// wrong counts the labels in the answer about some rows that are not those of the file.
func (e *examples) wrong(response *pb.ModelInferResponse, first, rows int) (int, error) {
	if response.GetId() != strconv.Itoa(first) || len(response.GetRawOutputContents()) != 1 {
		return 0, fmt.Errorf("got answer %q, expected %d, with one output", response.GetId(), first)
	}
	labels := int64s(response.RawOutputContents[0])
	if len(labels) != rows {
		return 0, fmt.Errorf("answer %d has %d labels, expected %d", first, len(labels), rows)
	}
	wrong := 0
	for i, label := range labels {
		if label != e.labels[first+i] {
			wrong++
		}
	}
	return wrong, nil
}

func int64s(raw []byte) []int64 {
	numbers := make([]int64, len(raw)/8)
	for i := range numbers {
		numbers[i] = int64(binary.LittleEndian.Uint64(raw[8*i:]))
	}
	return numbers
}

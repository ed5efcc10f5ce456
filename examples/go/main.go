// Command predict sends examples to a server, one alone and then all on a stream, and holds every
// label against a file.
//
//	predict ADDRESS INPUTS LABELS [MODEL]
//
// INPUTS holds rows of float32, LABELS an int64 for each row, both raw and little-endian.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	pb "argmax-serving/examples/go/inference"
)

const (
	messageBytes = 4 << 20
	messageRows  = 1024 // The server takes no more in one request unless it is told to.
	// Messages sent and not yet answered. The model runs on groups of 32 rows: with fewer than two
	// groups on their way, here 16 messages of 4 rows, it would wait for the network.
	inFlight       = 16
	unaryDeadline  = 10 * time.Second
	streamDeadline = 60 * time.Second

	retryPolicy = `{"methodConfig": [{
		"name": [{"service": "inference.GRPCInferenceService"}],
		"retryPolicy": {
			"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
			"retryableStatusCodes": ["UNAVAILABLE"]}}]}`
	// A call that has sent more than this is not retried; the default is 256 KiB.
	retryBytes = (inFlight + 1) * messageBytes
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 && len(os.Args) != 5 {
		log.Fatal("usage: predict ADDRESS INPUTS LABELS [MODEL]")
	}
	model := "linear_argmax"
	if len(os.Args) == 5 {
		model = os.Args[4]
	}
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3], model); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, address, inputs, labels, model string) error {
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(retryPolicy),
		grpc.WithDefaultCallOptions(grpc.MaxRetryRPCBufferSize(retryBytes)))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := pb.NewGRPCInferenceServiceClient(conn)

	input, err := describe(ctx, client, model)
	if err != nil {
		return err
	}
	data, err := openExamples(inputs, labels, model, input)
	if err != nil {
		return err
	}
	defer data.file.Close()

	wrongAlone, err := inferOne(ctx, client, data)
	if err != nil {
		return fmt.Errorf("ModelInfer: %w", err)
	}
	start := time.Now()
	wrong, err := inferStream(ctx, client, data)
	if err != nil {
		return fmt.Errorf("ModelStreamInfer: %w", err)
	}
	rate := float64(len(data.labels)) / time.Since(start).Seconds()
	wrong += wrongAlone
	fmt.Printf("stream   %d labels, %d wrong, %.0f examples/s\n", len(data.labels), wrong, rate)
	if wrong > 0 {
		return fmt.Errorf("%d labels are wrong", wrong)
	}
	return nil
}

// describe prints what the server and the model say of themselves, and returns the model's input.
func describe(ctx context.Context, client pb.GRPCInferenceServiceClient, model string) (
	*pb.ModelMetadataResponse_TensorMetadata, error) {
	ctx, cancel := context.WithTimeout(ctx, unaryDeadline)
	defer cancel()
	server, err := client.ServerMetadata(ctx, &pb.ServerMetadataRequest{})
	if err != nil {
		return nil, fmt.Errorf("ServerMetadata: %w", err)
	}
	fmt.Printf("server   %s %s: %v\n", server.Name, server.Version, server.Extensions)
	told, err := client.ModelMetadata(ctx, &pb.ModelMetadataRequest{Name: model})
	if err != nil {
		return nil, fmt.Errorf("ModelMetadata: %w", err)
	}
	for _, tensor := range told.Inputs {
		fmt.Printf("input    %s %s %v\n", tensor.Name, tensor.Datatype, tensor.Shape)
	}
	for _, tensor := range told.Outputs {
		fmt.Printf("output   %s %s %v\n", tensor.Name, tensor.Datatype, tensor.Shape)
	}
	if len(told.Inputs) != 1 || told.Inputs[0].Datatype != "FP32" || len(told.Inputs[0].Shape) != 2 {
		return nil, fmt.Errorf("%s takes %v, expected one input, FP32 [n, features]", model, told.Inputs)
	}
	return told.Inputs[0], nil
}

// inferOne sends the first example alone, and returns how many labels are wrong.
func inferOne(ctx context.Context, client pb.GRPCInferenceServiceClient, data *examples) (int, error) {
	request, err := data.request(0, 1, false)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, unaryDeadline)
	defer cancel()
	start := time.Now()
	response, err := client.ModelInfer(ctx, request)
	if err != nil {
		return 0, err
	}
	fmt.Printf("one      %.1f ms\n", time.Since(start).Seconds()*1e3)
	return data.wrong(response, 0, 1)
}

// inferStream sends all examples on one stream, and returns how many labels are wrong.
func inferStream(ctx context.Context, client pb.GRPCInferenceServiceClient, data *examples) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, streamDeadline)
	defer cancel()
	// With this an error ends the stream with its status; without, it comes as error_message.
	ctx = metadata.AppendToOutgoingContext(ctx, "triton_grpc_error", "true")
	stream, err := client.ModelStreamInfer(ctx)
	if err != nil {
		return 0, err
	}
	rows, step := len(data.labels), min(max(1, messageBytes/data.rowBytes), messageRows)
	wrong, sent := 0, 0
	for answered := 0; answered < rows; answered += step {
		for ; sent < rows && sent-answered < inFlight*step; sent += step {
			request, err := data.request(sent, min(step, rows-sent), sent+step < rows)
			if err != nil {
				return 0, err
			}
			err = stream.Send(request)
			if errors.Is(err, io.EOF) {
				break // The stream has ended; Recv tells why.
			}
			if err != nil {
				return 0, err
			}
		}
		answer, err := stream.Recv()
		if err != nil {
			return 0, err
		}
		n, err := data.wrong(answer.InferResponse, answered, min(step, rows-answered))
		if err != nil {
			return 0, err
		}
		wrong += n
	}
	return wrong, stream.CloseSend()
}

package main

// The .proto files name no Go package, the M options do. protoc finds the two plugins on PATH:
// `GOBIN=$PWD/bin go install tool` puts them into bin, at the versions that go.mod pins.
//
//go:generate protoc -I ../.. --go_out=. --go_opt=module=argmax-serving/examples/go --go_opt=Mprotos/inference.proto=argmax-serving/examples/go/inference --go_opt=Mprotos/model_config.proto=argmax-serving/examples/go/inference --go-grpc_out=. --go-grpc_opt=module=argmax-serving/examples/go --go-grpc_opt=Mprotos/inference.proto=argmax-serving/examples/go/inference --go-grpc_opt=Mprotos/model_config.proto=argmax-serving/examples/go/inference protos/inference.proto protos/model_config.proto

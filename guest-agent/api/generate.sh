#!/bin/sh
# Regenerates the Go code of the protocols in this folder. The result is
# committed, so only a change of a .proto file needs this.
#
# Needs protoc (Debian: protobuf-compiler, libprotobuf-dev) and the two plugins:
#   go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
#   go install github.com/containerd/ttrpc/cmd/protoc-gen-go-ttrpc@v1.2.10
#
# Kata speaks ttrpc, not gRPC: never add protoc-gen-go-grpc here, its names
# clash with those of the ttrpc plugin in one package.
set -eu
cd "$(dirname "$0")"
PATH="$PATH:$(go env GOPATH)/bin"
module=github.com/vouchsafe-cc/vouchsafe/guest-agent/api
protoc -I . \
  --go_out=. --go_opt=module=$module \
  --go-ttrpc_out=. --go-ttrpc_opt=module=$module \
  types/types.proto agent/oci.proto agent/csi.proto agent/health.proto agent/agent.proto \
  attestation/attestation.proto datahub/datahub.proto datahub/keyprovider.proto
gofmt -w agent types attestation datahub

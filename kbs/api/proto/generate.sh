#!/bin/sh
# Regenerates the Go code of the protocols in this folder. The result is
# committed, so only a change of a .proto file needs this; `make generate`
# installs what it needs.
set -eu
cd "$(dirname "$0")"
module=github.com/vouchsafe-cc/vouchsafe/kbs/api/proto
protoc -I . \
  --go_out=. --go_opt=module=$module \
  --go-grpc_out=. --go-grpc_opt=module=$module \
  attestation/attestation.proto reference/reference.proto plugin/plugin.proto keyholder/keyholder.proto \
  tokenstore/tokenstore.proto
gofmt -w attestation reference plugin keyholder tokenstore

#!/bin/sh
# Regenerates the Go code; see guest-agent/api/generate.sh for what it needs.
set -eu
cd "$(dirname "$0")"
PATH="$PATH:$(go env GOPATH)/bin"
protoc -I . --go_out=. --go_opt=paths=source_relative --go-ttrpc_out=. --go-ttrpc_opt=paths=source_relative hypervisor.proto
gofmt -w .

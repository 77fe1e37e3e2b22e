package components

import (
	"log/slog"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/attestation"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/datahub"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/rpc"
)

// Every method of every service is served, with its own request.
func TestMethodsAreThoseOfTheProtocols(t *testing.T) {
	f, log := &fakeHub{}, slog.New(slog.DiscardHandler)
	aa, cdh := NewAttestation(f, log), NewDataHub(f, log)
	for file, served := range map[protoreflect.FileDescriptor]*rpc.Server{
		attestation.File_attestation_attestation_proto: aa, datahub.File_datahub_datahub_proto: cdh, datahub.File_datahub_keyprovider_proto: cdh,
	} {
		for i := range file.Services().Len() {
			if err := served.Serves(file.Services().Get(i)); err != nil {
				t.Error(err)
			}
		}
	}
}

package kata

import (
	"context"
	"io"
	"os"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

const (
	terminationLog = "termination_log" // the only kind of diagnostic data

	// Where Kubernetes says that a container's last words lie, and where they lie
	// if it does not.
	annotationMessagePath = "io.kubernetes.container.terminationMessagePath"
	defaultMessagePath    = "/dev/termination-log"

	// maxMessage is what Kubernetes keeps of them, in bytes: the end.
	maxMessage = 4096
)

// openMessage opens the file in which a container leaves its last words, nil if
// there is none. It must be empty now, and the file that is open now is the one
// that is read later: what the host is given was written by the pod. Otherwise a
// host could name a file of another kind, such as a secret that was opened for
// the pod, and read it here.
func (s *Server) openMessage(spec *agent.Spec) *os.File {
	path := spec.GetAnnotations()[annotationMessagePath]
	if path == "" {
		path = defaultMessagePath
	}
	for _, m := range spec.GetMounts() {
		if m.GetDestination() != path {
			continue
		}
		f, err := s.sandbox.OpenSource(m.GetSource())
		if err != nil {
			return nil
		}
		fi, err := f.Stat()
		if err != nil || !fi.Mode().IsRegular() || fi.Size() != 0 {
			_ = f.Close()
			return nil
		}
		// One that is empty because its secret was taken away gets it back.
		if secret, err := s.sandbox.HasSecret(f); err != nil || secret {
			_ = f.Close()
			return nil
		}
		return f
	}
	return nil
}

// GetDiagnosticData returns a container's last words, which Kubernetes shows as
// its termination message (kata-agent 2.5).
func (s *Server) GetDiagnosticData(_ context.Context, req *agent.GetDiagnosticDataRequest) (*agent.GetDiagnosticDataResponse, error) {
	if req.LogType != terminationLog {
		return nil, invalidf("diagnostic data of kind %.32q does not exist", req.LogType)
	}
	r, err := s.container(req.ContainerId)
	if err != nil {
		return nil, err
	}
	if r.message == nil {
		return nil, refusef(codes.NotFound, "container %q has no termination log that was empty when it was created", req.ContainerId)
	}
	fi, err := r.message.Stat()
	if err != nil {
		return nil, err
	}
	size := min(fi.Size(), maxMessage)
	text, err := io.ReadAll(io.NewSectionReader(r.message, fi.Size()-size, size))
	if err != nil {
		return nil, err
	}
	return &agent.GetDiagnosticDataResponse{Data: strings.ToValidUTF8(string(text), "\ufffd")}, nil
}

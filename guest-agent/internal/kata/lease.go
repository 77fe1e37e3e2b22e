package kata

import (
	"context"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/lease"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Leases keeps what containers have from brokers. What Hold returns gives the
// lease back.
type Leases interface {
	Hold(l lease.Lease) (release func())
}

// hold enters what a container was given: the values of its variables, and those
// of the files in its mounts.
func (s *Server) hold(id string, env []string, mounts []*agent.Mount) (releases []func()) {
	if s.leases == nil {
		return nil
	}
	for _, variable := range env {
		_, text, _ := strings.Cut(variable, "=")
		if !sealed.Is(text) {
			continue
		}
		releases = append(releases, s.leases.Hold(lease.Lease{Holder: id, What: "a variable", Ask: func(ctx context.Context) error {
			value, err := s.unseal(ctx, text)
			value.Destroy() // the process has its own
			return err
		}}))
	}
	for _, m := range mounts {
		if !s.sandbox.Unsealed(m.Source) {
			continue
		}
		releases = append(releases, s.leases.Hold(lease.Lease{
			Holder: id, What: "files",
			Ask: func(ctx context.Context) error {
				return s.sandbox.Refresh(m.Source, func(text string) (secret.Bytes, error) { return s.unseal(ctx, text) })
			},
			Drop: func() error { return s.sandbox.DropUnsealed(m.Source) },
		}))
	}
	return releases
}

// Kill kills a container, as its end says nothing of why.
func (s *Server) Kill(ctx context.Context, id string) error {
	r, err := s.container(id)
	if err != nil {
		return err
	}
	return r.ctr.Signal(ctx, "", unix.SIGKILL)
}

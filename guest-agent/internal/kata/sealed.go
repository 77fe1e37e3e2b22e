package kata

import (
	"context"
	"strings"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Secrets opens sealed secrets. The caller owns the value. Errors are
// *fault.Fault with a ticket.
type Secrets interface {
	Unseal(ctx context.Context, text string) (secret.Bytes, error)
}

// maxUnsealing is how many variables of one process are asked for at a time.
const maxUnsealing = 8

// unseal opens one sealed secret. Where it cannot, the container does not start:
// a program that finds the sealed text in place of its secret may use it.
func (s *Server) unseal(ctx context.Context, text string) (secret.Bytes, error) {
	if s.secrets == nil {
		return secret.Bytes{}, refusef(codes.FailedPrecondition, "a secret is sealed, and this agent cannot open any")
	}
	return s.secrets.Unseal(ctx, text)
}

// unsealMounts opens what is sealed in the files that a container mounts.
func (s *Server) unsealMounts(ctx context.Context, mounts []*agent.Mount) error {
	for _, m := range mounts {
		if err := s.sandbox.Unseal(m.Source, func(text string) (secret.Bytes, error) { return s.unseal(ctx, text) }); err != nil {
			return err
		}
	}
	return nil
}

// unsealEnv returns an environment with the values of sealed variables
// (guest-protocol 10.4).
func (s *Server) unsealEnv(ctx context.Context, env []string) ([]string, error) {
	out := append([]string(nil), env...)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxUnsealing)
	for i, variable := range env {
		name, text, _ := strings.Cut(variable, "=")
		if !sealed.Is(text) {
			continue
		}
		g.Go(func() error {
			return fault.Contain(func() (err error) { // nobody else would, in a goroutine
				out[i], err = s.unsealVariable(ctx, name, text)
				return err
			})
		})
	}
	return out, g.Wait()
}

func (s *Server) unsealVariable(ctx context.Context, name, text string) (string, error) {
	value, err := s.unseal(ctx, text)
	if err != nil {
		return "", err
	}
	defer value.Destroy()
	v := value.Reveal()
	if !utf8.Valid(v) || strings.ContainsRune(string(v), 0) {
		return "", fault.Newf(fault.SealedInvalid, "the value of variable %q is not text", name)
	}
	return name + "=" + string(v), nil
}

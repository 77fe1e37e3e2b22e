package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// readyDeadline limits all checks of a readiness probe together.
const readyDeadline = 3 * time.Second

func isHealth(path string) bool { return path == "/healthz" || path == "/livez" || path == "/readyz" }

// ready answers the readiness probe. It says which check failed, never why:
// the reason is in the log.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), readyDeadline)
	defer cancel()
	status, text := http.StatusOK, &strings.Builder{}
	for _, c := range []struct {
		name string
		run  func(context.Context) error
	}{{"store", s.checkStore}, {"signing-key", s.checkKey}, {"policies", s.checkPolicies}, {"audit", s.checkAudit}} {
		if err := c.run(ctx); err != nil {
			status = http.StatusServiceUnavailable
			fmt.Fprintf(text, "[-] %s failed\n", c.name)
			s.Logger.WarnContext(ctx, "not ready", slog.String("check", c.name), slog.Any("error", err))
			continue
		}
		fmt.Fprintf(text, "[+] %s ok\n", c.name)
	}
	if !r.URL.Query().Has("verbose") {
		text.Reset()
	}
	s.answer(w, status, "text/plain; charset=utf-8", []byte(text.String()))
	return nil
}

func (s *Server) checkStore(ctx context.Context) error {
	err := s.Store.View(ctx, func(tx store.Tx) error {
		_, err := tx.Get("probe")
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// checkKey signs a token for nobody and verifies it.
func (s *Server) checkKey(ctx context.Context) error {
	text, _, err := s.Issuer.Issue(ctx, "probe", nil)
	if err != nil {
		return err
	}
	_, err = s.Tokens.Verify(ctx, text)
	return err
}

func (s *Server) checkPolicies(ctx context.Context) error {
	name, err := s.Engine.Missing(ctx, policy.Required()...)
	if err != nil {
		return fmt.Errorf("policy %s: %w", name, err)
	}
	return nil
}

func (s *Server) checkAudit(ctx context.Context) error {
	_, err := s.AuditLog.Entries(ctx, 0, 1)
	return err
}

package kata

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/image/driver"
)

// A machine that is still being set up says that its agent is there, and does
// nothing that the host asks for before it is complete.
func TestNothingBeforeTheMachineIsReady(t *testing.T) {
	t.Parallel()
	waiting, complete := make(chan struct{}), make(chan struct{})
	p := newPod(t, func(c *Config) {
		c.Ready = func(ctx context.Context) error {
			select {
			case waiting <- struct{}{}:
			case <-complete:
				return nil
			}
			select {
			case <-complete:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	created := make(chan error, 1)
	go func() {
		_, err := p.client.CreateSandbox(t.Context(), &agent.CreateSandboxRequest{Hostname: "pod1"})
		created <- err
	}()
	<-waiting
	if resp, err := p.health.Check(t.Context(), &agent.CheckRequest{}); err != nil || resp.GetStatus() != agent.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v", resp, err)
	}
	select {
	case err := <-created:
		t.Errorf("a sandbox on a machine that is not set up: %v", err)
	default:
	}
	close(complete)
	if err := <-created; err != nil {
		t.Error(err)
	}
}

// What keeps a machine from being set up is the answer to every call: the runtime
// learns which modules do not load. It may end the sandbox, and nothing else.
func TestNeverReady(t *testing.T) {
	t.Parallel()
	p := newPod(t, func(c *Config) {
		c.Ready = func(context.Context) error {
			return fmt.Errorf("load modules: %w", &driver.MissingError{Modules: []string{"overlay", "dm_crypt"}, Failed: true, Err: errors.New("/usr/lib/secret: EPERM")})
		}
	})
	for range 2 {
		_, sandboxed := p.client.CreateSandbox(t.Context(), &agent.CreateSandboxRequest{Hostname: "pod1"})
		_, details := p.client.GetGuestDetails(t.Context(), &agent.GuestDetailsRequest{})
		for _, err := range []error{sandboxed, details} {
			wantCode(t, err, codes.Unimplemented)
			for _, part := range []string{"driver_missing", "overlay, dm_crypt", "recipe"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("no %q in %v", part, err)
				}
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the private side is shown: %v", err)
			}
		}
	}
	if resp, err := p.health.Check(t.Context(), &agent.CheckRequest{}); err != nil || resp.GetStatus() != agent.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v", resp, err)
	}
	if _, err := p.client.DestroySandbox(t.Context(), &agent.DestroySandboxRequest{}); err != nil {
		t.Fatal(err)
	}
	<-p.server.Done()
}

// Another reason is told as it is.
func TestNeverReadyForAnotherReason(t *testing.T) {
	t.Parallel()
	p := newPod(t, func(c *Config) {
		c.Ready = func(context.Context) error { return refusef(codes.Unavailable, "modules cannot be locked") }
	})
	_, err := p.client.CreateSandbox(t.Context(), &agent.CreateSandboxRequest{Hostname: "pod1"})
	wantCode(t, err, codes.Unavailable)
}

// What lacks a driver says which, also where the code came with a ticket.
func TestMissingDriver(t *testing.T) {
	t.Parallel()
	f := driver.Missing("erofs", unix.ENODEV)
	for _, err := range []error{f, fmt.Errorf("storage: %w", f), f.With("7QK2-M9TD")} {
		s := status.Convert(wireError(err))
		if s.Code() != codes.Unimplemented || !strings.HasPrefix(s.Message(), "driver_missing") || !strings.Contains(s.Message(), "no erofs") {
			t.Errorf("%v", s)
		}
	}
	if s := wireError(f.With("7QK2-M9TD")); !strings.Contains(s.Error(), "(ticket 7QK2-M9TD)") {
		t.Error(s)
	}
}

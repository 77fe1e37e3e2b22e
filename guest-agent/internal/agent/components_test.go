package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/datahub"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/caller"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/hub"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/securemount"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
)

// side is an agent's side doors, without what is behind them.
func side(t *testing.T, o Options, s *settings.Settings) []service {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	h, err := hub.New(hub.Config{ImageDir: t.TempDir(), Journal: io.Discard, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	d, err := newDoors(s, served{h, lentVolumes{mounter: securemount.New(securemount.Config{})}}, func() []caller.Container { return nil }, log)
	if err != nil {
		t.Fatal(err)
	}
	all, err := d.open(t.Context(), o, s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, len(all))
	for _, one := range all {
		go func() { ended <- one.serve(ctx, one.listener) }()
	}
	t.Cleanup(func() {
		stop()
		for range all {
			if err := <-ended; err != nil {
				t.Errorf("a side door ended with %v", err)
			}
		}
	})
	return all
}

// freeAddress is one that nobody listened on a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// One service is behind all doors: a socket of root's, gRPC and REST.
func TestSideDoors(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "asked", "aa.sock")
	s := &settings.Settings{AttestationSocket: "unix://" + at, DataHubSocket: freeAddress(t)}
	s.Agent.Components, s.Agent.RESTFeatures = settings.REST, settings.FeaturesAll
	o := Options{AttestationSocket: filepath.Join(dir, "aa.sock"), DataHubSocket: filepath.Join(dir, "cdh.sock"), RESTListen: freeAddress(t)}
	if all := side(t, o, s); len(all) != 4 {
		t.Errorf("%d doors", len(all))
	}
	if fi, err := os.Stat(at); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the socket that was asked for: %v", err)
	}
	if _, err := os.Stat(o.AttestationSocket); err == nil {
		t.Error("the socket that was not asked for is there too")
	}
	const want = "[CDH] [ERROR]: Get Resource failed: unavailable (ticket "
	for range 3 {
		conn, err := net.Dial("unix", o.DataHubSocket)
		if err != nil {
			t.Fatal(err)
		}
		c := ttrpc.NewClient(conn)
		resources := datahub.NewGetResourceServiceClient(c)
		for range 2 {
			if _, err := resources.GetResource(t.Context(), &datahub.GetResourceRequest{ResourcePath: "kbs:///a/b/c"}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("ttrpc: %v", err)
			}
		}
		// An image is for root's socket, and so this gets as far as its bundle.
		_, err = datahub.NewImagePullServiceClient(c).PullImage(t.Context(), &datahub.ImagePullRequest{ImageUrl: "x", BundlePath: "relative"})
		if err == nil || !strings.Contains(err.Error(), "invalid_request") {
			t.Errorf("an image by ttrpc: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	g, err := grpc.NewClient(s.DataHubSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Close() }()
	err = g.Invoke(t.Context(), "/api.GetResourceService/GetResource", &datahub.GetResourceRequest{ResourcePath: "kbs:///a/b/c"}, &datahub.GetResourceResponse{})
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("gRPC: %v", err)
	}
	err = g.Invoke(t.Context(), "/api.ImagePullService/PullImage", &datahub.ImagePullRequest{ImageUrl: "x", BundlePath: "/b"}, &datahub.ImagePullResponse{})
	if err == nil || !strings.Contains(err.Error(), "forbidden") {
		t.Errorf("an image over loopback: %v", err)
	}
	resp, err := http.Get("http://" + o.RESTListen + "/cdh/resource/a/b/c")
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("REST: %s, %v", resp.Status, err)
	}
}

// With rules, this process is a program of the guest: it is served at root's
// socket, and over loopback it is nobody.
func TestSideDoorsWithRules(t *testing.T) {
	s := &settings.Settings{Access: []settings.AccessRule{{Container: "*", Resources: []string{"*"}}}}
	s.Agent.Components, s.Agent.RESTFeatures = settings.REST, settings.FeaturesAll
	o := Options{DataHubSocket: filepath.Join(t.TempDir(), "cdh.sock"), RESTListen: freeAddress(t)}
	side(t, o, s)
	resp, err := http.Get("http://" + o.RESTListen + "/cdh/resource/a/b/c")
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("REST: %s, %v", resp.Status, err)
	}
	conn, err := net.Dial("unix", o.DataHubSocket)
	if err != nil {
		t.Fatal(err)
	}
	c := ttrpc.NewClient(conn)
	defer func() { _ = c.Close() }()
	_, err = datahub.NewGetResourceServiceClient(c).GetResource(t.Context(), &datahub.GetResourceRequest{ResourcePath: "kbs:///a/b/c"})
	if err == nil || !strings.Contains(err.Error(), "unavailable") {
		t.Errorf("root's socket: %v", err)
	}
}

// A rule that nobody can mean ends the start.
func TestRulesAreChecked(t *testing.T) {
	s := &settings.Settings{Access: []settings.AccessRule{{Container: "app", Resources: []string{"default/x"}}}}
	if _, err := newDoors(s, nil, nil, nil); err == nil || !strings.Contains(err.Error(), "cdh.toml: vouchsafe.access[0]") {
		t.Errorf("%v", err)
	}
}

// If one door cannot be opened none is.
func TestAllDoorsOrNone(t *testing.T) {
	s := &settings.Settings{DataHubSocket: "127.0.0.1:1"}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	s.Agent.Components, s.DataHubSocket = settings.DataHub, l.Addr().String()
	o := Options{AttestationSocket: filepath.Join(t.TempDir(), "aa.sock")}
	d, err := newDoors(s, nil, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if all, err := d.open(t.Context(), o, s); err == nil || all != nil {
		t.Errorf("%d doors, %v", len(all), err)
	}
	if _, err := net.Dial("unix", o.AttestationSocket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a door is open: %v", err)
	}
}

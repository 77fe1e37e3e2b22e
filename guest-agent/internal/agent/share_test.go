package agent

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/datahub"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
)

// hogVariable makes the test program one that holds connections: its value says
// where to.
const hogVariable = "VOUCHSAFE_TEST_HOG"

// halfARequest keeps a connection of the REST API busy.
const halfARequest = "POST /aa/aael HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"

// TestHog is no test, but what TestNobodyHoldsADoor runs in other processes.
func TestHog(t *testing.T) {
	where := os.Getenv(hogVariable)
	if where == "" {
		t.Skip("runs as another process")
	}
	var held []net.Conn
	for _, one := range strings.Fields(where) {
		network, at, _ := strings.Cut(one, "=")
		for range maxConns + 50 {
			conn, err := net.Dial(network, at)
			if err != nil {
				continue // enough
			}
			if network == "tcp4" { // the REST API
				_, _ = conn.Write([]byte(halfARequest))
			}
			held = append(held, conn)
		}
	}
	_, _ = fmt.Fprintln(os.Stdout, "holding", len(held))
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
}

// hog starts such a process in a pid namespace of its own, as a container is one,
// and waits until it holds what it can.
func hog(t *testing.T, where string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHog$", "-test.v")
	cmd.Env = append(os.Environ(), hogVariable+"="+where)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "holding") {
			t.Log(lines.Text())
			return
		}
	}
	t.Fatal("it holds nothing")
}

// Two processes, each in a pid namespace like a container's, take every connection
// that they can get at every side door, and keep the REST API's busy. Whoever else
// comes is served.
func TestNobodyHoldsADoor(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	s := &settings.Settings{DataHubSocket: freeAddress(t)}
	s.Agent.Components, s.Agent.RESTFeatures = settings.REST, settings.FeaturesAll
	dir := t.TempDir()
	o := Options{AttestationSocket: filepath.Join(dir, "aa.sock"), RESTListen: freeAddress(t)}
	side(t, o, s)
	where := fmt.Sprintf("unix=%s tcp=%s tcp4=%s", o.AttestationSocket, s.DataHubSocket, o.RESTListen)
	for range 2 {
		hog(t, where)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	conn, err := net.Dial("unix", o.AttestationSocket)
	if err != nil {
		t.Fatal(err)
	}
	c := ttrpc.NewClient(conn)
	defer func() { _ = c.Close() }()
	var answer datahub.GetResourceResponse
	if err := c.Call(ctx, "attestation_agent.AttestationAgentService", "GetTeeType", &datahub.GetResourceRequest{}, &answer); err == nil || !strings.Contains(err.Error(), "get tee type failed") {
		t.Errorf("ttrpc: %v", err)
	}
	g, err := grpc.NewClient(s.DataHubSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Close() }()
	err = g.Invoke(ctx, "/api.GetResourceService/GetResource", &datahub.GetResourceRequest{ResourcePath: "kbs:///a/b/c"}, &datahub.GetResourceResponse{})
	if err == nil || !strings.Contains(err.Error(), "Get Resource failed") {
		t.Errorf("gRPC: %v", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+o.RESTListen+"/info", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal("REST:", err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("REST: %s, %v", resp.Status, err)
	}
}

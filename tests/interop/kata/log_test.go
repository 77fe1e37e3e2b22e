package kata_test

import (
	"bufio"
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/barepod"
)

// levelOf is how the Rust runtime's forwarder finds the level of a line: that of
// a JSON object by a word of four letters, and INFO for everything else.
func levelOf(line string) string {
	var entry struct {
		Level string `json:"level"`
	}
	if json.Unmarshal([]byte(line), &entry) != nil {
		return "INFO"
	}
	switch entry.Level {
	case "TRCE", "DEBG", "WARN", "ERRO", "CRIT":
		return entry.Level
	}
	return "INFO"
}

// The forwarder connects once the agent serves, loses its connection, connects
// again, and has the whole of the log, with the last words.
func TestLogForwarder(t *testing.T) {
	t.Parallel()
	at := "@vouchsafe-log-" + filepath.Base(t.TempDir()) + "-" + time.Now().Format("150405.000000")
	a := start(t, barepod.Config{Args: []string{"--log-listen", "unix://" + at, "--log-level", "debug"}})
	forward := func() (net.Conn, *bufio.Scanner) {
		conn, err := net.Dial("unix", at)
		ok(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		ok(t, conn.SetReadDeadline(time.Now().Add(2*time.Minute)))
		return conn, bufio.NewScanner(conn)
	}
	until := func(lines *bufio.Scanner, word string) string {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), word) {
				return lines.Text()
			}
		}
		t.Fatalf("the log ended without %q: %v", word, lines.Err())
		return ""
	}
	first, lines := forward()
	if line := until(lines, `"msg":"serving"`); levelOf(line) != "INFO" || !strings.Contains(line, `"source":"agent"`) {
		t.Errorf("%s", line)
	}
	ok(t, first.Close())
	ok(t, a.Sandbox(t.Context(), false))
	_, err := a.StartContainer(t.Context(), &agent.StartContainerRequest{ContainerId: "nobody"})
	if err == nil {
		t.Error("a container that is not there was started")
	}
	_, lines = forward()
	if line := until(lines, `"msg":"call refused"`); levelOf(line) != "WARN" {
		t.Errorf("%s", line)
	}
	_, err = a.DestroySandbox(t.Context(), &agent.DestroySandboxRequest{})
	ok(t, err)
	until(lines, `"msg":"sandbox destroyed"`)
	for lines.Scan() { // to the end, which is that of the agent
	}
	ok(t, lines.Err())
	if log := a.Log(); strings.Contains(log, `"msg":"serving"`) {
		t.Errorf("on the console too: %s", log)
	}
}

package config

import (
	"path/filepath"
	"testing"
)

// Complaints come in the order of their lines, each with the file.
func TestComplaintsAreInOrder(t *testing.T) {
	path := filepath.Join(written(t, map[string]string{"kbs.toml": "state_dir = 5\n[http_serer]\nx = 1\n[limits]\nticket_days = '90'\n"}), "kbs.toml")
	_, err := Load(path, env(nil))
	want := path + ": line 1: state_dir: must be a text, is the number 5\n" +
		path + ": line 2: http_serer: unknown key; did you mean http_server?\n" +
		path + ": line 5: limits.ticket_days: must be a whole number, is a text"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

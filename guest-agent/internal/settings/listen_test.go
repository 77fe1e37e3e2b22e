package settings

import (
	"strings"
	"testing"
)

// The table of the listener is whole or refused, and strict.
func TestListenTLS(t *testing.T) {
	whole := "[vouchsafe.listen_tls]\ncertificate = \"c\"\nkey = \"k\"\nclient_ca = \"a\"\n"
	s, err := Load(Sources{InitData: document(map[string]string{"cdh.toml": whole})})
	if err != nil {
		t.Fatal(err)
	}
	l := s.Agent.ListenTLS
	if !l.Set() || string(l.Certificate) != "c" || string(l.Key.Reveal()) != "k" || string(l.ClientCA) != "a" {
		t.Errorf("%+v", l)
	}
	for _, line := range []string{"certificate = \"c\"\n", "key = \"k\"\n", "client_ca = \"a\"\n"} {
		text := strings.Replace(whole, line, "", 1)
		if _, err := Load(Sources{InitData: document(map[string]string{"cdh.toml": text})}); err == nil {
			t.Errorf("accepted without %s", line)
		}
	}
	if _, err := Load(Sources{InitData: document(map[string]string{"cdh.toml": whole + "insecure = true\n"})}); err == nil {
		t.Error("a key that does not exist was accepted")
	}
	if s, err := Load(Sources{}); err != nil || s.Agent.ListenTLS.Set() {
		t.Errorf("without: %v", err)
	}
}
